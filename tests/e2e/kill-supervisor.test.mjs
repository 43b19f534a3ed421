// kill -9 of the supervisor: native workers let their sessions go and exit by the drain deadline, nobody is left over,
// and the next start works at once, stale files and draining workers or not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MODES, ask, connect } from '../lib/client.mjs';
import { Cluster, app } from '../lib/cluster.mjs';
import { once, until } from '../lib/wait.mjs';

const DRAIN = 3000;
/** What the workers may need beyond the deadline on a busy machine. */
const SLACK = 4000;

for (const daemon of [true, false]) {
  test(`kill -9 of ${daemon ? 'the daemon' : '`sundew run`'}`, async (t) => {
    const cluster = await Cluster.start({ apps: [app({ sundew: { drainTimeout: DRAIN } })], daemon });
    t.after(() => cluster.close());
    const sockets = [];
    for (const options of [MODES['websocket only'], MODES['websocket only'], MODES.default, MODES.default]) {
      sockets.push(await connect(cluster.url, options));
    }
    t.after(() => sockets.forEach((socket) => socket.close()));
    const left = Promise.all(sockets.map((socket) => once(socket, 'disconnect', DRAIN + SLACK)));
    const workers = (await cluster.workers()).map(({ pid }) => pid);
    assert.equal(workers.length, 4);

    const killed = Date.now();
    process.kill(cluster.supervisor(), 'SIGKILL');

    // At once: the same file, the same port, while the old workers still drain.
    cluster.child = undefined;
    const started = await cluster.sundew('start', cluster.config);
    assert.equal(started.code, 0, started.text);
    await cluster.ready(10_000);
    const fresh = await connect(cluster.url);
    t.after(() => fresh.close());
    const { pid } = await ask(fresh, 'whoami');
    assert.ok(!workers.includes(pid), 'served by a new worker');

    for (const [reason] of await left) {
      assert.ok(reason.startsWith('transport'), `"${reason}" lets the client reconnect ("io server disconnect" would not)`);
    }
    const orphans = () => cluster.pids().filter((pid) => workers.includes(pid));
    await until(DRAIN + SLACK, 'the old workers are gone', () => orphans().length === 0);
    t.diagnostic(`the last old worker left after ${Date.now() - killed} ms with drainTimeout ${DRAIN}`);

    const again = await connect(cluster.url, MODES['websocket only']);
    t.after(() => again.close());
    assert.equal(await ask(again, 'echo-ack', 'works'), 'works');
    assert.equal(fresh.connected, true, 'a session of the new workers is untouched');
  });
}
