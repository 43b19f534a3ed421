// What hostile clients do to a front door, and what honest ones do in the same number. Run as a program of its own, so that
// who measures beside it does not measure this: `node hostile.mjs PORT JSON`. Prints one line of JSON per second.
//
// heads: connections that send a head byte by byte and never end it. drips: bodies of one byte at a time. deaf: connections
// that ask for much and read nothing. rate: requests per second, `unknown` (session ids nobody has), `broken` (the corpus), or
// `missing` (valid requests for what does not exist, to compare with), `once` (the same, each on a connection of its own).
// polite: every connection does as often what is valid: a whole request in place of a byte, and answers are read.

import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { root } from './paths.mjs';

const port = Number(process.argv[2]);
const { heads = 0, drips = 0, deaf = 0, rate = 0, kinds = ['missing'], polite = false } = JSON.parse(process.argv[3]);
const counts = { open: 0, sent: 0, answered: 0, failed: 0 };

/** From several addresses: the ports of one get scarce long before there are none. */
let source = 0;
const connect = () => net.connect({ port, host: '127.0.0.1', localAddress: `127.0.0.${100 + (source++ % 16)}` });

/** Keeps `count` connections of a kind open, whatever the other side does to them. */
function keep(count, begin) {
  let opened = 0;
  const one = () => {
    const socket = connect();
    let timer;
    socket.on('connect', () => {
      counts.open++;
      timer = begin(socket);
      socket.once('close', () => counts.open--);
    });
    socket.on('error', () => {});
    socket.once('close', () => {
      clearInterval(timer);
      setTimeout(one, 1000);
    });
  };
  // The kernel's queue of the listening socket is not what is tested.
  const timer = setInterval(() => {
    for (let burst = 0; burst < 50 && opened < count; burst++, opened++) one();
    if (opened >= count) clearInterval(timer);
  }, 10);
}

const MISSING = 'GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n';
const SLOW = 'GET / HTTP/1.1\r\nHost: t\r\nCookie: ';
keep(heads, (socket) => {
  let at = 0;
  socket.resume().write(polite ? MISSING : SLOW.slice(0, 20));
  return setInterval(() => socket.write(polite ? MISSING : SLOW[20 + at++] ?? 'x'), 2000 + Math.random() * 2000);
});
keep(drips, (socket) => {
  socket.resume().write(polite ? MISSING : 'POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n');
  return setInterval(() => socket.write(polite ? MISSING : 'x'), 10);
});
keep(deaf, (socket) => {
  if (polite) socket.resume();
  else socket.pause();
  return setInterval(() => {
    // Who reads nothing is soon asked for nothing more: one that does asks for one at a time.
    if (polite) socket.write(MISSING);
    else if (socket.writableLength < 65536) socket.write(MISSING.repeat(50));
  }, 50);
});

const folder = path.join(root, 'crates/router/tests/corpus/requests');
const broken = fs.readdirSync(folder).filter((name) => /^(400|431|501|505)/.test(name)).map((name) => fs.readFileSync(path.join(folder, name)));
const REQUESTS = {
  missing: () => MISSING,
  once: () => 'GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n',
  unknown: (number) => `GET /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAA${String(number % 1e8).padStart(8, '0')} HTTP/1.1\r\nHost: t\r\n\r\n`,
};

/** A lane sends one request after the other on its connection, and a new one when that was closed. */
let due = 0;
let number = 0;
const started = performance.now();
setInterval(() => {
  due = ((performance.now() - started) / 1000) * rate - counts.sent;
  for (const lane of lanes) lane();
}, 5);
const lanes = Array.from({ length: rate > 0 ? 32 : 0 }, () => {
  let socket;
  let waiting = false;
  const next = () => {
    if (waiting || due < 1) return;
    due--;
    const kind = kinds[number++ % kinds.length];
    if (!socket || socket.destroyed) {
      socket = connect();
      const mine = socket;
      mine.on('data', () => {
        if (mine !== socket) return;
        counts.answered++;
        waiting = false;
        if (mine.isLast) {
          mine.end();
          socket = undefined;
        }
        next();
      });
      mine.on('error', () => {});
      mine.on('close', () => {
        if (mine !== socket) return;
        if (waiting) counts.failed++;
        socket = undefined;
        waiting = false;
      });
    }
    waiting = true;
    counts.sent++;
    // The next one has a connection of its own.
    socket.isLast = kind === 'broken' || kind === 'once';
    socket.write(kind === 'broken' ? broken[number % broken.length] : REQUESTS[kind](number));
  };
  return next;
});

setInterval(() => console.log(JSON.stringify(counts)), 500);
