// The official client, every way it can travel, against one worker alone, four workers behind one port, and (to check
// the test) Node's own server: events, acknowledgements both ways, binary, auth, refusal, the client's own address.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { MODES, ask, connect, exchange, open, transport, upgraded } from '../lib/client.mjs';
import { Cluster, Sandbox, freePort, kind, worker } from '../lib/cluster.mjs';
import { startReference } from '../lib/reference.mjs';
import { once, until } from '../lib/wait.mjs';

/** The echo example without a supervisor. */
async function startAlone() {
  const sandbox = new Sandbox();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const child = sandbox.spawn(...worker.alone, { env: { PORT: String(port) } });
  await until(10_000, 'echo listens', async () => {
    if (child.exitCode !== null) throw new Error(child.output);
    return (await fetch(url)).ok;
  });
  return { port, url, close: () => sandbox.close() };
}

async function startFour() {
  const cluster = await Cluster.start();
  return { port: cluster.port, url: cluster.url, close: () => cluster.close() };
}

const TARGETS = {
  "Node's server": startReference,
  'one worker alone': startAlone,
  'four workers': startFour,
};
// The same program, once is enough.
if (kind === 'node') delete TARGETS["Node's server"];

for (const [target, start] of Object.entries(TARGETS)) {
  describe(`${target}, ${kind}`, () => {
    let server;
    before(async () => (server = await start()));
    after(() => server?.close());

    for (const [mode, options] of Object.entries(MODES)) {
      for (const namespace of ['/', '/ws']) {
        test(`${mode}, namespace ${namespace}`, async (t) => {
          const socket = await connect(server.url + namespace, options);
          t.after(() => socket.close());
          if (mode === 'default') await upgraded(socket);
          assert.equal(transport(socket), mode === 'polling only' ? 'polling' : 'websocket');
          assert.equal((await ask(socket, 'whoami')).transport, transport(socket), 'the server sees the same transport');

          // Events and what they may carry.
          const values = ['text', 7, null, true, { nested: [1, { deep: 'ü→🌱' }] }, ['a', []]];
          assert.deepEqual(await exchange(socket, 'echo', 'echo', ...values), values);

          // Acknowledgements, by the server and by the client.
          assert.deepEqual(await ask(socket, 'echo-ack', { question: 1 }), { question: 1 });
          let asked;
          socket.onAny((event, ...args) => {
            const answer = args.at(-1);
            if (typeof answer !== 'function') return;
            asked = args.slice(0, -1);
            answer({ answered: asked });
          });
          const round = await ask(socket, 'ask-me', 'how are you');
          assert.ok(asked, 'the server asked the client');
          assert.deepEqual(round, { answered: asked }, "the client's answer came back");

          // 200 KB of binary both ways, as an event and through an acknowledgement, alone and among text.
          const blob = randomBytes(200_000);
          const [echoed] = await exchange(socket, 'echo', 'echo', blob);
          assert.ok(blob.equals(echoed), 'binary event');
          const mixed = await ask(socket, 'echo-ack', { name: 'file', parts: [blob, randomBytes(0)] });
          assert.equal(mixed.name, 'file');
          assert.ok(blob.equals(mixed.parts[0]), 'binary acknowledgement');
          assert.equal(mixed.parts[1].length, 0);

          // In order, whatever the transport.
          const count = 200;
          const seen = [];
          socket.on('echo', (number) => seen.push(number));
          for (let number = 0; number < count; number++) socket.emit('echo', number);
          await until(10_000, 'all replies', () => seen.length >= count);
          assert.deepEqual(seen, Array.from({ length: count }, (_, number) => number));
          assert.equal(transport(socket), mode === 'polling only' ? 'polling' : 'websocket', 'still on its transport');
        });
      }

      test(`${mode}: auth`, async (t) => {
        const socket = await connect(`${server.url}/auth`, { ...options, auth: { token: 'secret' } });
        t.after(() => socket.close());
        assert.deepEqual(await ask(socket, 'echo-ack', 1), 1);
      });

      test(`${mode}: refused by middleware`, async (t) => {
        const refused = open(`${server.url}/auth`, { ...options, auth: { token: 'wrong' } });
        t.after(() => refused.close());
        const [error] = await once(refused, 'connect_error');
        assert.equal(error.message, 'not authorized');
        assert.equal(typeof error.data?.content, 'string', `data comes with it: ${JSON.stringify(error.data)}`);
        assert.equal(refused.connected, false);

        // The same connection still serves other namespaces.
        const other = refused.io.socket('/');
        other.connect();
        if (!other.connected) await once(other, 'connect');
        assert.deepEqual(await ask(other, 'echo-ack', 2), 2);
      });

      test(`${mode}: unknown namespace`, async (t) => {
        const socket = open(`${server.url}/nowhere`, options);
        t.after(() => socket.close());
        const [error] = await once(socket, 'connect_error');
        assert.equal(error.message, 'Invalid namespace');
      });

      test(`${mode}: the server sees the client's own address`, async (t) => {
        // Any address of 127.0.0.0/8 is ours: one that is nobody's default proves that it is not made up.
        const agent = new http.Agent({ keepAlive: true, localAddress: '127.0.0.77' });
        t.after(() => agent.destroy());
        const headers = { 'X-Forwarded-For': '6.6.6.6', 'x-sundew-peer': '6.6.6.6:6' };
        const socket = await connect(server.url, { ...options, agent, extraHeaders: headers });
        t.after(() => socket.close());
        assert.match((await ask(socket, 'whoami')).address, /127\.0\.0\.77(:\d+)?$/);
        if (mode === 'default') {
          await upgraded(socket);
          assert.match((await ask(socket, 'whoami')).address, /127\.0\.0\.77(:\d+)?$/, 'after the upgrade');
        }
      });
    }

    test("ordinary requests see the client's own address", async () => {
      const body = await new Promise((resolve, reject) => {
        const options = { port: server.port, path: '/address', localAddress: '127.0.0.78', headers: { 'x-sundew-peer': '6.6.6.6:6' } };
        http.get({ host: '127.0.0.1', ...options }, async (response) => {
          let text = '';
          for await (const chunk of response) text += chunk;
          resolve(text);
        }).on('error', reject);
      });
      assert.match(body, /127\.0\.0\.78/);
    });
  });
}
