// Workers on every version of Node.js that is in use: each transport, binary, addresses, broadcasts and fetches over the
// hub, TypeScript and ES modules where they are known, the cluster module, a kill and a reload under load.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { MODES, SharedAgent, ask, connect, exchange, open, transport, upgraded } from '../lib/client.mjs';
import { Crowd, cause } from '../lib/crowd.mjs';
import { use } from '../lib/workers.mjs';
import { once, until, within } from '../lib/wait.mjs';

use('node');
const { Cluster, app, nodeEcho, root } = await import('../lib/cluster.mjs');

const PACKAGES = path.join(root, 'tests/nodes/node_modules');
const VERSIONS = Object.keys(JSON.parse(fs.readFileSync(path.join(root, 'tests/nodes/package.json'), 'utf8')).optionalDependencies)
  .filter((name) => name.endsWith(`-${process.arch}`))
  .map((name) => ({ major: Number(name.split('-')[1]), program: path.join(PACKAGES, name, 'bin/node') }))
  .sort((a, b) => a.major - b.major);
const WORKERS = 3;

for (const { major, program } of VERSIONS) {
  describe(`Node.js ${major}`, { skip: !fs.existsSync(program) && 'not installed: cargo xtask test e2e installs it' }, () => {
    let cluster;
    before(async () => {
      cluster = await Cluster.start({ apps: [app({ interpreter: program, instances: WORKERS, sundew: { drainTimeout: 3000 } })] });
    });
    after(() => cluster?.close());

    for (const [mode, options] of Object.entries(MODES)) {
      test(`${mode}: events, acknowledgements, 200 KB of binary, the address`, async (t) => {
        const agent = new SharedAgent({ localAddress: '127.0.0.77' });
        const crowd = new Crowd(cluster.url, { ...options, agent });
        t.after(() => {
          crowd.close();
          agent.destroy();
        });
        await crowd.add(45, { upgrade: mode === 'default' });
        const counts = await crowd.census();
        assert.deepEqual(crowd.failures, {});
        assert.equal(Object.keys(counts).length, WORKERS, JSON.stringify(counts));

        const socket = await connect(cluster.url, { ...options, agent });
        t.after(() => socket.close());
        if (mode === 'default') await upgraded(socket);
        const who = await ask(socket, 'whoami');
        assert.equal(who.transport, transport(socket));
        assert.match(who.address, /127\.0\.0\.77$/);
        assert.match(who.handshake, /127\.0\.0\.77$/);
        const blob = Buffer.alloc(200_000, major);
        assert.ok(blob.equals((await exchange(socket, 'echo', 'echo', blob))[0]), 'an event');
        assert.ok(blob.equals((await ask(socket, 'echo-ack', { file: blob })).file), 'an acknowledgement');
      });
    }

    test('the cluster adapter: text, binary, rooms, fetches and acknowledged broadcasts', async (t) => {
      const crowd = new Crowd(cluster.url);
      t.after(() => crowd.close());
      await crowd.add(15, { upgrade: false });
      assert.deepEqual(crowd.failures, {});
      const sockets = crowd.members.map(({ socket }) => socket);
      for (const payload of ['text', Buffer.from([0, 128, 255])]) {
        const heard = Promise.all(sockets.map((socket) => once(socket, 'broadcast')));
        sockets[0].emit('broadcast', payload);
        for (const [got] of await heard) assert.deepEqual(got, payload);
      }
      const inside = sockets.slice(0, 7);
      await Promise.all(inside.map((socket) => ask(socket, 'join', 'room')));
      const heard = Promise.all(inside.map((socket) => once(socket, 'broadcast')));
      sockets[14].emit('room-broadcast', 'room', 'inside');
      await heard;
      sockets.forEach((socket) => socket.on('broadcast-ack', (_, answer) => answer(1)));
      assert.equal(await ask(sockets[3], 'broadcast-ack', {}), 15);
      // Sessions of earlier tests may be on their way out.
      await until(5000, 'all 15', async () => (await ask(sockets[8], 'count')) === 15);
    });

    test('a kill and a reload under load', async (t) => {
      const load = { sessions: 0, failures: [], stopped: false };
      let killed = false;
      const lane = async (offset) => {
        for (let turn = offset; !load.stopped; turn++) {
          const socket = open(cluster.url, Object.values(MODES)[turn % 3]);
          try {
            await within(5000, 'connect', new Promise((resolve, reject) => {
              socket.once('connect', resolve);
              socket.once('connect_error', reject);
              socket.once('disconnect', (reason) => reject(new Error(reason)));
            }));
            for (let round = 0; round < 3; round++) assert.equal(await socket.timeout(10_000).emitWithAck('echo-ack', round), round);
            load.sessions++;
          } catch (error) {
            if (!killed) load.failures.push(cause(error));
          } finally {
            socket.close();
          }
        }
      };
      const lanes = [0, 1, 2].map(lane);
      t.after(() => (load.stopped = true));
      await until(10_000, 'load', () => load.sessions > 10);
      const before = (await cluster.workers()).map(({ pid }) => pid);
      await cluster.ok('reload', 'echo');
      const renewed = await cluster.workers();
      assert.ok(renewed.length === WORKERS && renewed.every(({ pid }) => !before.includes(pid)));
      assert.deepEqual(load.failures, [], 'a reload fails nobody');

      killed = true;
      process.kill(renewed[0].pid, 'SIGKILL');
      await until(10_000, 'it is back', async () => {
        const workers = await cluster.workers();
        return workers.length === WORKERS && workers[0].pid !== renewed[0].pid;
      });
      const sessions = load.sessions;
      await until(10_000, 'the load goes on', () => load.sessions > sessions + 10);
      load.stopped = true;
      await Promise.all(lanes);
      for (const worker of await cluster.workers()) assert.equal(fs.readlinkSync(`/proc/${worker.pid}/exe`), fs.realpathSync(program));
    });

    // Types are stripped without a flag from 22.18 on.
    test('TypeScript', { skip: major < 22 && 'this version does not know it' }, async (t) => {
      const source = `
        import { createServer, type ServerResponse } from 'node:http';
        import cluster from 'node:cluster';
        const handler = (_: unknown, response: ServerResponse): void => void response.end(String(cluster.isWorker));
        createServer(handler).listen(Number(process.env.PORT));`;
      const typed = await Cluster.start({ apps: [app({ interpreter: program, instances: 1, script: 'app.mts' })], files: { 'app.mts': source } });
      t.after(() => typed.close());
      assert.equal(await (await fetch(typed.url)).text(), 'true');
    });

    test('ES modules', async (t) => {
      const source = `await import(${JSON.stringify(nodeEcho)});`;
      const modules = await Cluster.start({ apps: [app({ interpreter: program, instances: 1, script: 'app.mjs' })], files: { 'app.mjs': source } });
      t.after(() => modules.close());
      const socket = await connect(modules.url);
      t.after(() => socket.close());
      assert.equal(await ask(socket, 'echo-ack', 1), 1);
    });
  });
}
