// kill -9 of a worker under load: the others notice nothing, its own sessions are answered at once and come back, the
// worker is back after restart_delay, and one that dies at every start ends "errored" with its last exit's reason.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MODES, ask, connect, open } from '../lib/client.mjs';
import { Cluster, Sandbox, app, program, worker } from '../lib/cluster.mjs';
import { once, sleep, until, within } from '../lib/wait.mjs';
import { Wire, polling, session } from '../lib/wire.mjs';

const PER_MODE = 30;
/** "At once": far below every timer that could hide behind it (ping 25 s, request 10 s), generous to a busy machine. */
const AT_ONCE = 2000;

/** A client that keeps asking, and counts. */
function busy(url, options) {
  const socket = open(url, { ...options, reconnection: true, reconnectionDelay: 200, reconnectionDelayMax: 1000 });
  const client = { socket, answers: 0, errors: [], disconnects: [], stopped: false };
  socket.on('disconnect', (reason) => client.disconnects.push({ reason, at: Date.now() }));
  socket.on('connect_error', (error) => client.errors.push(`connect_error ${error.message}`));
  client.ready = (async () => {
    await once(socket, 'connect', 20_000);
    client.who = await ask(socket, 'whoami');
  })();
  client.work = client.ready.then(async () => {
    while (!client.stopped) {
      try {
        await socket.timeout(5000).emitWithAck('echo-ack', client.answers);
        client.answers++;
      } catch (error) {
        client.errors.push(error.message);
      }
      await sleep(100);
    }
  });
  return client;
}

test('kill -9 of one of four workers under load', async (t) => {
  const delay = 1500;
  const cluster = await Cluster.start({ apps: [app({ restart_delay: delay })] });
  t.after(() => cluster.close());
  const clients = Object.values(MODES).flatMap((options) =>
    Array.from({ length: PER_MODE }, () => busy(cluster.url, options)),
  );
  t.after(() =>
    clients.forEach((client) => {
      client.stopped = true;
      client.socket.close();
    }),
  );
  await Promise.all(clients.map(({ ready }) => ready));
  await sleep(1000);

  // A polling session by hand on the victim, with a GET waiting.
  const workers = await cluster.workers();
  const wire = await Wire.open(cluster.port);
  t.after(() => wire.destroy());
  const sid = await session(wire);
  await wire.request('POST', polling(sid), {}, '420["whoami"]').response();
  const [{ instance }] = JSON.parse((await wire.request('GET', polling(sid)).response()).body.slice(3));
  const victim = workers.find((worker) => worker.instance === Number(instance));
  const own = clients.filter(({ who }) => who.pid === victim.pid);
  const others = clients.filter(({ who }) => who.pid !== victim.pid);
  assert.ok(own.length > 0 && others.length > 0);
  const before = new Map(others.map((client) => [client, client.answers]));
  wire.request('GET', polling(sid));
  await sleep(200);

  const killed = Date.now();
  process.kill(victim.pid, 'SIGKILL');

  // Its own: the waiting poll gets the close packet, what comes later 400 code 1. No timer in between.
  const closed = await wire.response(AT_ONCE);
  assert.equal(closed.status, 200);
  assert.equal(closed.body, '1', 'the Engine.IO close packet');
  const later = await Wire.open(cluster.port);
  t.after(() => later.destroy());
  const unknown = await later.request('GET', polling(sid)).response(AT_ONCE);
  assert.equal(unknown.status, 400);
  assert.deepEqual(JSON.parse(unknown.body), { code: 1, message: 'Session ID unknown' });
  const posted = await later.request('POST', polling(sid), {}, '42["echo"]').response(AT_ONCE);
  assert.equal(posted.status, 400);
  assert.equal(JSON.parse(posted.body).code, 1);

  await until(10_000, 'its own clients are told', () => own.every(({ disconnects }) => disconnects.length > 0));
  const slowest = Math.max(...own.map(({ disconnects }) => disconnects[0].at)) - killed;
  t.diagnostic(`the last of its ${own.length} clients knew after ${slowest} ms`);
  assert.ok(slowest < AT_ONCE, `told at once, not after ${slowest} ms`);

  // They come back and work.
  const answered = new Map(own.map((client) => [client, client.answers]));
  await until(15_000, 'its own clients are back', () =>
    own.every((client) => client.socket.connected && client.answers > answered.get(client)),
  );

  // The worker is back after restart_delay, in the same slot.
  const back = await until(delay + 10_000, 'the worker is back', async () =>
    (await cluster.workers()).find((worker) => worker.instance === victim.instance && worker.pid !== victim.pid),
  );
  const took = Date.now() - killed;
  t.diagnostic(`back after ${took} ms with restart_delay ${delay}`);
  assert.ok(took >= delay, `restart_delay is kept (${took} ms)`);
  assert.equal(back.restarts, 1, 'the restart is counted');
  await until(10_000, 'the respawned worker takes sessions', async () => {
    const socket = await connect(cluster.url, MODES['websocket only']);
    const who = await ask(socket, 'whoami');
    socket.close();
    return who.pid === back.pid;
  });

  // The others: went on all the time, 0 errors, 0 disconnects, same worker.
  await sleep(500);
  for (const client of others) {
    assert.deepEqual(client.errors, []);
    assert.deepEqual(client.disconnects, []);
    assert.ok(client.answers > before.get(client), 'went on working');
    assert.equal((await ask(client.socket, 'whoami')).pid, client.who.pid);
  }
});

