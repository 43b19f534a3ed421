// Several hosts behind a balancer that sends each connection to the next one: any node may receive any request.
//
// SUNDEW_CUT_MS=60000: the registry is away for a minute.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SharedAgent } from '../lib/client.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { isRoot, kind } from '../lib/cluster.mjs';
import { Hosts, handshake, poll } from '../lib/hosts.mjs';
import { sleep, until } from '../lib/wait.mjs';

/** For how long a node is cut off from the registry; more than the expiry. */
const CUT_MS = Number(process.env.SUNDEW_CUT_MS ?? 2000);
const skip = !isRoot && 'needs root for network namespaces';

/** Sums of counters over all hosts, for the log. */
async function traffic(hosts) {
  const sums = {};
  for (const name of ['forwarded', 'relayed', 'asked', 'found']) {
    sums[name] = (await Promise.all(hosts.map((host) => host.counted(name)))).reduce((a, b) => a + b);
  }
  return sums;
}

for (const count of [2, 3]) {
  describe(`${count} nodes, ${kind} workers`, { skip }, () => {
    let hosts;
    before(async () => (hosts = await Hosts.start({ count })));
    after(() => hosts?.close());

    test('500 clients: nobody notices', async (t) => {
      const crowd = new Crowd(hosts.url);
      t.after(() => crowd.close());
      await crowd.add(500);
      assert.deepEqual(crowd.failures, {});
      assert.equal(crowd.upgraded, 500);
      const owners = new Set(crowd.members.map(({ who }) => hosts.owner(who.pid)));
      assert.equal(owners.size, count, 'every node has sessions');
      const addresses = new Set(crowd.members.map(({ who }) => who.address.replace(/^::ffff:/, '').replace(/:\d+$/, '')));
      assert.deepEqual([...addresses], [`${hosts.network.subnet}.1`], 'the client’s own address, whoever took the request');
      const sums = await traffic(hosts.all);
      t.diagnostic(`${JSON.stringify(sums)}, ${JSON.stringify(crowd.latency)} ms`);
      assert.ok(sums.forwarded > 100 && sums.relayed > 50, JSON.stringify(sums));
    });

    test('500 clients, polling only: every request may go elsewhere', async (t) => {
      const agent = new SharedAgent();
      const crowd = new Crowd(hosts.url, { transports: ['polling'], agent });
      t.after(() => (crowd.close(), agent.destroy()));
      await crowd.add(500, { upgrade: false });
      for (let round = 0; round < 2; round++) await crowd.census();
      assert.deepEqual(crowd.failures, {});
      assert.equal(crowd.members.length, 500);
    });

    test('500 clients, websocket only', async (t) => {
      const crowd = new Crowd(hosts.url, { transports: ['websocket'] });
      t.after(() => crowd.close());
      await crowd.add(500);
      assert.deepEqual(crowd.failures, {});
      assert.equal(crowd.upgraded, 500);
    });

    if (count === 2) return;

    test('a node cut off from the registry for longer than the expiry keeps its sessions, and the others know it', async (t) => {
      const crowd = new Crowd(hosts.url);
      t.after(() => crowd.close());
      await crowd.add(60);
      const [cut] = hosts.all;
      cut.cut(hosts.redisAddress);
      await until(10_000, 'the node notices', async () => (await cut.nodes()).registry.trouble);
      await sleep(CUT_MS);
      await crowd.add(30);
      for (const host of hosts.all) assert.equal((await host.reaches()).length, 2);
      cut.heal(hosts.redisAddress);
      await until(10_000, 'the registry is back', async () => (await cut.nodes()).registry.trouble === null);
      await crowd.census();
      assert.deepEqual(crowd.failures, {});
      assert.equal(crowd.members.length, 90);
    });

    test('nodes that cannot reach each other answer at once, and find each other again', async (t) => {
      const [one, other] = hosts.all;
      const sid = await handshake(one);
      // Nothing waits: the engine says no more than that it is there.
      const waiting = poll(other, sid);
      await sleep(200);
      other.cut(one.address);
      // The close packet, or that the session is not known: never a hang.
      const ended = await waiting;
      assert.ok(ended.text === '1' || /"code":1/.test(ended.text), JSON.stringify(ended));
      await until(10_000, 'the others know', async () => (await other.reaches()).length === 1);
      const refused = await poll(other, sid);
      assert.deepEqual([refused.status, JSON.parse(refused.text).code], [400, 1]);
      other.heal(one.address);
      await hosts.joined();
    });

    test('a node dies: its sessions come back elsewhere, the others stay', async (t) => {
      const crowd = new Crowd(hosts.url, { reconnection: true, reconnectionDelay: 100 });
      t.after(() => crowd.close());
      await crowd.add(90);
      assert.deepEqual(crowd.failures, {});
      const dead = hosts.all[1];
      const through = await hosts.through();
      const ids = new Map(crowd.members.map((member) => [member, member.socket.id]));
      const concerned = new Set(
        crowd.members.filter(({ who, socket }) => {
          const connection = socket.io.engine.transport.ws._socket.localPort;
          return hosts.owner(who.pid) === dead || through.get(connection) === dead;
        }),
      );
      assert.ok(concerned.size > 0 && concerned.size < 90);
      const sid = await handshake(dead);
      const waiting = poll(hosts.all[0], sid).then(() => poll(hosts.all[0], sid));
      await sleep(300);
      dead.die();
      const ended = await waiting;
      assert.ok(ended.text === '1' || /"code":1/.test(ended.text), JSON.stringify(ended));
      await until(20_000, 'everybody is connected', () => crowd.members.every(({ socket }) => socket.connected));
      await crowd.census();
      const moved = crowd.members.filter((member) => member.socket.id !== ids.get(member));
      t.diagnostic(`${moved.length} of 90 reconnected, ${concerned.size} were on the node or went through it`);
      assert.equal(moved.filter((member) => !concerned.has(member)).length, 0, 'somebody else had to reconnect');
      assert.equal(moved.length, concerned.size);
      const refused = await poll(hosts.all[0], sid);
      assert.deepEqual([refused.status, JSON.parse(refused.text).code], [400, 1]);
    });

    test('a node that comes back at another address is found again', async (t) => {
      const back = hosts.all[1];
      const before = (await hosts.all[0].nodes()).nodes;
      back.move(99);
      back.run();
      await hosts.joined();
      const nodes = (await hosts.all[0].nodes()).nodes;
      assert.deepEqual(nodes.map(({ number }) => number), before.map(({ number }) => number), 'under its number');
      assert.ok(nodes.some(({ addr }) => addr.startsWith(`${back.address}:`)), JSON.stringify(nodes));
      const sid = await handshake(back);
      for (const host of hosts.all) assert.equal((await poll(host, sid, { method: 'POST', body: '40' })).text, 'ok');
    });
  });
}
