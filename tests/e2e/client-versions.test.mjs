// The official clients of Socket.IO 2, 3 and 4 over each transport they have, against one worker alone and (to check the
// test) Node's own server; and JSONP, in a browser, with those of Socket.IO 2 and 3.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { io as io4 } from 'socket.io-client';
import io2 from 'socket.io-client-2';
import { io as io3 } from 'socket.io-client-3';
import { Sandbox, freePort, worker } from '../lib/cluster.mjs';
import { CHROMIUM, jsonpPage } from '../lib/jsonp.mjs';
import { startReference } from '../lib/reference.mjs';
import { once, until, within } from '../lib/wait.mjs';

const CLIENTS = { 'Socket.IO 2': io2, 'Socket.IO 3': io3, 'Socket.IO 4': io4 };
const MODES = {
  polling: { transports: ['polling'] },
  'polling, binary as text': { transports: ['polling'], forceBase64: true },
  websocket: { transports: ['websocket'] },
  default: {},
};

async function startAlone() {
  const sandbox = new Sandbox();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const child = sandbox.spawn(...worker.alone, { env: { PORT: String(port), ECHO_EIO3: '1' } });
  await until(10_000, 'echo listens', async () => {
    if (child.exitCode !== null) throw new Error(child.output);
    return (await fetch(url)).ok;
  });
  return { url, close: () => sandbox.close() };
}

const TARGETS = { "Node's server": () => startReference({ allowEIO3: true }), 'one worker alone': startAlone };

function connect(io, url, options) {
  const socket = io(url, { forceNew: true, reconnection: false, ...options });
  const connected = new Promise((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('connect_error', reject);
    socket.once('error', (error) => reject(new Error(`refused: ${JSON.stringify(error)}`)));
  });
  return within(10_000, `connect to ${url}`, connected).then(
    () => socket,
    (error) => (socket.close(), Promise.reject(error)),
  );
}

const ask = (socket, event, ...args) =>
  within(10_000, `an answer to ${event}`, new Promise((resolve) => socket.emit(event, ...args, resolve)));
const transport = (socket) => socket.io.engine.transport.name;

