// A Node worker whose event loop is blocked: new sessions go to the others within a second, `list` names it, and it is
// taken back when it answers again. One that stays blocked is restarted.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MODES, ask, connect } from '../lib/client.mjs';
import { use } from '../lib/workers.mjs';
import { sleep, until } from '../lib/wait.mjs';

use('node');
const { Cluster, app } = await import('../lib/cluster.mjs');

/** What a new session may take when it goes to a worker that answers: far below the block. */
const QUICK = 1500;

/** A websocket session on the worker of this slot. */
async function sessionOn(t, cluster, instance) {
  for (let round = 0; round < 40; round++) {
    const socket = await connect(cluster.url, MODES['websocket only']);
    t.after(() => socket.close());
    const who = await ask(socket, 'whoami');
    if (who.instance === instance) return { socket, who };
  }
  throw new Error(`no session on worker ${instance}`);
}

const stuck = async (cluster) => (await cluster.list()).filter(({ sundew }) => sundew.stuck_ms).map(({ pm2_env }) => Number(pm2_env.NODE_APP_INSTANCE));

test('blocked for 5 s: new sessions elsewhere within 1 s, named in list, then taken back', async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.close());
  const { socket, who } = await sessionOn(t, cluster, 2);
  const before = (await cluster.workers()).map(({ pid }) => pid);

  const blocked = Date.now();
  socket.emit('block', 5000);
  // Traffic all along; what was sent to the worker before anyone could know is waited for at the end.
  const visits = [];
  const visit = (options) => {
    const from = Date.now() - blocked;
    visits.push(connect(cluster.url, options).then(async (fresh) => {
      const { instance } = await ask(fresh, 'whoami');
      fresh.close();
      return { from, took: Date.now() - blocked - from, instance };
    }, (error) => ({ from, error: error.message })));
  };
  // A second of silence tells. `known` is when the list named it: on a busy machine the block begins late.
  let named = [], known;
  while (Date.now() - blocked < 4500) {
    for (const options of Object.values(MODES)) visit(options);
    if (named.length === 0 && Date.now() - blocked > 1000) {
      named = await stuck(cluster);
      known = Date.now() - blocked;
    }
    await sleep(50);
  }
  const done = await Promise.all(visits);
  assert.deepEqual(done.filter(({ error }) => error), [], 'nobody fails');
  assert.deepEqual(named, [2], 'list names it, and no other');
  const late = done.filter(({ from }) => from > known);
  assert.ok(late.length > 30, `${late.length} sessions were opened after it was known, at ${known} ms`);
  assert.deepEqual(late.filter(({ instance }) => instance === 2), [], 'none of them on the blocked worker');
  assert.deepEqual(late.filter(({ took }) => took > QUICK), [], 'none of them waited');
  t.diagnostic(`${done.length} sessions; known after ${known} ms; those before took at most ${Math.max(...done.filter(({ from }) => from <= known).map(({ took }) => took))} ms`);

  // Its own session was never touched, and it takes new ones again.
  assert.equal((await ask(socket, 'whoami')).pid, who.pid);
  await until(5000, 'it answers', async () => (await stuck(cluster)).length === 0);
  // They stay: the next one is for the worker with the fewest.
  await until(10_000, 'it takes sessions', async () => {
    const fresh = await connect(cluster.url, MODES['websocket only']);
    t.after(() => fresh.close());
    return (await ask(fresh, 'whoami')).instance === 2;
  });
  assert.deepEqual((await cluster.workers()).map(({ pid }) => pid), before, 'no worker was replaced');
});

test('blocked for longer than hungRestart: restarted, and list says why', async (t) => {
  const cluster = await Cluster.start({ apps: [app({ sundew: { hungRestart: '3s' } })] });
  t.after(() => cluster.close());
  const { socket, who } = await sessionOn(t, cluster, 1);
  socket.emit('block', 600_000);
  const traffic = setInterval(() => fetch(cluster.url).then((response) => response.text(), () => {}), 100);
  t.after(() => clearInterval(traffic));
  await until(20_000, 'another process in its place', async () => {
    const worker = (await cluster.workers()).find(({ instance }) => instance === 1);
    return worker && worker.pid !== who.pid;
  });
  assert.match((await cluster.ok('describe', 'echo')).stdout + cluster.child.output, /hungRestart/);
  clearInterval(traffic);
  const { who: again } = await sessionOn(t, cluster, 1);
  assert.notEqual(again.pid, who.pid);
});

test('all workers blocked: requests wait and are answered', async (t) => {
  const cluster = await Cluster.start({ apps: [app({ instances: 1 })] });
  t.after(() => cluster.close());
  const { socket } = await sessionOn(t, cluster, 0);
  socket.emit('block', 3000);
  await sleep(100);
  const answers = await Promise.all([...Object.values(MODES), ...Object.values(MODES)].map(async (options) => {
    const fresh = await connect(cluster.url, options);
    t.after(() => fresh.close());
    return ask(fresh, 'echo-ack', 'late');
  }));
  assert.deepEqual(answers, Array(6).fill('late'));
});
