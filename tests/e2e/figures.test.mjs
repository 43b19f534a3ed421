// What `jlist` and `describe` say of each worker: sessions by transport, what it was given, what is under way, what went
// wrong. The same right after churn.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { MODES } from '../lib/client.mjs';
import { Cluster, app, kind } from '../lib/cluster.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { until } from '../lib/wait.mjs';

const EACH = 20;

describe(`figures per worker, ${kind} workers`, () => {
  let cluster;
  before(async () => (cluster = await Cluster.start({ apps: [app({ instances: 2 })] })));
  after(() => cluster?.close());

  const figures = async () => JSON.parse((await cluster.ok('jlist')).stdout).map(({ pid, pm2_env, sundew }) => ({ pid, instance: pm2_env.NODE_APP_INSTANCE, ...sundew }));
  const sum = (workers, of) => workers.reduce((all, worker) => all + of(worker), 0);
  /** Sessions are told of, not asked for: by native workers several times a second. */
  const sessions = (polling, websocket) =>
    until(10_000, `${polling} polling, ${websocket} websocket`, async () => {
      const workers = await figures();
      return sum(workers, ({ sessions }) => sessions.polling) === polling && sum(workers, ({ sessions }) => sessions.websocket) === websocket;
    });

  test('sessions by transport, handshakes, connections and requests are counted once', async (t) => {
    const crowds = Object.entries(MODES).map(([name, options]) => [name, new Crowd(cluster.url, options)]);
    t.after(() => crowds.forEach(([, crowd]) => crowd.close()));
    const before = await figures();
    for (const [name, crowd] of crowds) {
      await crowd.add(EACH, { upgrade: name === 'default' });
      assert.deepEqual(crowd.failures, {});
    }
    await sessions(EACH, 2 * EACH);
    const workers = await figures();
    const grown = (name) => sum(workers, ({ traffic }) => traffic[name]) - sum(before, ({ traffic }) => traffic[name]);
    assert.equal(grown('handshakes'), 3 * EACH);
    assert.equal(grown('handed_off'), 2 * EACH, 'the upgrades, and those that began on a websocket');
    // A handshake, a CONNECT and its answer, a question: at least.
    assert.ok(grown('proxied') >= 2 * EACH * 3, `${grown('proxied')} requests`);
    assert.equal(grown('tunnelled'), 0);
    for (const worker of workers) {
      const counts = {};
      for (const [, crowd] of crowds) counts.total = (counts.total ?? 0) + crowd.on(worker.instance).length;
      assert.equal(worker.sessions.total, counts.total, 'each worker has its own');
      assert.equal(worker.sessions.polling + worker.sessions.websocket, worker.sessions.total);
      assert.deepEqual(Object.entries(worker.traffic.errors).filter(([name, count]) => name !== 'client_gone' && count > 0), []);
    }
    // The polls that wait.
    await until(5000, 'polls wait', async () => sum(await figures(), ({ traffic }) => traffic.in_flight) === EACH);
  });

  test('after churn nothing is left over', async (t) => {
    for (let round = 0; round < 3; round++) {
      const crowd = new Crowd(cluster.url);
      t.after(() => crowd.close());
      await crowd.add(30);
      crowd.close();
    }
    await sessions(0, 0);
    await until(5000, 'nothing is under way', async () => sum(await figures(), ({ traffic }) => traffic.in_flight + traffic.handing_off) === 0);
  });

  test('a worker that takes a killed one’s place begins at zero', async (t) => {
    const crowd = new Crowd(cluster.url, { transports: ['websocket'] });
    t.after(() => crowd.close());
    await crowd.add(10);
    const [victim, other] = await figures();
    assert.ok(victim.traffic.handed_off > 0);
    process.kill(victim.pid, 'SIGKILL');
    await until(10_000, 'another has come', async () => {
      const [now] = await figures();
      return now.pid !== 0 && now.pid !== victim.pid;
    });
    const [fresh, same] = await figures();
    assert.deepEqual([fresh.traffic.handed_off, fresh.traffic.handshakes, fresh.sessions.total], [0, 0, 0]);
    assert.ok(same.traffic.handed_off >= other.traffic.handed_off);
    await until(10_000, 'the other’s sessions stay', async () => sum(await figures(), ({ sessions }) => sessions.websocket) === crowd.on(other.instance).length);
  });

  test('describe says it in words', async () => {
    const { stdout } = await cluster.ok('describe', '1');
    assert.match(stdout, /sessions +\d+ \(\d+ polling, \d+ websocket\)/);
    assert.match(stdout, /given to it +\d+ handshakes, \d+ connections, \d+ requests, 0 upgrades through the front door/);
    assert.match(stdout, /under way +\d+ requests, 0 connections being handed over/);
    assert.match(stdout, /errors +(none|\d+ )/);
  });
});
