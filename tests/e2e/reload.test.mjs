// Rolling reload: ten times under a steady load of new sessions without a failed request; and a reload to a program
// that cannot serve leaves the old workers in place, exits 1, and says why.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MODES, ask, connect, open } from '../lib/client.mjs';
import { Cluster, Sandbox, app, program, worker } from '../lib/cluster.mjs';
import { cause } from '../lib/crowd.mjs';
import { openFiles } from '../lib/proc.mjs';
import { sleep, until, within } from '../lib/wait.mjs';

const RELOADS = 10;

/** New sessions one after another, each used and closed, until told to stop. */
function steady(url, load) {
  const kinds = [MODES['polling only'], MODES['websocket only'], MODES.default];
  const lane = async (offset) => {
    for (let turn = offset; !load.stopped; turn++) {
      const kind = kinds[turn % kinds.length];
      const socket = open(url, kind);
      let stage = 'connect';
      try {
        await within(
          10_000,
          'connect',
          new Promise((resolve, reject) => {
            socket.once('connect', resolve);
            socket.once('connect_error', reject);
            socket.once('disconnect', (reason, details) => reject(details ?? new Error(reason)));
          }),
        );
        stage = 'use';
        for (let round = 0; round < 3; round++) {
          assert.equal(await socket.timeout(10_000).emitWithAck('echo-ack', round), round);
        }
        load.sessions++;
      } catch (error) {
        load.failures.push(`${JSON.stringify(kind.transports ?? 'default')} ${stage}: ${cause(error)}`);
      } finally {
        socket.close();
      }
    }
  };
  // Plain requests beside them: anything but 200 is a failure, a refused connection too.
  const requests = async () => {
    while (!load.stopped) {
      try {
        const response = await fetch(url, { headers: { connection: load.requests % 2 ? 'close' : 'keep-alive' } });
        await response.text();
        if (response.status !== 200) load.failures.push(`GET /: ${response.status}`);
        load.requests++;
      } catch (error) {
        load.failures.push(`GET /: ${error.cause?.code ?? error.message}`);
      }
      await sleep(5);
    }
  };
  return Promise.all([lane(0), lane(1), lane(2), requests()]);
}

test('ten reloads under a steady load of new sessions: no failed request', async (t) => {
  const cluster = await Cluster.start({ apps: [app({ sundew: { drainTimeout: 3000 } })] });
  t.after(() => cluster.close());
  const load = { sessions: 0, requests: 0, failures: [], stopped: false };
  const running = steady(cluster.url, load);
  t.after(() => (load.stopped = true));
  await until(10_000, 'load', () => load.sessions > 20);

  const seen = new Set((await cluster.workers()).map(({ pid }) => pid));
  for (let round = 1; round <= RELOADS; round++) {
    const before = load.sessions;
    const result = await cluster.sundew('reload', 'echo');
    assert.equal(result.code, 0, `reload ${round}: ${result.text}`);
    const workers = await cluster.workers();
    assert.equal(workers.length, 4);
    for (const { pid } of workers) {
      assert.ok(!seen.has(pid), `reload ${round} replaced every worker`);
      seen.add(pid);
    }
    await until(5000, 'the load goes on', () => load.sessions > before);
  }
  load.stopped = true;
  await running;
  t.diagnostic(`${load.sessions} sessions and ${load.requests} plain requests over ${RELOADS} reloads`);
  assert.deepEqual(load.failures, []);
});

test('reload --wait returns when the old workers are gone; their sessions reconnect by themselves', async (t) => {
  const cluster = await Cluster.start({ apps: [app({ sundew: { drainTimeout: 1500 } })] });
  t.after(() => cluster.close());
  const old = (await cluster.workers()).map(({ pid }) => pid);
  const sockets = [];
  for (const options of [...Object.values(MODES), ...Object.values(MODES)]) {
    sockets.push(await connect(cluster.url, { ...options, reconnection: true, reconnectionDelay: 100 }));
  }
  t.after(() => sockets.forEach((socket) => socket.close()));
  const reasons = [];
  sockets.forEach((socket) => socket.on('disconnect', (reason) => reasons.push(reason)));

  await cluster.ok('reload', 'echo', '--wait');
  assert.deepEqual(cluster.pids().filter((pid) => old.includes(pid)), [], 'the old workers are gone');
  await until(10_000, 'all are back', () => sockets.every((socket) => socket.connected));
  for (const reason of reasons) assert.ok(reason.startsWith('transport'), `let go so that clients come back, not "${reason}"`);
  for (const socket of sockets) assert.ok(!old.includes((await ask(socket, 'whoami')).pid));
});

const BAD = {
  'a program that crashes at start': { script: worker.ends('cannot read settings', 7), says: /7|exit/ },
  'a program that never gets ready': { script: worker.idles, says: /ready|listen/i },
  'a program that is not there': { script: undefined, says: /no such file|not.found|missing|does not exist/i },
};

for (const [what, { script: content, says }] of Object.entries(BAD)) {
  test(`reload to ${what}: old workers stay, exit code 1, a reason`, async (t) => {
    const folder = new Sandbox();
    t.after(() => folder.close());
    const script = program(folder);
    const cluster = await Cluster.start({ apps: [app({ script, instances: 2, listen_timeout: 1500 })] });
    t.after(() => cluster.close());
    const sockets = [await connect(cluster.url), await connect(cluster.url, MODES['polling only'])];
    t.after(() => sockets.forEach((socket) => socket.close()));
    const lost = [];
    sockets.forEach((socket) => socket.on('disconnect', (reason) => lost.push(reason)));
    const old = (await cluster.workers()).map(({ pid }) => pid);

    if (content) program(folder, content);
    else folder.remove(worker.file);
    const result = await cluster.sundew('reload', 'echo');
    assert.equal(result.code, 1, `exit code of:\n${result.text}`);
    assert.match(result.text, says);
    assert.match(result.text, /echo/, 'the message names the app');

    await sleep(500);
    assert.deepEqual((await cluster.workers()).map(({ pid }) => pid), old, 'the old workers are online');
    assert.deepEqual(lost, []);
    for (const socket of sockets) assert.equal(await ask(socket, 'echo-ack', 1), 1);
    const fresh = await connect(cluster.url);
    t.after(() => fresh.close());
    assert.ok(old.includes((await ask(fresh, 'whoami')).pid), 'new sessions are served');
    assert.equal(cluster.pids().filter((pid) => !old.includes(pid) && pid !== cluster.supervisor()).length, 0, 'nothing is left of the attempt');

    // And once the program is right again, the same command works.
    program(folder);
    await cluster.ok('reload', 'echo');
    const renewed = (await cluster.workers()).map(({ pid }) => pid);
    assert.ok(renewed.length === 2 && renewed.every((pid) => !old.includes(pid)));
  });
}

test('reloads leave nothing behind in the supervisor', async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.close());
  const supervisor = cluster.supervisor();
  await cluster.ok('reload', 'echo', '--wait');
  const before = openFiles(supervisor);
  for (let round = 0; round < 4; round++) await cluster.ok('reload', 'echo', '--wait');
  await until(5000, 'as many open files as before', () => openFiles(supervisor) <= before + 2);
});
