// 500 clients with default transports on four workers: over shared keep-alive connections, as browser tabs and proxies
// do it, and over a fresh connection per request. Nobody fails, and the sessions stay evenly spread through churn. The
// same load without affinity fails: the problem Sundew is for, reproduced on purpose.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FreshAgent, SharedAgent } from '../lib/client.mjs';
import { Cluster, app, kind } from '../lib/cluster.mjs';
import { Crowd, isUnknownSession } from '../lib/crowd.mjs';
import { startReference } from '../lib/reference.mjs';
import { sleep, until } from '../lib/wait.mjs';

const CLIENTS = 500;

/** Counts within 25 % of even. */
function assertEven(counts, instances) {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const even = total / instances;
  for (let instance = 0; instance < instances; instance++) {
    const count = counts[instance] ?? 0;
    assert.ok(Math.abs(count - even) <= even * 0.25, `worker ${instance} has ${count} of ${total} sessions: ${JSON.stringify(counts)}`);
  }
}

async function load(t, url, agent) {
  const crowd = new Crowd(url, { agent });
  t.after(() => {
    crowd.close();
    agent.destroy();
  });
  await crowd.add(CLIENTS);
  t.diagnostic(`${agent.requests} requests over ${agent.opened} connections, ${agent.shared} of them by several sessions`);
  t.diagnostic(`first request to first answer after the upgrade: ${JSON.stringify(crowd.latency)} ms`);
  assert.deepEqual(crowd.failures, {}, 'no errors');
  assert.equal(crowd.upgraded, CLIENTS, 'all upgraded');
  return crowd;
}

describe(`500 clients, default transports, ${kind} workers`, () => {
  test("the load itself: Node's server, one process", { skip: kind === 'node' && 'shown with native workers' }, async (t) => {
    const server = await startReference();
    t.after(() => server.close());
    const agent = new SharedAgent();
    await load(t, server.url, agent);
    assert.ok(agent.shared > CLIENTS / 4, `sessions do share connections (${agent.shared})`);
  });

  test('shared keep-alive connections, then churn', async (t) => {
    const cluster = await Cluster.start();
    t.after(() => cluster.close());
    const agent = new SharedAgent();
    const crowd = await load(t, cluster.url, agent);
    assert.ok(agent.shared > CLIENTS / 4, `sessions do share connections (${agent.shared})`);
    const counts = await crowd.census();
    assertEven(counts, 4);
    await until(5000, 'list shows the sessions', async () =>
      (await cluster.list()).every(({ pm2_env, sundew }) => sundew.sessions.websocket === counts[pm2_env.NODE_APP_INSTANCE]),
    );

    // All sessions of two workers leave, a third worker dies under its clients, who come back, and 500 more come.
    crowd.leave([...crowd.on(0), ...crowd.on(1)]);
    const victims = crowd.on(2);
    victims.forEach((member) => (member.closing = true));
    const [, , victim] = await cluster.workers();
    process.kill(victim.pid, 'SIGKILL');
    crowd.leave(victims);
    await until(10_000, 'four workers again', async () => {
      const workers = await cluster.workers();
      return workers.length === 4 && workers[2].pid !== victim.pid;
    });
    await sleep(500);
    await crowd.add(CLIENTS + victims.length);
    assert.deepEqual(crowd.failures, {}, 'no errors after churn');
    assertEven(await crowd.census(), 4);
  });

  test('a fresh connection per request', async (t) => {
    const cluster = await Cluster.start();
    t.after(() => cluster.close());
    const agent = new FreshAgent();
    const crowd = await load(t, cluster.url, agent);
    assert.ok(agent.opened >= agent.requests, 'no connection was reused');
    assertEven(await crowd.census(), 4);
  });

  test('polling only, shared keep-alive connections', async (t) => {
    const cluster = await Cluster.start();
    t.after(() => cluster.close());
    const agent = new SharedAgent();
    const crowd = new Crowd(cluster.url, { agent, transports: ['polling'] });
    t.after(() => {
      crowd.close();
      agent.destroy();
    });
    await crowd.add(CLIENTS, { upgrade: false });
    await crowd.census();
    assert.deepEqual(crowd.failures, {}, 'no errors');
    assert.equal(crowd.members.length, CLIENTS);
    assertEven(await crowd.census(), 4);
  });

  test('"affinity": "none" fails as pm2 does: Session ID unknown', async (t) => {
    const cluster = await Cluster.start({ apps: [app({ sundew: { affinity: 'none', balance: 'round-robin' } })] });
    t.after(() => cluster.close());
    const agent = new SharedAgent();
    const crowd = new Crowd(cluster.url, { agent });
    t.after(() => {
      crowd.close();
      agent.destroy();
    });
    await crowd.add(CLIENTS, { ms: 5000 });
    const unknown = crowd.errors.filter(isUnknownSession).length;
    t.diagnostic(`${crowd.upgraded} of ${CLIENTS} clients got through; ${unknown} failed with 400 {"code":1,"message":"Session ID unknown"}`);
    assert.ok(unknown > CLIENTS / 10, `the known failure shows: ${JSON.stringify(crowd.failures)}`);
  });
});
