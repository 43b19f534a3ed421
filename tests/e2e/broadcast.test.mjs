// A broadcast reaches every client of the app exactly once, whichever worker holds it: plain, to a room, with binary,
// while a worker is killed, while all are reloaded. The clients of another app hear nothing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MODES, SharedAgent, ask, connect } from '../lib/client.mjs';
import { Cluster, app, kind } from '../lib/cluster.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { sleep, until } from '../lib/wait.mjs';

const CLIENTS = 500;
/** Time for a double to arrive that should not. */
const SETTLE = 700;

/** Counts what each member gets, by the number in the payload. */
function listen(members) {
  for (const member of members) {
    member.heard = new Map();
    member.socket.on('broadcast', (payload) => {
      const number = payload.number ?? payload.readUInt32BE(0);
      member.heard.set(number, (member.heard.get(number) ?? 0) + 1);
    });
  }
}

/** Each of `members` heard each of `numbers` once, and nothing else. */
function assertOnce(members, numbers, what) {
  const wrong = [];
  for (const member of members) {
    for (const number of numbers) {
      const times = member.heard.get(number) ?? 0;
      if (times !== 1) wrong.push(`a client of worker ${member.who.instance} heard ${number} ${times} times`);
    }
    for (const number of member.heard.keys()) if (!numbers.includes(number)) wrong.push(`heard ${number}, not meant for it`);
  }
  assert.equal(wrong.length, 0, `${what}: ${wrong.length} wrong, as ${wrong.slice(0, 5).join('; ')}`);
}

/** Waits until everyone has heard `numbers`, and a little longer. */
async function settle(members, numbers) {
  const all = () => members.every(({ heard }) => numbers.every((number) => heard.has(number)));
  // What is missing at the deadline is told by assertOnce.
  await until(15_000, 'all broadcasts', all).catch(() => {});
  await sleep(SETTLE);
}

async function crowdOf(t, url, count = CLIENTS) {
  const agent = new SharedAgent();
  const crowd = new Crowd(url, { agent });
  t.after(() => {
    crowd.close();
    agent.destroy();
  });
  await crowd.add(count);
  assert.deepEqual(crowd.failures, {});
  // Some stay on polling: broadcasts must find them too.
  const pollers = new Crowd(url, { agent, transports: MODES['polling only'].transports });
  t.after(() => pollers.close());
  await pollers.add(20, { upgrade: false });
  crowd.pollers = pollers.members;
  listen([...crowd.members, ...crowd.pollers]);
  return crowd;
}

/** One member of each worker. */
const speakers = (crowd) => [0, 1, 2, 3].map((instance) => crowd.on(instance)[0]);

