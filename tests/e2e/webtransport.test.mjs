// Socket.IO over WebTransport: the official client in a browser, against the example that serves it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Sandbox, bin, freePort, root } from '../lib/cluster.mjs';
import { until, within } from '../lib/wait.mjs';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(fs.existsSync);

async function start() {
  const sandbox = new Sandbox();
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
  const names = ['-subj', '/CN=localhost', '-keyout', 'key.pem', '-out', 'cert.pem'];
  execFileSync('openssl', ['req', '-x509', ...curve, '-days', '13', '-nodes', ...names], { cwd: sandbox.dir, stdio: 'ignore' });
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const env = { PORT: String(port), CLIENT: path.join(root, 'tests/node_modules/socket.io-client/dist') };
  const child = sandbox.spawn(path.join(bin, 'examples/webtransport'), [], { env });
  await until(10_000, 'it listens', async () => {
    if (child.exitCode !== null) throw new Error(child.output);
    return (await fetch(url)).ok;
  });
  return { child, url, close: () => sandbox.close() };
}

/** What the pages of these tests use, run inside them. */
const helpers = () => {
  /* eslint-disable no-undef */
  window.opened = (options) =>
    new Promise((resolve, reject) => {
      const transportOptions = { webtransport: { serverCertificateHashes: [{ algorithm: 'sha-256', value: hash }] } };
      const socket = io({ forceNew: true, reconnection: false, transportOptions, ...options });
      socket.once('connect', () => resolve(socket));
      socket.once('connect_error', reject);
    });
  window.transport = (socket) => socket.io.engine.transport.name;
  window.upgraded = (socket) =>
    new Promise((resolve) => {
      const { engine } = socket.io;
      if (engine.transport.name !== 'polling') return resolve(engine.transport.name);
      engine.once('upgrade', ({ name }) => resolve(name));
    });
  window.ask = (socket, ...args) => new Promise((resolve) => socket.emit(...args, resolve));
  window.next = (socket, event) => new Promise((resolve) => socket.once(event, (...args) => resolve(args)));
  window.bytes = (length) => Uint8Array.from({ length }, (_, index) => index * 7);
  window.same = (one, other) => {
    const [a, b] = [one, other].map((data) => new Uint8Array(data));
    return a.length === b.length && a.every((byte, index) => byte === b[index]);
  };
  /** One stream of WebTransport without a client of Engine.IO. */
  window.raw = async (text) => {
    const session = new WebTransport(`https://${location.host}/socket.io/?EIO=4&transport=webtransport`, {
      serverCertificateHashes: [{ algorithm: 'sha-256', value: hash }],
    });
    await session.ready;
    const { writable } = await session.createBidirectionalStream();
    const payload = new TextEncoder().encode(text);
    await writable.getWriter().write(Uint8Array.from([payload.length, ...payload]));
    return session.closed.then(({ closeCode, reason }) => ({ closeCode, reason }));
  };
  /* eslint-enable no-undef */
};

