// Any other program with a port: a python-socketio server on four instances, each with a PORT of its own, behind one
// address. Sessions find their worker on any transport, and a reload loses no request.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { MODES, SharedAgent, ask, connect, exchange, transport, upgraded } from '../lib/client.mjs';
import { Cluster, app, freePort, python, root } from '../lib/cluster.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { until } from '../lib/wait.mjs';

const installed = fs.existsSync(path.join(python, 'socketio'));

describe('python-socketio, four instances', { skip: !installed && 'no python-socketio: cargo xtask test e2e installs it' }, () => {
  let cluster;
  let port;
  before(async () => {
    port = await freePort();
    const settings = {
      script: path.join(root, 'tests/apps/echo.py'),
      interpreter: 'python3',
      env: { PORT: port, PYTHONPATH: python, PYTHONUNBUFFERED: '1' },
      port,
      sundew: { kind: 'port' },
    };
    cluster = await Cluster.start({ apps: [app(settings)] });
  });
  after(() => cluster?.close());

  test('each instance has a port of its own', async () => {
    const ports = new Map();
    await until(10_000, 'answers of all four', async () => {
      const answer = await (await fetch(cluster.url, { headers: { connection: 'close' } })).json();
      ports.set(answer.instance, answer.port);
      assert.match(answer.forwarded, /127\.0\.0\.1$/);
      return ports.size === 4;
    });
    assert.equal(new Set(ports.values()).size, 4);
    assert.ok(![...ports.values()].includes(port));
  });

  for (const [mode, options] of Object.entries(MODES)) {
    test(`clients: ${mode}`, async (t) => {
      const agent = new SharedAgent();
      const crowd = new Crowd(cluster.url, { ...options, agent });
      t.after(() => {
        crowd.close();
        agent.destroy();
      });
      await crowd.add(60, { upgrade: mode === 'default' });
      const counts = await crowd.census();
      assert.deepEqual(crowd.failures, {});
      assert.equal(Object.keys(counts).length, 4, `all workers have some: ${JSON.stringify(counts)}`);

      const socket = await connect(cluster.url, options);
      t.after(() => socket.close());
      if (mode === 'default') await upgraded(socket);
      assert.equal((await ask(socket, 'whoami')).transport, transport(socket));
      const blob = Buffer.alloc(200_000, 7);
      assert.ok(blob.equals((await exchange(socket, 'echo', 'echo', blob))[0]));
    });
  }

  test('a reload', async (t) => {
    const before = (await cluster.workers()).map(({ pid }) => pid);
    const failed = [];
    let stopped = false;
    const load = (async () => {
      for (let turn = 0; !stopped; turn++) {
        try {
          const socket = await connect(cluster.url, Object.values(MODES)[turn % 3]);
          assert.equal(await ask(socket, 'echo-ack', turn), turn);
          socket.close();
        } catch (error) {
          failed.push(error.message);
        }
      }
    })();
    t.after(() => (stopped = true));
    await cluster.ok('reload', 'echo');
    stopped = true;
    await load;
    assert.deepEqual(failed, []);
    assert.ok((await cluster.workers()).every(({ pid }) => !before.includes(pid)));
  });

  test('kill -9 of one: its sessions come back', async (t) => {
    const sockets = await Promise.all(
      Array.from({ length: 16 }, (_, index) => connect(cluster.url, { ...Object.values(MODES)[index % 3], reconnection: true, reconnectionDelay: 200 })),
    );
    t.after(() => sockets.forEach((socket) => socket.close()));
    const [victim] = await cluster.workers();
    process.kill(victim.pid, 'SIGKILL');
    await until(15_000, 'four again, and everyone is served', async () => {
      if ((await cluster.workers()).length !== 4) return false;
      return (await Promise.all(sockets.map((socket) => socket.connected && ask(socket, 'whoami')))).every((who) => who && who.pid !== victim.pid);
    });
  });
});