for (const [target, start] of Object.entries(TARGETS)) {
  describe(target, () => {
    let server;
    before(async () => (server = await start()));
    after(() => server?.close());

    for (const [name, io] of Object.entries(CLIENTS)) {
      for (const [mode, options] of Object.entries(MODES)) {
        for (const namespace of ['/', '/ws']) {
          test(`${name}, ${mode}, namespace ${namespace}`, async (t) => {
            const socket = await connect(io, server.url + namespace, options);
            t.after(() => socket.close());
            if (mode === 'default') await until(10_000, 'the upgrade', () => transport(socket) === 'websocket', 5);
            const expected = mode.startsWith('polling') ? 'polling' : 'websocket';
            assert.equal((await ask(socket, 'whoami')).transport, expected);

            const values = ['text', 7, null, true, { nested: [1, { deep: 'ü→🌱' }] }, ['a', []]];
            const echoed = once(socket, 'echo');
            socket.emit('echo', ...values);
            assert.deepEqual(await echoed, values);
            assert.deepEqual(await ask(socket, 'echo-ack', { question: 1 }), { question: 1 });

            socket.on('ask-me', (question, answer) => answer({ answered: question }));
            assert.deepEqual(await ask(socket, 'ask-me', 'how'), { answered: 'how' });

            const blob = randomBytes(100_000);
            const mixed = await ask(socket, 'echo-ack', { name: 'file', parts: [blob, Buffer.alloc(0)] });
            assert.equal(mixed.name, 'file');
            assert.ok(blob.equals(Buffer.from(mixed.parts[0])), 'binary both ways');
            assert.equal(mixed.parts[1].length ?? mixed.parts[1].byteLength, 0);

            const seen = [];
            socket.on('echo', (number) => seen.push(number));
            for (let number = 0; number < 200; number++) socket.emit('echo', number);
            await until(10_000, 'all replies', () => seen.length >= 200);
            assert.deepEqual(seen, Array.from({ length: 200 }, (_, number) => number));
            assert.equal(transport(socket), expected, 'still on its transport');
          });
        }

        test(`${name}, ${mode}: an unknown namespace`, async () => {
          const socket = io(`${server.url}/nowhere`, { forceNew: true, reconnection: false, ...options });
          // Socket.IO 2 calls it an error, and so does Node's server for it.
          const error = await within(10_000, 'the refusal', new Promise((resolve) => {
            socket.once('connect_error', resolve);
            socket.once('error', resolve);
          }));
          assert.equal(error.message, 'Invalid namespace');
          socket.close();
        });
      }

      test(`${name}: leaving is told to the server`, async (t) => {
        const stays = await connect(io, server.url, { transports: ['polling'] });
        t.after(() => stays.close());
        const before = 1;
        await until(5000, 'those of earlier tests have left', async () => (await ask(stays, 'count')) === before);
        const leaves = await connect(io, server.url, {});
        assert.equal(await ask(stays, 'count'), before + 1);
        leaves.close();
        await until(5000, 'the server heard of it', async () => (await ask(stays, 'count')) === before);
      });
    }

    test('clients of all versions hear the same broadcast', async () => {
      const sockets = await Promise.all(
        Object.values(CLIENTS).flatMap((io) => Object.values(MODES).map((options) => connect(io, `${server.url}/ws`, options))),
      );
      const heard = sockets.map((socket) => once(socket, 'broadcast'));
      sockets[0].emit('broadcast', Buffer.from([1, 2, 3]));
      for (const [bytes] of await Promise.all(heard)) assert.deepEqual([...new Uint8Array(bytes)], [1, 2, 3]);
      sockets.forEach((socket) => socket.close());
    });

    for (const version of [2, 3]) test(`JSONP, in a browser, Socket.IO ${version}`, { skip: !CHROMIUM && 'no chromium' }, async (t) => {
      const { page, fetched } = await jsonpPage(t, version);
      const result = await page.evaluate(async (url) => {
        // eslint-disable-next-line no-undef
        const socket = io(url, { transports: ['polling'], forceJSONP: true, reconnection: false });
        const ask = (...args) => new Promise((resolve) => socket.emit(...args, resolve));
        const id = await new Promise((resolve, reject) => {
          socket.on('connect', () => resolve(socket.id));
          socket.on('connect_error', (error) => reject(new Error(String(error))));
        });
        const text = await ask('echo-ack', { line: 'one\ntwo\\n\u2028"</script>ü→🌱' });
        const bytes = new Uint8Array(await ask('echo-ack', new Uint8Array([0, 1, 254, 255]).buffer));
        socket.close();
        return { id, text, bytes: [...bytes] };
      }, server.url);
      assert.match(result.id, /^[\w-]{20}$/);
      assert.deepEqual(result.text, { line: 'one\ntwo\\n\u2028"</script>ü→🌱' });
      assert.deepEqual(result.bytes, [0, 1, 254, 255]);
      assert.ok(fetched.some(([kind, url]) => kind === 'script' && /[?&]j=0/.test(url)), 'it came as scripts');
    });
  });
}

describe('a server as it is by default', () => {
  test('refuses clients of Socket.IO 2', async () => {
    const sandbox = new Sandbox();
    const port = await freePort();
    sandbox.spawn(...worker.alone, { env: { PORT: String(port) } });
    await until(10_000, 'echo listens', async () => (await fetch(`http://127.0.0.1:${port}`)).ok);
    for (const options of [MODES.polling, MODES.websocket]) {
      await assert.rejects(connect(io2, `http://127.0.0.1:${port}`, options), /xhr poll error|websocket error/);
    }
    await sandbox.close();
  });
});
