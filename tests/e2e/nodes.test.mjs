// Several hosts behind a balancer that sends each connection to the next one: any node may receive any request.
//
// SUNDEW_CUT_MS=60000: the registry is away for a minute.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SharedAgent, ask } from '../lib/client.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { isRoot, kind } from '../lib/cluster.mjs';
import { Hosts, handshake, poll } from '../lib/hosts.mjs';
import { pool, sleep, until } from '../lib/wait.mjs';

/** For how long a node is cut off from the registry; more than the expiry. */
const CUT_MS = Number(process.env.SUNDEW_CUT_MS ?? 2000);
const skip = !isRoot && 'needs root for network namespaces';

/** Sums of counters over all hosts, for the log. */
async function traffic(hosts) {
  const sums = {};
  for (const name of ['forwarded', 'relayed', 'moved', 'asked', 'found']) {
    sums[name] = (await Promise.all(hosts.map((host) => host.counted(name)))).reduce((a, b) => a + b);
  }
  return sums;
}

/** Waits until each session of a native worker is on the node that its websocket came to, and asks everybody again. */
async function settled(hosts, crowd) {
  if (kind !== 'native') return;
  let through;
  const elsewhere = () => crowd.members.filter(({ who, socket }) => hosts.owner(who.pid) !== through.get(port(socket)));
  await until(20_000, 'every session has moved to its websocket', async () => {
    await crowd.census();
    through = await hosts.through();
    return elsewhere().length === 0;
  }, 200);
}

/** The client's end of a websocket. */
const port = (socket) => socket.io.engine.transport.ws._socket.localPort;

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
      const owners = new Map(crowd.members.map((member) => [member, hosts.owner(member.who.pid)]));
      assert.equal(new Set(owners.values()).size, count, 'every node has sessions');
      const addresses = new Set(crowd.members.map(({ who }) => who.address.replace(/^::ffff:/, '').replace(/:\d+$/, '')));
      assert.deepEqual([...addresses], [`${hosts.network.subnet}.1`], 'the client’s own address, whoever took the request');
      const ids = crowd.members.map(({ socket }) => socket.id);
      await pool(500, 50, (index) => ask(crowd.members[index].socket, 'join', 'everybody'));
      await settled(hosts, crowd);
      const sums = await traffic(hosts.all);
      t.diagnostic(`${JSON.stringify(sums)}, ${JSON.stringify(crowd.latency)} ms`);
      assert.ok(sums.forwarded > 100 && sums.relayed > 50, JSON.stringify(sums));
      assert.equal(sums.moved, kind === 'native' ? sums.relayed : 0);
      // Nobody noticed: the same sockets, in their rooms, with nothing that failed; and no session is in two places.
      assert.deepEqual(crowd.failures, {});
      assert.deepEqual(crowd.members.map(({ socket }) => socket.id), ids);
      const heard = new Set();
      for (const { socket } of crowd.members) socket.on('broadcast', () => heard.add(socket));
      for (const host of hosts.all) {
        const { socket } = crowd.members.find(({ who }) => hosts.owner(who.pid) === host);
        socket.emit('room-broadcast', 'everybody', 'hello');
      }
      await until(10_000, 'everybody hears its room', () => heard.size === 500);
      const workers = async () => (await Promise.all(hosts.all.map((host) => host.list()))).flat();
      const total = async () => (await workers()).reduce((sum, worker) => sum + worker.sundew.sessions.total, 0);
      // Those of Node.js workers are counted by and by.
      if (kind === 'native') await until(10_000, 'each session is at one place', async () => (await total()) === 500);
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
      const born = crowd.members.filter(({ who }) => hosts.owner(who.pid) === dead);
      await settled(hosts, crowd);
      const through = await hosts.through();
      const ids = new Map(crowd.members.map((member) => [member, member.socket.id]));
      const concerned = new Set(
        crowd.members.filter(({ who, socket }) => {
          return hosts.owner(who.pid) === dead || through.get(port(socket)) === dead;
        }),
      );
      assert.ok(concerned.size > 0 && concerned.size < 90);
      const moved = born.filter((member) => !concerned.has(member)).length;
      t.diagnostic(`${moved} sessions had left the node before it died`);
      assert.equal(moved > 0, kind === 'native');
      const sid = await handshake(dead);
      const waiting = poll(hosts.all[0], sid).then(() => poll(hosts.all[0], sid));
      await sleep(300);
      dead.die();
      const ended = await waiting;
      assert.ok(ended.text === '1' || /"code":1/.test(ended.text), JSON.stringify(ended));
      await until(20_000, 'everybody is connected', () => crowd.members.every(({ socket }) => socket.connected));
      await crowd.census();
      const anew = crowd.members.filter((member) => member.socket.id !== ids.get(member));
      t.diagnostic(`${anew.length} of 90 reconnected, ${concerned.size} were on the node or went through it`);
      assert.equal(anew.filter((member) => !concerned.has(member)).length, 0, 'somebody else had to reconnect');
      assert.equal(anew.length, concerned.size);
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

// engine.io-client whose websocket ends between the answer to its probe and the end of its last poll stays as it is, and
// neither polls nor sends, until it misses the server's pings: 45 seconds by default.
for (const count of [2, 3]) {
  const settings = { env: { HEARTBEAT: '3' } };
  describe(`${count} nodes, workers that die`, { skip: skip || (kind !== 'native' && 'sessions of Node.js workers stay') }, () => {
    let hosts;
    before(async () => (hosts = await Hosts.start({ count, settings })));
    after(() => hosts?.close());

    test('workers die while sessions are on their way between them: their clients come back, nobody hangs', async (t) => {
      const crowd = new Crowd(hosts.url, { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
      t.after(() => crowd.close());
      let running = true;
      const killing = (async () => {
        while (running) {
          const worker = hosts.all.flatMap((host) => host.pids('echo')).at(Math.floor(Math.random() * 2 * count));
          if (worker) process.kill(worker, 'SIGKILL');
          await sleep(400);
        }
      })();
      // Waves, so that there are always some in the middle of a move.
      for (let wave = 0; wave < 5; wave++) {
        await crowd.add(40, { upgrade: false });
        await sleep(150);
      }
      running = false;
      await killing;
      const workers = async () => (await Promise.all(hosts.all.map((host) => host.list()))).flat();
      await until(30_000, 'every worker is back', async () => (await workers()).every(({ pm2_env }) => pm2_env.status === 'online'));
      await until(60_000, 'everybody is connected', () => crowd.members.every(({ socket }) => socket.connected));
      await until(60_000, 'everybody is answered', () => crowd.census().then(() => true, () => false), 300);
      const { moved } = await traffic(hosts.all);
      t.diagnostic(`${crowd.members.length} clients, ${crowd.disconnects.length} disconnects, ${moved} moves so far`);
      assert.ok(crowd.members.length > 120, JSON.stringify(crowd.failures));
      const total = async () => (await workers()).reduce((sum, worker) => sum + worker.sundew.sessions.total, 0);
      await until(20_000, 'no session is left behind', async () => (await total()) === crowd.members.length);
    });
  });
}
