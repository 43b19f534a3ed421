// What the server's API does across workers, seen by the official client: namespaces made on demand, events that are
// refused, and what workers ask each other.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask, connect } from '../lib/client.mjs';
import { use } from '../lib/workers.mjs';
import { once, sleep, until } from '../lib/wait.mjs';

use('native');
const { Cluster } = await import('../lib/cluster.mjs');

const OPTIONS = { transports: ['websocket'] };
const WORKERS = [0, 1, 2, 3];

/** `count` clients of a namespace, at least one on each of four workers. */
async function clients(t, url, count = 12) {
  const sockets = await Promise.all(Array.from({ length: count }, () => connect(url, OPTIONS)));
  t.after(() => sockets.forEach((socket) => socket.close()));
  await Promise.all(sockets.map(async (socket) => (socket.instance = (await ask(socket, 'whoami')).instance)));
  assert.deepEqual([...new Set(sockets.map(({ instance }) => instance))].sort(), WORKERS);
  return sockets;
}

test('serverSideEmit: each of the other workers answers once, with binary', async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.close());
  const sockets = await clients(t, cluster.url);
  for (const instance of WORKERS) {
    const answers = await ask(sockets.find((socket) => socket.instance === instance), 'everywhere');
    assert.deepEqual(answers.map(([other]) => other).sort(), WORKERS.filter((other) => other !== instance));
    for (const [other, blob] of answers) assert.equal(Buffer.from(blob).readUInt16BE(0), other);
  }
});

test('namespaces are made on demand, reach across workers, and go', async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.close());
  const main = await clients(t, cluster.url);
  const [a, b] = await Promise.all([clients(t, `${cluster.url}/made-a`), clients(t, `${cluster.url}/made-b`)]);
  for (const socket of a) assert.equal(await ask(socket, 'name'), 'a');
  await assert.rejects(connect(`${cluster.url}/unmade`, OPTIONS), /Invalid namespace/);

  const heard = (sockets) => Promise.all(sockets.map((socket) => once(socket, 'broadcast')));
  const all = heard([...a, ...b]);
  main[0].emit('all-made', 'to all');
  assert.deepEqual([...new Set((await all).flat())], ['to all']);
  const ofA = heard(a);
  const others = [];
  for (const socket of [...b, ...main]) socket.on('broadcast', (payload) => others.push(payload));
  a[0].emit('broadcast', 'to a');
  await ofA;
  await sleep(300);
  assert.deepEqual(others, []);

  for (const socket of [...a, ...b]) socket.close();
  await until(10_000, 'no worker has them any more', async () => {
    const left = await Promise.all(main.map((socket) => ask(socket, 'namespaces')));
    return left.flat().every((name) => !name.startsWith('/made-'));
  });
});

test('an event that is refused, or whose handler fails, is answered', async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.close());
  const socket = await connect(`${cluster.url}/made-x`, OPTIONS);
  t.after(() => socket.close());
  assert.deepEqual(await ask(socket, 'forbidden'), { error: { message: 'forbidden', data: { code: 7 } } });
  socket.emit('forbidden', 'nobody asked');
  assert.deepEqual(await ask(socket, 'echo-ack', 'still here'), 'still here');
  const main = await connect(cluster.url, OPTIONS);
  t.after(() => main.close());
  assert.deepEqual(await ask(main, 'leave', { no: 'text' }), { error: { message: 'Invalid arguments' } });
});
