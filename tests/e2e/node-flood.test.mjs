// A worker that sends messages or prints as fast as it can, and one that does not read: the supervisor's memory stays
// within its bound, and everybody else is served.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask, connect } from '../lib/client.mjs';
import { cpuTicks, residentKiB } from '../lib/proc.mjs';
import { use } from '../lib/workers.mjs';
import { sleep, until, within } from '../lib/wait.mjs';

use('node');
const { Cluster, app, nodeEcho } = await import('../lib/cluster.mjs');

const MIB = 1024;
const FLOOD_MS = 5000;

/** An echo that does `code` over and over on the worker of slot 0. */
const flooding = (code) => `
  require(${JSON.stringify(nodeEcho)});
  if (process.env.NODE_APP_INSTANCE === '0') {
    const flood = () => { ${code} setImmediate(flood); };
    setTimeout(flood, 1000);
  }`;

/** The largest resident size of the supervisor while the flood goes on, in KiB; others are asked meanwhile. */
async function watch(t, cluster) {
  const supervisor = cluster.supervisor();
  const before = residentKiB(supervisor);
  const [flooder] = await cluster.workers('echo');
  const ticks = cpuTicks(flooder.pid);
  let most = before;
  let answered = 0;
  const end = Date.now() + FLOOD_MS + 1000;
  while (Date.now() < end) {
    const response = await within(10_000, 'an answer', fetch(`http://127.0.0.1:${cluster.apps[1].env.PORT}/`));
    assert.equal(response.status, 200);
    await response.text();
    answered++;
    most = Math.max(most, residentKiB(supervisor));
    await sleep(20);
  }
  t.diagnostic(`resident: ${(before / MIB).toFixed(1)} MiB before, at most ${(most / MIB).toFixed(1)} MiB; ${answered} requests of another app answered`);
  assert.ok(cpuTicks(flooder.pid) - ticks > 50, 'it did flood');
  return { before, most };
}

async function start(t, source, settings = {}) {
  const cluster = await Cluster.start({
    apps: [app({ script: 'flood.cjs', instances: 2, ...settings }), app({ name: 'other', instances: 1 })],
    files: { 'flood.cjs': source },
  });
  t.after(() => cluster.close());
  return cluster;
}

test('process.send in a loop', async (t) => {
  // As much as the channel takes: a program that did not wait would only fill its own memory.
  const cluster = await start(t, flooding(`
    if (process.channel.writeQueueSize < 1e6) for (let index = 0; index < 100; index++) process.send({ type: 'metrics', text: 'x'.repeat(2000) });
  `).replace('process.channel.writeQueueSize < 1e6', 'true === process.send({ small: 1 })'));
  const { before, most } = await watch(t, cluster);
  assert.ok(most - before < 24 * MIB, `${most - before} KiB more`);
});

test('messages of 50 MB', async (t) => {
  const cluster = await start(t, flooding(`if (process.send('next')) process.send('x'.repeat(50e6));`));
  const { before, most } = await watch(t, cluster);
  assert.ok(most - before < 24 * MIB, `${most - before} KiB more`);
  await until(5000, 'a warning', () => /ipcMessageBytes/.test(cluster.child.output));
});

test('printing without end', async (t) => {
  const cluster = await start(t, flooding(`for (let index = 0; index < 200; index++) console.log('x'.repeat(500));`), { out_file: '/dev/null' });
  const { before, most } = await watch(t, cluster);
  assert.ok(most - before < 24 * MIB, `${most - before} KiB more`);
});

test('broadcasts to a worker that does not read: up to ipcQueueBytes wait, the rest is dropped and said so', async (t) => {
  const cluster = await start(t, flooding(''), { sundew: { limits: { ipcQueueBytes: '8M', ipcMessageBytes: '8M' }, hungRestart: 0 } });
  // The worker of slot 1 stops; the other one broadcasts 40 MB.
  const on = {};
  while (!on[0] || !on[1]) {
    const each = await connect(cluster.url, { transports: ['websocket'] });
    t.after(() => each.close());
    on[(await ask(each, 'whoami')).instance] ??= each;
  }
  const socket = on[0];
  const [, asleep] = await cluster.workers('echo');
  process.kill(asleep.pid, 'SIGSTOP');
  const heard = [];
  socket.on('broadcast', (payload) => heard.push(payload.length));
  const supervisor = cluster.supervisor();
  const before = residentKiB(supervisor);
  let most = before;
  for (let round = 0; round < 80; round++) {
    socket.emit('broadcast', Buffer.alloc(500_000));
    await until(10_000, 'the broadcast at the sender', () => heard.length > round);
    most = Math.max(most, residentKiB(supervisor));
  }
  t.diagnostic(`resident: ${(before / MIB).toFixed(1)} MiB before, at most ${(most / MIB).toFixed(1)} MiB`);
  assert.ok(most - before < 24 * MIB, `${most - before} KiB more, with 8 MiB allowed to wait`);
  assert.match(cluster.child.output, /broadcasts of other workers do not reach the worker/);
  process.kill(asleep.pid, 'SIGCONT');
  let again = false;
  on[1].on('broadcast', (payload) => (again ||= payload.length === 5));
  await until(10_000, 'its clients hear again', () => {
    socket.emit('broadcast', Buffer.from('small'));
    return again;
  });
});
