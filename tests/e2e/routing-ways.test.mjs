// The ways to route: by session id, nginx (ip_hash, and consistent hashing) and HAProxy over the workers' own ports, with the
// configurations that Sundew prints, routing by the server, and by the client's address. 500 clients with each transport
// over shared keep-alive connections: nobody fails. (Several nodes are in nodes.test.mjs.)

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { MODES, SharedAgent, ask, connect, upgraded } from '../lib/client.mjs';
import { Cluster, app, freePort, freePorts, kind } from '../lib/cluster.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { HAPROXY, NGINX, startHaproxy, startNginx } from '../lib/proxies.mjs';
import { until } from '../lib/wait.mjs';

const CLIENTS = 500;
const ADDRESSES = 20;

/** Shared keep-alive connections from so many addresses, of different networks as ip_hash sees them. */
function agentsOf(t, addresses) {
  const agents = Array.from({ length: addresses }, (_, index) => new SharedAgent({ localAddress: `127.0.${index + 1}.1` }));
  t.after(() => agents.forEach((agent) => agent.destroy()));
  return agents;
}

/** 500 clients, from one address or through agents of several; each gets in and is answered. */
async function crowds(t, { url, upgrade, options, agents }) {
  const all = agents.map((agent) => new Crowd(url(), { ...options, agent }));
  t.after(() => all.forEach((crowd) => crowd.close()));
  await Promise.all(all.map((crowd) => crowd.add(CLIENTS / agents.length, { upgrade, width: Math.ceil(60 / agents.length) })));
  const failures = all.flatMap((crowd) => crowd.errors);
  assert.deepEqual(failures, [], 'no errors');
  const members = all.flatMap((crowd) => crowd.members);
  assert.equal(members.length, CLIENTS);
  const counts = {};
  for (const crowd of all) for (const [instance, count] of Object.entries(await crowd.census())) counts[instance] = (counts[instance] ?? 0) + count;
  assert.deepEqual(all.flatMap((crowd) => crowd.errors), [], 'no errors later either');
  return counts;
}