test('a worker that dies at every start ends errored, and list says why', async (t) => {
  const folder = new Sandbox();
  t.after(() => folder.close());
  // A good program first, one that dies at once later: swapped behind the same name.
  const script = program(folder);
  const settings = { script, instances: 2, max_restarts: 3, restart_delay: 50, min_uptime: 2000 };
  const running = await Cluster.start({ apps: [app(settings)] });
  t.after(() => running.close());
  const socket = await connect(running.url, MODES['websocket only']);
  t.after(() => socket.close());
  const who = await ask(socket, 'whoami');
  const victim = (await running.workers()).find(({ pid }) => pid !== who.pid);

  program(folder, worker.ends('no database', 42));
  process.kill(victim.pid, 'SIGKILL');
  await until(20_000, 'errored', async () => (await running.list()).some(({ pm2_env }) => pm2_env.status === 'errored'));

  const listed = (await running.ok('list')).stdout;
  assert.match(listed, /errored/);
  assert.match(listed, /\b42\b/, `the exit code is visible in:\n${listed}`);
  const described = (await running.ok('describe', 'echo')).stdout;
  assert.match(described, /\b42\b/);

  // It stays so, nothing is started any more, and the other worker serves.
  const restarts = (await running.list()).map(({ pm2_env }) => pm2_env.restart_time);
  await sleep(1000);
  assert.deepEqual((await running.list()).map(({ pm2_env }) => pm2_env.restart_time), restarts);
  assert.equal(socket.connected, true);
  assert.equal(await ask(socket, 'echo-ack', 5), 5);
  for (let attempt = 0; attempt < 10; attempt++) {
    const response = await within(AT_ONCE, 'an answer', fetch(running.url));
    assert.equal(response.status, 200);
  }
});

test('all workers dead: an answer, never a hang', async (t) => {
  const cluster = await Cluster.start({ apps: [app({ instances: 1, restart_delay: 60_000 })] });
  t.after(() => cluster.close());
  const wire = await Wire.open(cluster.port);
  t.after(() => wire.destroy());
  const sid = await session(wire);
  wire.request('GET', polling(sid));
  await sleep(100);
  const [worker] = await cluster.workers();
  process.kill(worker.pid, 'SIGKILL');
  assert.equal((await wire.response(AT_ONCE)).body, '1');
  const known = await wire.request('GET', polling(sid)).response(AT_ONCE);
  assert.equal(known.status, 400, 'the session is gone, and that needs no worker to say');
  assert.equal(JSON.parse(known.body).code, 1);
  const fresh = await wire.request('GET', polling()).response(12_000);
  assert.equal(fresh.status, 503);
  assert.match(fresh.headers['content-type'], /json/);
});