describe('WebTransport', { skip: !CHROMIUM && 'no chromium' }, () => {
  let server;
  let browser;
  before(async () => {
    server = await start();
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu'] });
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  /** A page with the helpers. `run` is run inside it. */
  async function open(t, query = 'transports=websocket') {
    const page = await browser.newPage();
    t.after(() => page.close());
    await page.goto(`${server.url}/?${query}`);
    await page.evaluate(helpers);
    const run = (inside, argument) => within(20_000, 'the page', page.evaluate(inside, argument));
    return { page, run };
  }

  /* eslint-disable no-undef */
  for (const [mode, transports] of Object.entries({
    'from the start': ['webtransport'],
    'after polling': ['polling', 'webtransport'],
    'after polling, rather than a websocket': ['polling', 'websocket', 'webtransport'],
  })) {
    test(`text, binary and acknowledgements both ways, ${mode}`, async (t) => {
      const { run } = await open(t);
      const exchange = () => run(async (transports) => {
        const socket = await opened({ transports, query: { who: 'ü me' } });
        // On its way while the transport changes.
        const seen = [];
        socket.on('echo', (number) => seen.push(number));
        for (let number = 0; number < 300; number++) {
          socket.emit('echo', number);
          if (number % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
        }
        const name = await upgraded(socket);
        for (let number = 300; number < 600; number++) socket.emit('echo', number);
        await ask(socket, 'echo-ack', 'all before are here');
        socket.off('echo');

        const values = ['text', 7, null, true, { nested: [1, { deep: 'ü→🌱' }] }, ['a', []]];
        const echoed = next(socket, 'echo');
        socket.emit('echo', ...values);
        socket.on('ask-me', (question, answer) => answer({ answered: question }));
        const large = [1, 125, 126, 127, 65_535, 65_536, 500_000].map((length) => bytes(length));
        const { parts } = await ask(socket, 'echo-ack', { parts: large });
        return {
          name,
          seen,
          echoed: JSON.stringify(await echoed) === JSON.stringify(values),
          ack: await ask(socket, 'echo-ack', { question: 1 }),
          asked: await ask(socket, 'ask-me', 'how'),
          binary: large.map((data, index) => same(data, parts[index])),
          text: (await ask(socket, 'echo-ack', 'é'.repeat(300_000))).length,
          whoami: await ask(socket, 'whoami'),
          after: transport(socket),
        };
      }, transports);
      let result = await exchange();
      // The client gives it 200 ms before it tries a websocket as well, which is little on a busy machine.
      for (let more = 4; more > 0 && result.name === 'websocket'; more--) result = await exchange();
      const { seen, ...rest } = result;
      assert.deepEqual(seen, Array.from({ length: 600 }, (_, number) => number), 'all, in order');
      assert.match(rest.whoami.address, /^127\.0\.0\.1:\d+$/);
      rest.whoami.address = 'here';
      assert.deepEqual(rest, {
        name: 'webtransport',
        echoed: true,
        ack: { question: 1 },
        asked: { answered: 'how' },
        binary: Array(7).fill(true),
        text: 300_000,
        // The client sends its query with requests of HTTP/1 only.
        whoami: { transport: 'webtransport', address: 'here', who: transports.length > 1 ? 'ü me' : null },
        after: 'webtransport',
      });
    });
  }

  test('a broadcast reaches clients on every transport', async (t) => {
    const { run } = await open(t);
    const heard = await run(async () => {
      const sockets = await Promise.all(['polling', 'websocket', 'webtransport'].map((name) => opened({ transports: [name] })));
      const heard = sockets.map((socket) => next(socket, 'broadcast'));
      sockets[2].emit('broadcast', 'to all', bytes(1000), { more: bytes(3) });
      const args = await Promise.all(heard);
      return args.map(([text, data, { more }]) => [text, same(data, bytes(1000)), same(more, bytes(3))]);
    });
    assert.deepEqual(heard, Array(3).fill(['to all', true, true]));
  });

  test('each way of leaving is told to the other side', async (t) => {
    const { run } = await open(t);
    const told = await run(async () => {
      const watcher = await opened({ transports: ['websocket'] });
      const told = [];
      const leave = async (how) => {
        const socket = await opened({ transports: ['webtransport'] });
        const { id } = socket;
        const left = new Promise((resolve) => watcher.on('left', (who, reason) => who === id && resolve(reason)));
        const disconnected = next(socket, 'disconnect');
        const last = [];
        socket.on('echo', (text) => last.push(text));
        how(socket);
        told.push([(await disconnected)[0], await left, ...last]);
      };
      await leave((socket) => socket.disconnect());
      await leave((socket) => socket.io.engine.close());
      await leave((socket) => socket.emit('go', false));
      // The last event and the packet that says so are not overtaken by the end of the session.
      for (let count = 0; count < 20; count++) await leave((socket) => socket.emit('go', true));
      // Larger than the server takes.
      await leave((socket) => socket.emit('echo', bytes(1_000_001)));
      return told;
    });
    assert.deepEqual(told, [
      ['io client disconnect', 'client namespace disconnect'],
      ['forced close', 'transport close'],
      ['io server disconnect', 'server namespace disconnect', 'last'],
      ...Array(20).fill(['io server disconnect', 'server namespace disconnect', 'last']),
      ['transport close', 'parse error'],
    ]);
  });

  test('a page that is closed leaves', async (t) => {
    const { run } = await open(t);
    const leaving = await open(t);
    await run(async () => {
      window.watcher = await opened({ transports: ['websocket'] });
      window.left = next(watcher, 'left');
    });
    await leaving.run(async () => void (await opened({ transports: ['webtransport'] })));
    // The page's own socket and the one just opened; either is told first.
    await leaving.page.close();
    assert.match((await run(() => left))[1], /^transport (close|error)$/);
  });

  test('what opens no session is refused with a reason', async (t) => {
    const { run } = await open(t);
    const refused = (reason) => ({ closeCode: 0, reason });
    assert.deepEqual(await run(() => raw('0{"sid":"aBcDeFgHiJkLmNoPqRsT"}')), refused('Session ID unknown'));
    assert.deepEqual(await run(() => raw('0{"sid":')), refused('Bad request'));
    assert.deepEqual(await run(() => raw('40')), refused('Bad request'));
    const elsewhere = await run(() => opened({ path: '/elsewhere', transports: ['webtransport'] }).then(() => 'opened', String));
    assert.match(elsewhere, /Error/);
  });

  test('a session that is known cannot be taken from its websocket', async (t) => {
    const { run } = await open(t);
    const result = await run(async () => {
      const socket = await opened({ transports: ['websocket'] });
      const refused = await raw(`0{"sid":"${socket.io.engine.id}"}`);
      return [refused, await ask(socket, 'echo-ack', 'still here'), transport(socket)];
    });
    assert.deepEqual(result, [{ closeCode: 0, reason: '' }, 'still here', 'websocket']);
  });

  test("the example's page", async (t) => {
    const { page } = await open(t, '');
    await page.waitForFunction(() => document.getElementById('transport').textContent === 'webtransport');
    await page.click('#send');
    await page.waitForFunction(() => document.getElementById('answer').textContent.startsWith('20'));
  });

  test('a server that ends lets its clients go', async (t) => {
    const other = await start();
    t.after(() => other.close());
    const page = await browser.newPage();
    t.after(() => page.close());
    await page.goto(`${other.url}/?transports=websocket`);
    await page.evaluate(helpers);
    await page.evaluate(async () => {
      const socket = await opened({ transports: ['webtransport'] });
      window.gone = next(socket, 'disconnect');
    });
    other.child.kill('SIGTERM');
    const [reason] = await within(5000, 'the end', page.evaluate(() => gone));
    assert.equal(reason, 'transport close');
    assert.deepEqual(await within(10_000, 'its exit', other.child.ended), { code: 0, signal: null });
  });
  /* eslint-enable no-undef */
});