describe(`ways to route, ${kind} workers`, () => {
  let cluster;
  let first;
  const direct = (slot) => `http://127.0.0.1:${first + slot}`;
  const route = async () => (await fetch(`${cluster.url}/.sundew/route`)).json();
  before(async () => {
    first = await freePorts(4);
    const sundew = { direct: { basePort: first }, route: true, trustedProxies: ['loopback'] };
    cluster = await Cluster.start({ apps: [app({ sundew })] });
  });
  after(() => cluster?.close());

  test('each port is its worker’s own, and finds the sessions of the others', async () => {
    for (let slot = 0; slot < 4; slot++) {
      for (const [mode, options] of Object.entries(MODES)) {
        const socket = await connect(direct(slot), options);
        if (mode === 'default') await upgraded(socket);
        assert.equal(Number((await ask(socket, 'whoami')).instance), slot, mode);
        socket.close();
      }
    }
    const poll = (slot, query = '') => fetch(`${direct(slot)}/socket.io/?EIO=4&transport=polling${query}`);
    const { sid } = JSON.parse((await (await poll(1)).text()).slice(1));
    assert.equal((await fetch(`${direct(2)}/socket.io/?EIO=4&transport=polling&sid=${sid}`, { method: 'POST', body: '40' })).status, 200);
    assert.match(await (await poll(3, `&sid=${sid}`)).text(), /^40/);
    const unknown = await poll(0, '&sid=nobodys');
    assert.deepEqual([unknown.status, (await unknown.json()).code], [400, 1]);
    const described = (await cluster.list()).map(({ sundew }) => sundew.direct.split(':').pop());
    assert.deepEqual(described, [0, 1, 2, 3].map((slot) => String(first + slot)));
  });

  const ways = {
    'nginx, ip_hash': NGINX && ((port) => startNginx(cluster, port)),
    'nginx, hash consistent': NGINX && ((port) => startNginx(cluster, port, ['--hash', 'consistent'])),
    HAProxy: HAPROXY && ((port) => startHaproxy(cluster, port)),
  };
  for (const [name, start] of Object.entries(ways)) {
    describe(name, { skip: !start && 'not installed' }, () => {
      let proxy;
      before(async () => (proxy = await start(await freePort())));
      after(() => proxy?.close());
      for (const [mode, options] of Object.entries(MODES)) {
        test(`${CLIENTS} clients, ${mode}`, async (t) => {
          const agents = agentsOf(t, ADDRESSES);
          const counts = await crowds(t, { url: () => proxy.url, upgrade: mode === 'default', options, agents });
          t.diagnostic(`sessions by worker: ${JSON.stringify(counts)}`);
          assert.ok(Object.keys(counts).length >= 2, 'more than one worker is used');
        });
      }
      test('a worker that dies: its clients come back, and new ones are not turned away', async (t) => {
        const agent = new http.Agent({ keepAlive: true, localAddress: '127.0.77.1' });
        t.after(() => agent.destroy());
        const socket = await connect(proxy.url, { agent, reconnection: true, reconnectionDelay: 50 });
        t.after(() => socket.close());
        const { pid, instance } = await ask(socket, 'whoami');
        const gone = new Promise((resolve) => socket.once('disconnect', resolve));
        process.kill(pid, 'SIGKILL');
        // While it is away, and from the same address, so for the same port.
        for (let round = 0; round < 10; round++) {
          const other = await connect(proxy.url, { agent });
          assert.notEqual((await ask(other, 'whoami')).pid, pid);
          other.close();
        }
        await gone;
        await until(10_000, 'it is back', () => socket.connected);
        await until(10_000, 'its worker is back', async () => (await cluster.workers()).some((worker) => worker.instance === Number(instance) && worker.pid !== pid));
      });
    });
  }

  describe('routing by the server', () => {
    for (const [mode, options] of Object.entries(MODES)) {
      test(`${CLIENTS} clients, ${mode}`, async (t) => {
        const agent = new SharedAgent();
        t.after(() => agent.destroy());
        const crowd = [];
        t.after(() => crowd.forEach((each) => each.close()));
        const workers = Array.from({ length: 25 }, async () => {
          for (let count = 0; count < CLIENTS / 25; count++) {
            const { url } = await route();
            const each = new Crowd(url, { ...options, agent });
            crowd.push(each);
            await each.add(1, { upgrade: mode === 'default' });
          }
        });
        await Promise.all(workers);
        assert.deepEqual(crowd.flatMap((each) => each.errors), [], 'no errors');
        const counts = {};
        for (const { members, url } of crowd) {
          const { who } = members[0];
          assert.equal(url, direct(who.instance), 'each is where it was told to go');
          counts[who.instance] = (counts[who.instance] ?? 0) + 1;
        }
        t.diagnostic(`sessions by worker: ${JSON.stringify(counts)}`);
        for (const count of Object.values(counts)) assert.ok(Math.abs(count - CLIENTS / 4) <= CLIENTS / 16, JSON.stringify(counts));
      });
    }
  });

  test('scale opens and closes ports, a reload closes none', async (t) => {
    const open = (slot) => new Promise((resolve) => {
      const socket = net.connect(first + slot, '127.0.0.1', () => resolve(true)).once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
    let reloading = true;
    let refused = 0;
    const probing = (async () => {
      while (reloading) if (!(await open(2))) refused++;
    })();
    await cluster.ok('reload', 'echo', '--wait');
    reloading = false;
    await probing;
    assert.equal(refused, 0);
    const socket = await connect(direct(3), { transports: ['websocket'] });
    t.after(() => socket.close());
    await cluster.ok('scale', 'echo', '3');
    await until(10_000, 'the port of the worker that left is closed', async () => !(await open(3)));
    assert.equal(await open(2), true);
    await cluster.ok('scale', 'echo', '4');
    assert.equal(await open(3), true);
    assert.equal(Number((await ask(await connect(direct(3)), 'whoami')).instance), 3);
  });

  test('a port that is taken is named with its worker', async (t) => {
    const base = await freePorts(4);
    const holder = net.createServer().listen(base + 1);
    t.after(() => holder.close());
    const file = cluster.file('taken.json', { apps: [{ ...app({ sundew: { direct: base } }), name: 'taken', instances: 2, env: { PORT: await freePort() } }] });
    const { code, text } = await cluster.sundew('start', file);
    assert.equal(code, 1);
    assert.match(text, new RegExp(`own port of worker 1 .*basePort ${base}.*port ${base + 1} already`));
    await cluster.ok('delete', 'taken');
  });

  test('without `direct` the commands say what is missing', async () => {
    const file = cluster.file('plain.json', { apps: [app()] });
    for (const command of ['nginx', 'haproxy']) {
      const { code, text } = await cluster.sundew(command, file);
      assert.equal(code, 1);
      assert.match(text, /no worker of `echo` has a port of its own[^]*"direct": \{ "basePort": 3131 \}/);
    }
  });
});

// What each of them comes to: how many workers 500 clients of one address are spread over, and of twenty.
const BY = {
  'by session id': { sundew: {}, one: 4, many: 4 },
  'balance by address': { sundew: { balance: 'ip-hash' }, one: 4, many: 4 },
  'affinity by address': { sundew: { affinity: 'ip' }, one: 1, many: 2 },
};
for (const [name, { sundew, one, many }] of Object.entries(BY)) {
  describe(`${name}, ${kind} workers`, () => {
    let cluster;
    before(async () => (cluster = await Cluster.start({ apps: [app({ sundew })] })));
    after(() => cluster?.close());
    for (const [mode, options] of Object.entries(MODES)) {
      for (const [addresses, workers] of [[1, one], [ADDRESSES, many]]) {
        test(`${CLIENTS} clients of ${addresses} addresses, ${mode}`, async (t) => {
          const agents = agentsOf(t, addresses);
          const counts = await crowds(t, { url: () => cluster.url, upgrade: mode === 'default', options, agents });
          t.diagnostic(`sessions by worker: ${JSON.stringify(counts)}`);
          const used = Object.keys(counts).length;
          assert.ok(workers === 1 ? used === 1 : used >= workers, JSON.stringify(counts));
          // The bound of ip-hash is 1.25 times the mean of what there is at that moment: those that are being upgraded, or have
          // left just now, are in it too.
          if (name !== 'affinity by address') assert.ok(Math.max(...Object.values(counts)) <= (CLIENTS / 4) * 1.25 + CLIENTS / 50, JSON.stringify(counts));
        });
      }
    }
  });
}
