// Compression with the clients people have: permessage-deflate with npm's ws and with socket.io-client, gzip and deflate of
// polling answers.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { io } from 'socket.io-client';
import WebSocket from 'ws';
import { Sandbox, freePort, worker } from '../lib/cluster.mjs';
import { startReference } from '../lib/reference.mjs';
import { once, until, within } from '../lib/wait.mjs';

const LARGE = 'again and again, '.repeat(6000);

async function startAlone(env) {
  const sandbox = new Sandbox();
  const port = await freePort();
  const child = sandbox.spawn(...worker.alone, { env: { PORT: String(port), ...env } });
  await until(10_000, 'echo listens', async () => {
    if (child.exitCode !== null) throw new Error(child.output);
    return (await fetch(`http://127.0.0.1:${port}`)).ok;
  });
  return { port, close: () => sandbox.close() };
}

const TARGETS = {
  "Node's server": () => startReference({ perMessageDeflate: true }),
  'one worker alone': () => startAlone({ ECHO_DEFLATE: 'alone' }),
  'one worker alone, with context takeover': () => startAlone({ ECHO_DEFLATE: 'takeover' }),
};

/** A session over ws: its socket, how many bytes came, and the next message. */
async function open(port, options) {
  const ws = new WebSocket(`ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket`, options);
  const texts = [];
  const waiting = [];
  ws.on('message', (data) => (waiting.length ? waiting.shift()(data.toString()) : texts.push(data.toString())));
  ws.on('error', () => {});
  const next = () => within(10_000, 'a message', new Promise((resolve) => (texts.length ? resolve(texts.shift()) : waiting.push(resolve))));
  assert.match(await next(), /^0\{/);
  ws.send('40');
  assert.match(await next(), /^40\{/);
  return { ws, next, read: () => ws._socket.bytesRead };
}

for (const [target, start] of Object.entries(TARGETS)) {
  describe(target, () => {
    let server;
    before(async () => (server = await start()));
    after(() => server?.close());

    const offers = {
      'as ws offers it': {},
      'without context takeover': { serverNoContextTakeover: true, clientNoContextTakeover: true },
      'with small windows': { serverMaxWindowBits: 9, clientMaxWindowBits: 10 },
    };
    for (const [name, offer] of Object.entries(offers)) {
      test(`ws, ${name}`, async (t) => {
        const { ws, next, read } = await open(server.port, { perMessageDeflate: { threshold: 0, ...offer } });
        t.after(() => ws.close());
        assert.match(ws.extensions, /permessage-deflate/);
        for (let round = 0; round < 5; round++) {
          for (const text of [LARGE, 'small', 'ü→🌱'.repeat(3000), '']) {
            const start = read();
            ws.send(`42${JSON.stringify(['echo', text, round])}`);
            assert.equal(await next(), `42${JSON.stringify(['echo', text, round])}`);
            if (text === LARGE) assert.ok(read() - start < LARGE.length / 20, `${read() - start} bytes for ${LARGE.length}`);
          }
        }
      });
    }

    test('ws, no offer: nothing is compressed', async (t) => {
      const { ws, next, read } = await open(server.port, { perMessageDeflate: false });
      t.after(() => ws.close());
      assert.equal(ws.extensions, '');
      const start = read();
      ws.send(`42${JSON.stringify(['echo', LARGE])}`);
      await next();
      assert.ok(read() - start > LARGE.length);
    });

    test('a message that would become too large ends the session, and nobody else is harmed', async (t) => {
      const { ws } = await open(server.port, { perMessageDeflate: { threshold: 0 } });
      const other = await open(server.port, { perMessageDeflate: { threshold: 0 } });
      t.after(() => other.ws.close());
      const closed = within(10_000, 'the end', new Promise((resolve) => ws.once('close', resolve)));
      ws.send(`42${JSON.stringify(['echo', 'x'.repeat(50_000_000)])}`);
      assert.equal(await closed, 1009);
      other.ws.send('42["echo","still"]');
      assert.equal(await other.next(), '42["echo","still"]');
    });

    for (const transports of [['websocket'], ['polling', 'websocket']]) {
      test(`socket.io-client, ${transports.join(', then ')}`, async (t) => {
        const socket = io(`http://127.0.0.1:${server.port}`, { transports, forceNew: true, reconnection: false, perMessageDeflate: { threshold: 0 } });
        t.after(() => socket.close());
        await once(socket, 'connect');
        await until(10_000, 'a websocket', () => socket.io.engine.transport.name === 'websocket', 5);
        const bytes = Buffer.alloc(300_000, 'abc');
        for (let round = 0; round < 10; round++) {
          const [text, back] = await within(10_000, 'an answer', new Promise((resolve) => {
            socket.emit('echo-ack', [LARGE, bytes], resolve);
          }));
          assert.equal(text, LARGE);
          assert.ok(bytes.equals(back));
        }
      });
    }

    for (const encoding of ['gzip', 'deflate']) {
      test(`a polling answer as ${encoding}`, async () => {
        const base = `http://127.0.0.1:${server.port}/socket.io/?EIO=4&transport=polling`;
        const { sid } = JSON.parse((await (await fetch(base)).text()).slice(1));
        const get = () => fetch(`${base}&sid=${sid}`, { headers: { 'accept-encoding': encoding } });
        const post = (body) => fetch(`${base}&sid=${sid}`, { method: 'POST', body });
        await post('40');
        assert.equal((await get()).headers.get('content-encoding'), null, 'a small one stays as it is');
        await post(`42${JSON.stringify(['echo', LARGE])}`);
        const answer = await get();
        assert.equal(answer.headers.get('content-encoding'), encoding);
        assert.equal(await answer.text(), `42${JSON.stringify(['echo', LARGE])}`);
      });
    }
  });
}
