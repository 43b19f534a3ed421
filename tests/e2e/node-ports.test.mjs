// examples/node-ports as it is: the instances share one port, and each has a Socket.IO port of its own behind the real
// nginx, which keeps a client at one of them by its address (ip_hash).

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { MODES, connect, exchange, upgraded } from '../lib/client.mjs';
import { use } from '../lib/workers.mjs';
import { until } from '../lib/wait.mjs';

use('node');
const { Cluster, freePort, root, sundew } = await import('../lib/cluster.mjs');

const NGINX = ['/usr/sbin/nginx', '/usr/local/sbin/nginx', '/usr/bin/nginx'].find(fs.existsSync);
const example = path.join(root, 'examples/node-ports');

/** Four free ports in a row. */
async function fourPorts() {
  for (;;) {
    const first = await freePort();
    const free = await Promise.all([1, 2, 3].map((offset) => new Promise((resolve) => {
      const server = http.createServer().once('error', () => resolve(false));
      server.listen(first + offset, () => server.close(() => resolve(true)));
    })));
    if (free.every(Boolean)) return first;
  }
}

test('four workers with a port each, behind nginx with ip_hash', { skip: !NGINX && 'no nginx' }, async (t) => {
  const cluster = new Cluster();
  const [port, front, first] = [await freePort(), await freePort(), await fourPorts()];
  const config = fs.readFileSync(path.join(example, 'nginx.conf'), 'utf8')
    .replace(/127\.0\.0\.1:313(\d)/g, (_, digit) => `127.0.0.1:${first + Number(digit) - 1}`)
    .replace('127.0.0.1:8080', `127.0.0.1:${port}`)
    .replace('listen 8000', `listen ${front}`)
    .replaceAll('/tmp/node-ports', path.join(cluster.dir, 'nginx'));
  const nginx = cluster.spawn(NGINX, ['-p', cluster.dir, '-c', cluster.file('nginx.conf', config)]);
  t.after(() => cluster.close());
  // nginx overwrites its environment, by which the sandbox would find it.
  t.after(async () => {
    nginx.kill();
    await nginx.ended;
  });
  const child = cluster.spawn(sundew, ['run', path.join(example, 'pm2.json')], { env: { PORT: String(port), SOCKET_PORT: String(first) } });
  await until(30_000, 'four workers and the page', async () => {
    if (child.exitCode !== null || nginx.exitCode !== null) throw new Error(child.output + nginx.output);
    return (await cluster.workers()).length === 4 && (await fetch(`http://127.0.0.1:${front}/page`)).ok;
  });

  // Straight to each port: its own worker answers, and no other.
  for (let instance = 0; instance < 4; instance++) {
    for (const options of Object.values(MODES)) {
      const socket = await connect(`http://127.0.0.1:${first + instance}`, options);
      assert.equal((await exchange(socket, 'b:message', 's:message'))[0].instance, instance);
      socket.close();
    }
  }

  // Through nginx: clients of many networks, every transport, each at one worker all along.
  const seen = new Map();
  for (let network = 1; network <= 24; network++) {
    const agent = new http.Agent({ keepAlive: true, localAddress: `127.0.${network}.1` });
    t.after(() => agent.destroy());
    for (const [mode, options] of Object.entries(MODES)) {
      const socket = await connect(`http://127.0.0.1:${front}/ws`, { ...options, agent });
      if (mode === 'default') await upgraded(socket);
      for (let round = 0; round < 3; round++) {
        const [{ instance, pid }] = await exchange(socket, 'b:message', 's:message');
        seen.set(instance, pid);
      }
      socket.close();
    }
  }
  assert.equal(seen.size, 4, `all four were met: ${JSON.stringify([...seen])}`);

  // And the port they share.
  const shared = new Set();
  for (let round = 0; round < 12; round++) {
    const socket = await connect(`http://127.0.0.1:${port}`, Object.values(MODES)[round % 3]);
    shared.add((await exchange(socket, 'b:message', 's:message'))[0].instance);
    socket.close();
  }
  assert.equal(shared.size, 4);

  // A worker that is replaced has its port again.
  const [, victim] = await cluster.workers();
  process.kill(victim.pid, 'SIGKILL');
  await until(20_000, 'its port again', async () => {
    const socket = await connect(`http://127.0.0.1:${first + 1}`, MODES['websocket only']);
    const [{ instance, pid }] = await exchange(socket, 'b:message', 's:message');
    socket.close();
    return instance === 1 && pid !== victim.pid;
  }, 250);
});
