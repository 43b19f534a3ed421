// Sessions of Node workers are learned from the answer that opens them, whatever it looks like: ids of any length, made
// late; old clients; JSONP. And programs written for @socket.io/sticky, which never listen, are served as they are.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import oldClient from 'socket.io-client-2';
import { MODES, SharedAgent, ask, connect, upgraded } from '../lib/client.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { use } from '../lib/workers.mjs';
import { once, within } from '../lib/wait.mjs';
import { WEBSOCKET, Wire } from '../lib/wire.mjs';

use('node');
const { Cluster, app, freePort } = await import('../lib/cluster.mjs');

/** Sixty clients of each kind over shared connections, and none fails. */
async function visit(t, url) {
  for (const [mode, options] of Object.entries(MODES)) {
    const agent = new SharedAgent();
    const crowd = new Crowd(url, { ...options, agent });
    t.after(() => {
      crowd.close();
      agent.destroy();
    });
    await crowd.add(60, { upgrade: mode === 'default' });
    await crowd.census();
    assert.deepEqual(crowd.failures, {}, mode);
    const counts = await crowd.census();
    assert.equal(Object.keys(counts).length, 4, `${mode}: all workers have some: ${JSON.stringify(counts)}`);
  }
}

for (const length of [1, 7, 20, 64, 200]) {
  // One character is one session at a time.
  const clients = length === 1 ? 1 : 60;
  test(`session ids of ${length} characters, made asynchronously`, async (t) => {
    const cluster = await Cluster.start({ apps: [app({ env: { ECHO_ID: String(length) } })] });
    t.after(() => cluster.close());
    if (clients > 1) return visit(t, cluster.url);
    for (const options of Object.values(MODES)) {
      const socket = await connect(cluster.url, options);
      assert.equal(socket.io.engine.id.length, length);
      for (let round = 0; round < 5; round++) assert.equal(await ask(socket, 'echo-ack', round), round);
      socket.close();
    }
  });
}

describe('old ways', () => {
  let cluster;
  before(async () => (cluster = await Cluster.start({ apps: [app({ env: { ECHO_EIO3: '1' } })] })));
  after(() => cluster?.close());

  for (const [mode, options] of Object.entries(MODES)) {
    test(`the client of Socket.IO 2: ${mode}`, async (t) => {
      const sockets = [];
      t.after(() => sockets.forEach((socket) => socket.close()));
      const instances = new Set();
      for (let round = 0; round < 16; round++) {
        const socket = oldClient(cluster.url, { ...options, forceNew: true, reconnection: false });
        sockets.push(socket);
        await once(socket, 'connect');
        if (mode === 'default') await upgraded(socket);
        for (let number = 0; number < 5; number++) {
          const reply = once(socket, 'echo');
          socket.emit('echo', number, Buffer.alloc(1000, number));
          const [echoed, blob] = await reply;
          assert.equal(echoed, number);
          assert.ok(Buffer.alloc(1000, number).equals(Buffer.from(blob)));
        }
        instances.add(await within(5000, 'an answer', new Promise((resolve) => socket.emit('whoami', ({ instance }) => resolve(instance)))));
      }
      assert.equal(instances.size, 4);
    });
  }

  test('JSONP', async (t) => {
    for (let round = 0; round < 8; round++) {
      const wire = await Wire.open(cluster.port);
      t.after(() => wire.destroy());
      const path = (sid, j) => `/socket.io/?EIO=4&transport=polling&j=${j}${sid ? `&sid=${sid}` : ''}`;
      const body = (answer) => {
        const [, text] = /^___eio\[\d+\]\((".*")\);$/s.exec(answer.body) ?? assert.fail(`${answer.status} ${answer.body}`);
        return JSON.parse(text);
      };
      const { sid } = JSON.parse(body(await wire.request('GET', path('', 0)).response()).slice(1));
      const post = async (packet) => {
        const form = { 'Content-Type': 'application/x-www-form-urlencoded' };
        assert.equal((await wire.request('POST', path(sid, 1), form, `d=${encodeURIComponent(packet)}`).response()).status, 200);
      };
      await post('40');
      assert.match(body(await wire.request('GET', path(sid, 2)).response()), /^40\{/);
      await post('42["echo","by script"]');
      assert.equal(body(await wire.request('GET', path(sid, 3)).response()), '42["echo","by script"]');
    }
  });

  test('a websocket upgrade on the connection that opened the session', async (t) => {
    const wire = await Wire.open(cluster.port);
    t.after(() => wire.destroy());
    const { sid } = JSON.parse((await wire.request('GET', '/socket.io/?EIO=4&transport=polling').response()).body.slice(1));
    const answer = await wire.request('GET', `/socket.io/?EIO=4&transport=websocket&sid=${sid}`, WEBSOCKET).response();
    assert.equal(answer.status, 101);
    wire.text('2probe');
    assert.equal(await wire.frame(), '3probe');
    wire.text('5');
    wire.text('40');
    assert.match(await wire.frame(), /^40\{/);
  });
});

describe('programs for @socket.io/sticky', () => {
  const WHERE = {
    'sundew.port': (port) => ({ env: { PORT: port }, sundew: { port } }),
    PM2_PORT: (port) => ({ env: { PORT: port, PM2_PORT: port } }),
  };
  for (const [version, [name, where]] of Object.entries(WHERE).map((each, index) => [index + 1, each])) {
    test(`setupWorker of version ${version}, without listen, on ${name}`, async (t) => {
      const port = await freePort();
      const script = 'sticky.cjs';
      const source = `
        const { Server } = require('socket.io');
        const { createAdapter } = require('@socket.io/cluster-adapter');
        const { setupWorker } = require('sticky-${version}');
        const { answer, serve } = require(${JSON.stringify(new URL('../apps/events.cjs', import.meta.url).pathname)});
        const server = require('http').createServer(answer);
        const io = new Server(server);
        io.adapter(createAdapter());
        setupWorker(io);
        serve(io);`;
      const cluster = await Cluster.start({ apps: [app({ script, ...where(port) })], files: { [script]: source } });
      t.after(() => cluster.close());
      await visit(t, cluster.url);

      // The client's own address, on every transport.
      for (const options of Object.values(MODES)) {
        const agent = new SharedAgent({ localAddress: '127.0.0.79' });
        const socket = await connect(cluster.url, { ...options, agent });
        t.after(() => (socket.close(), agent.destroy()));
        assert.match((await ask(socket, 'whoami')).handshake, /127\.0\.0\.79$/);
      }
      // And everybody hears everybody.
      const sockets = await Promise.all(Array.from({ length: 8 }, () => connect(cluster.url, { transports: ['websocket'] })));
      t.after(() => sockets.forEach((socket) => socket.close()));
      const heard = Promise.all(sockets.map((socket) => once(socket, 'broadcast')));
      const blob = Buffer.from([0, 1, 2, 255]);
      sockets[0].emit('broadcast', blob);
      for (const [payload] of await heard) assert.ok(blob.equals(payload));
    });
  }
});
