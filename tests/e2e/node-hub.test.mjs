// The supervisor as the hub of @socket.io/cluster-adapter: what one worker asks of all the others, beyond the broadcasts
// of node-broadcast.test.mjs. A worker that is gone is waited for by nobody.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask, connect } from '../lib/client.mjs';
import { use } from '../lib/workers.mjs';
import { once, until } from '../lib/wait.mjs';

use('node');
const { Cluster, app } = await import('../lib/cluster.mjs');

const OPTIONS = { transports: ['websocket'] };

/** `count` clients, at least one on each of four workers. */
async function clients(t, url, count = 12) {
  const sockets = await Promise.all(Array.from({ length: count }, () => connect(url, OPTIONS)));
  t.after(() => sockets.forEach((socket) => socket.close()));
  const instances = await Promise.all(sockets.map(async (socket) => (socket.instance = (await ask(socket, 'whoami')).instance)));
  assert.deepEqual([...new Set(instances)].sort(), [0, 1, 2, 3]);
  return sockets;
}

const one = (sockets, instance) => sockets.find((socket) => socket.instance === instance);

test('serverSideEmit: each of the other workers answers once, with binary', async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.close());
  const sockets = await clients(t, cluster.url);
  for (let instance = 0; instance < 4; instance++) {
    const answers = await ask(one(sockets, instance), 'everywhere');
    assert.deepEqual(answers.map((answer) => answer.instance).sort(), [0, 1, 2, 3].filter((other) => other !== instance));
    for (const answer of answers) assert.ok(Buffer.from([answer.instance, 255]).equals(answer.blob), JSON.stringify(answer.blob));
  }
});

test('rooms and disconnects of clients on other workers', async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.close());
  const sockets = await clients(t, cluster.url);
  const rooms = () => Promise.all(sockets.map(async (socket) => (await ask(socket, 'rooms')).includes('made by another')));
  one(sockets, 1).emit('all-join', 'made by another');
  await until(5000, 'all are in', async () => (await rooms()).every(Boolean));
  const heard = Promise.all(sockets.map((socket) => once(socket, 'broadcast')));
  one(sockets, 3).emit('room-broadcast', 'made by another', 'hello');
  await heard;
  one(sockets, 2).emit('all-leave', 'made by another');
  await until(5000, 'all are out', async () => !(await rooms()).some(Boolean));

  const left = Promise.all(sockets.slice(1).map((socket) => once(socket, 'disconnect')));
  sockets[0].emit('others-out');
  for (const [reason] of await left) assert.equal(reason, 'io server disconnect');
  assert.equal(await ask(sockets[0], 'count'), 1);
});

for (const [what, replace] of Object.entries({
  'a reload': (cluster) => cluster.ok('reload', 'echo', '--wait'),
  'a restart': (cluster) => cluster.ok('restart', 'echo'),
  'a kill of all but one': async (cluster) => {
    const victims = (await cluster.workers()).slice(1).map(({ pid }) => pid);
    victims.forEach((pid) => process.kill(pid, 'SIGKILL'));
    await until(10_000, 'they are replaced', async () => {
      const workers = await cluster.workers();
      return workers.length === 4 && !workers.some(({ pid }) => victims.includes(pid));
    });
  },
  'scaling up and down': async (cluster) => {
    await cluster.ok('scale', 'echo', '6');
    await until(10_000, 'six workers', async () => (await cluster.workers()).length === 6);
    await cluster.ok('scale', 'echo', '4');
    await until(10_000, 'the last two are gone', () => cluster.pids('node').length === 4);
  },
})) {
  test(`right after ${what}: fetches and acknowledged broadcasts are complete, and wait for nobody who is gone`, async (t) => {
    const cluster = await Cluster.start({ apps: [app({ sundew: { drainTimeout: 500 } })] });
    t.after(() => cluster.close());
    await replace(cluster);
    await until(10_000, 'four workers', async () => (await cluster.workers()).length === 4);
    const sockets = await clients(t, cluster.url);
    sockets.forEach((socket) => socket.on('broadcast-ack', (_, answer) => answer(1)));
    for (let instance = 0; instance < 4; instance++) {
      assert.equal(await ask(one(sockets, instance), 'count'), sockets.length);
      assert.equal(await ask(one(sockets, instance), 'broadcast-ack', {}), sockets.length);
      assert.equal((await ask(one(sockets, instance), 'everywhere')).length, 3);
    }
  });
}