describe(`broadcast on four ${kind} workers`, () => {
  test('exactly once: plain, to a room, with binary, from each worker', async (t) => {
    const cluster = await Cluster.start();
    t.after(() => cluster.close());
    const crowd = await crowdOf(t, cluster.url);
    const everyone = [...crowd.members, ...crowd.pollers];
    const from = speakers(crowd);
    assert.ok(from.every(Boolean), 'each worker has clients');

    let number = 0;
    const numbers = [];
    for (let round = 0; round < 5; round++) {
      for (const { socket } of from) {
        socket.emit('broadcast', { number });
        numbers.push(number++);
      }
    }
    await settle(everyone, numbers);
    assertOnce(everyone, numbers, 'plain');

    // Binary: the number in four bytes, then 20 KB.
    const binary = [];
    for (const { socket } of from) {
      const blob = Buffer.alloc(20_000, number);
      blob.writeUInt32BE(number);
      socket.emit('broadcast', blob);
      binary.push(number++);
    }
    await settle(everyone, [...numbers, ...binary]);
    assertOnce(everyone, [...numbers, ...binary], 'binary');

    // A room with every third client, spread over the workers.
    const inside = everyone.filter((_, index) => index % 3 === 0);
    const outside = everyone.filter((_, index) => index % 3 !== 0);
    await Promise.all(inside.map(({ socket }) => ask(socket, 'join', 'third')));
    const room = [];
    for (const { socket } of from) {
      socket.emit('room-broadcast', 'third', { number });
      room.push(number++);
    }
    await settle(inside, [...numbers, ...binary, ...room]);
    assertOnce(inside, [...numbers, ...binary, ...room], 'room, members');
    assertOnce(outside, [...numbers, ...binary], 'room, others');

    await Promise.all(inside.map(({ socket }) => ask(socket, 'leave', 'third')));
    from[0].socket.emit('room-broadcast', 'third', { number: number++ });
    await sleep(SETTLE);
    assertOnce(inside, [...numbers, ...binary, ...room], 'after leaving');
  });

  test('acknowledged broadcasts and fetches see the clients of all workers', async (t) => {
    const cluster = await Cluster.start();
    t.after(() => cluster.close());
    const crowd = await crowdOf(t, cluster.url, 100);
    const everyone = [...crowd.members, ...crowd.pollers];
    everyone.forEach(({ socket }, index) => socket.on('broadcast-ack', (_, answer) => answer(index)));
    for (const { socket } of speakers(crowd)) {
      assert.equal(await ask(socket, 'count'), everyone.length);
      assert.equal(await ask(socket, 'broadcast-ack', { question: 1 }), everyone.length);
    }
    // A worker that dies does not leave them waiting for its part.
    const [victim] = await cluster.workers();
    const own = everyone.filter(({ who }) => who.instance === victim.instance);
    own.forEach((member) => (member.closing = true));
    process.kill(victim.pid, 'SIGKILL');
    await until(5000, 'its clients are gone', () => own.every(({ socket }) => !socket.connected));
    const survivor = speakers(crowd)[1].socket;
    assert.equal(await ask(survivor, 'count'), everyone.length - own.length);
    assert.equal(await ask(survivor, 'broadcast-ack', {}), everyone.length - own.length);
  });

  test('exactly once for the others while a worker is killed', async (t) => {
    const cluster = await Cluster.start();
    t.after(() => cluster.close());
    const crowd = await crowdOf(t, cluster.url);
    const [victim] = await cluster.workers();
    const own = [...crowd.on(victim.instance), ...crowd.pollers.filter(({ who }) => who.instance === victim.instance)];
    own.forEach((member) => (member.closing = true));
    const others = [...crowd.members, ...crowd.pollers].filter((member) => !member.closing);
    const from = speakers(crowd).slice(1);

    // 20 a second, from the workers that live, for three seconds; the kill is in the middle.
    const numbers = [];
    for (let number = 0; number < 60; number++) {
      from[number % 3].socket.emit('broadcast', { number });
      numbers.push(number);
      if (number === 20) process.kill(victim.pid, 'SIGKILL');
      await sleep(50);
    }
    await settle(others, numbers);
    assertOnce(others, numbers, 'while a worker was killed');
    assert.deepEqual(crowd.failures, {}, 'no client of another worker noticed');

    // The respawned worker is on the bus: its new clients hear and are heard, once.
    await until(10_000, 'four workers', async () => (await cluster.workers()).length === 4);
    const fresh = await crowd.add(100);
    listen(fresh);
    const late = fresh.find(({ who }) => Number(who.instance) === victim.instance);
    assert.ok(late, 'the respawned worker takes sessions');
    late.socket.emit('broadcast', { number: 60 });
    from[0].socket.emit('broadcast', { number: 61 });
    await settle(fresh, [60, 61]);
    assertOnce(fresh, [60, 61], 'clients that came after');
    assertOnce(others, [...numbers, 60, 61], 'from the respawned worker');
  });

  test('exactly once while all workers are reloaded', async (t) => {
    // The old workers keep their sessions for longer than the test talks: nobody has to leave.
    const cluster = await Cluster.start({ apps: [app({ sundew: { drainTimeout: 60_000 } })] });
    t.after(() => cluster.close());
    const crowd = await crowdOf(t, cluster.url);
    const everyone = [...crowd.members, ...crowd.pollers];
    const from = speakers(crowd);
    const before = (await cluster.workers()).map(({ pid }) => pid);

    let reloaded;
    const reload = cluster.sundew('reload', 'echo').then((result) => (reloaded = result));
    const numbers = [];
    // Until the reload is over and 20 more, so that old and new workers share the bus for a while.
    for (let number = 0, left = 20; left > 0; number++) {
      from[number % 4].socket.emit('broadcast', { number });
      numbers.push(number);
      await sleep(50);
      if (reloaded) left--;
      assert.ok(number < 1200, 'the reload ends');
    }
    await reload;
    assert.equal(reloaded.code, 0, reloaded.text);

    // Newcomers are on the new workers, and on the same bus.
    const fresh = await crowd.add(40);
    listen(fresh);
    assert.ok(fresh.every(({ who }) => !before.includes(who.pid)), 'new sessions are on new workers');
    const last = numbers.length;
    fresh[0].socket.emit('broadcast', { number: last });
    from[0].socket.emit('broadcast', { number: last + 1 });
    await settle([...everyone, ...fresh], [last, last + 1]);
    assertOnce(everyone, [...numbers, last, last + 1], 'while reloading');
    assertOnce(fresh, [last, last + 1], 'clients of the new workers');
    assert.deepEqual(crowd.failures, {}, 'nobody was disconnected');
  });

  test('two apps in one daemon never hear each other', async (t) => {
    const cluster = await Cluster.start({
      apps: [app({ name: 'one', instances: 2 }), app({ name: 'two', instances: 2 })],
    });
    t.after(() => cluster.close());
    const crowds = [];
    for (const { env } of cluster.apps) {
      const crowd = new Crowd(`http://127.0.0.1:${env.PORT}`);
      t.after(() => crowd.close());
      await crowd.add(20);
      assert.deepEqual(crowd.failures, {});
      listen(crowd.members);
      await Promise.all(crowd.members.map(({ socket }) => ask(socket, 'join', 'same name')));
      crowds.push(crowd);
    }
    crowds[0].members[0].socket.emit('broadcast', { number: 1 });
    crowds[0].members[1].socket.emit('room-broadcast', 'same name', { number: 2 });
    crowds[1].members[0].socket.emit('broadcast', { number: 3 });
    crowds[1].members[1].socket.emit('room-broadcast', 'same name', { number: 4 });
    await Promise.all([settle(crowds[0].members, [1, 2]), settle(crowds[1].members, [3, 4])]);
    assertOnce(crowds[0].members, [1, 2], 'app one');
    assertOnce(crowds[1].members, [3, 4], 'app two');
  });
});

test('namespaces of one app do not hear each other either', async (t) => {
  const cluster = await Cluster.start({ apps: [app({ instances: 2 })] });
  t.after(() => cluster.close());
  const main = await connect(`${cluster.url}/`);
  const other = await connect(`${cluster.url}/ws`);
  t.after(() => [main, other].forEach((socket) => socket.close()));
  const heard = [];
  main.on('broadcast', (payload) => heard.push(`main ${payload}`));
  other.on('broadcast', (payload) => heard.push(`other ${payload}`));
  main.emit('broadcast', 'a');
  other.emit('broadcast', 'b');
  await until(5000, 'both broadcasts', () => heard.length >= 2);
  await sleep(SETTLE);
  assert.deepEqual(heard.sort(), ['main a', 'other b']);
});
