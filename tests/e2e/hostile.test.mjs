// Beside slow, broken and greedy clients, honest ones lose nothing, and wait no longer than beside as many honest requests.
//
// SUNDEW_HOSTILE=full has the full numbers (`cargo xtask bench hostile`): they take minutes and most of a machine.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ask, connect } from '../lib/client.mjs';
import { Cluster, app, root } from '../lib/cluster.mjs';
import { sleep, until } from '../lib/wait.mjs';
import { Wire } from '../lib/wire.mjs';

const FULL = process.env.SUNDEW_HOSTILE === 'full';
const HEADS = FULL ? 10_000 : 1000;
const RATE = Number(process.env.SUNDEW_HOSTILE_RATE ?? (FULL ? 3000 : 300));
/** Of unknown sessions alone: in full, what takes about half a core of the supervisor. */
const UNKNOWN_RATE = FULL ? 40_000 : RATE;
const SECONDS = FULL ? 20 : 3;
/** What a connection that waits may cost the supervisor, in bytes. */
const PER_CONNECTION = 4096;

const rss = (pid) => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;
/** CPU time, in seconds. */
const cpu = (pid) => {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
};

describe('a hostile front', () => {
  let cluster;
  before(async () => {
    // Heads that are held longer than the test takes: the worst case.
    cluster = await Cluster.start({ apps: [app({ instances: 2, sundew: { limits: { headTimeout: '10m', stallTimeout: '10m' } } })] });
  });
  after(() => cluster?.close());

  /** Runs hostile.mjs until the returned function is called; `counts()` is its last line. */
  const attack = async (options) => {
    const child = cluster.spawn(process.execPath, [path.join(root, 'tests/lib/hostile.mjs'), String(cluster.port), JSON.stringify(options)]);
    const counts = () => JSON.parse(child.output.trim().split('\n').at(-1) || '{}');
    // Of the others some are closed at any moment: they are answered early.
    const open = options.heads ?? 0;
    await until(FULL ? 120_000 : 30_000, `${open} connections`, () => counts().open >= open && (!options.rate || counts().answered > 0));
    return { counts, stop: () => (child.kill('SIGKILL'), child.ended) };
  };

  /** Round trips of honest sessions for some seconds, half of them by polling: their times, and what failed. */
  const honest = async () => {
    const sockets = await Promise.all(Array.from({ length: 10 }, (_, index) => connect(cluster.url, { transports: [index % 2 ? 'polling' : 'websocket'] })));
    const errors = [];
    const times = [];
    for (const socket of sockets) socket.on('disconnect', (reason) => errors.push(reason));
    const end = Date.now() + SECONDS * 1000;
    await Promise.all(sockets.map(async (socket) => {
      while (Date.now() < end) {
        const began = performance.now();
        await ask(socket, 'echo-ack', 'x').catch((error) => errors.push(error.message));
        times.push(performance.now() - began);
        await sleep(20);
      }
    }));
    for (const socket of sockets) socket.off('disconnect').close();
    times.sort((a, b) => a - b);
    const at = (share) => times[Math.floor(times.length * share)];
    return { errors, count: times.length, median: at(0.5), p99: at(0.99) };
  };

  const beside = async (options) => {
    const supervisor = cluster.supervisor();
    const { counts, stop } = await attack(options);
    const before = { cpu: cpu(supervisor), ...counts(), at: performance.now() };
    const result = await honest();
    const seconds = (performance.now() - before.at) / 1000;
    const last = counts();
    result.rate = (last.answered - before.answered) / seconds;
    result.core = (cpu(supervisor) - before.cpu) / seconds;
    await stop();
    return result;
  };
  const shown = ({ count, median, p99, rate, core }) => `${count} round trips, median ${median.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms; beside ${rate.toFixed(0)} requests/s, the supervisor took ${(core * 100).toFixed(0)} % of a core`;

  test(`${HEADS} slow heads: what they cost`, async (t) => {
    const supervisor = cluster.supervisor();
    const before = rss(supervisor);
    const { stop } = await attack({ heads: HEADS });
    const cost = (rss(supervisor) - before) / HEADS;
    t.diagnostic(`${cost.toFixed(0)} bytes of the supervisor's memory per connection`);
    assert.ok(cost < PER_CONNECTION, `${cost} bytes per connection`);
    const wire = await Wire.open(cluster.port);
    assert.equal((await wire.request('GET', '/').response()).status, 200);
    wire.destroy();
    await stop();
  });

  test('honest sessions beside all of it, and beside as many valid requests', async (t) => {
    const crowd = { rate: RATE, heads: HEADS, drips: 50, deaf: 20 };
    // As many requests, connections and writes.
    const valid = await beside({ ...crowd, kinds: ['missing', 'missing', 'once'], polite: true });
    const hostile = await beside({ ...crowd, kinds: ['unknown', 'unknown', 'broken'] });
    const missing = await beside({ rate: UNKNOWN_RATE, kinds: ['missing'] });
    const unknown = await beside({ rate: UNKNOWN_RATE, kinds: ['unknown'] });
    t.diagnostic(`beside valid requests: ${shown(valid)}`);
    t.diagnostic(`beside hostile ones: ${shown(hostile)}`);
    t.diagnostic(`beside valid requests alone: ${shown(missing)}`);
    t.diagnostic(`beside unknown sids alone: ${shown(unknown)}`);
    for (const { errors } of [valid, hostile, missing, unknown]) assert.deepEqual(errors, []);
    // How long a busy machine takes is not ours to say; a stall would be.
    assert.ok(hostile.p99 < 4 * valid.p99 + 200, `p99 ${hostile.p99} ms, beside valid requests ${valid.p99} ms`);
  });

  test('descriptors run out: sessions go on, and accepting does when there are some', async (t) => {
    const supervisor = cluster.supervisor();
    const socket = await connect(cluster.url, { transports: ['websocket'] });
    const poller = await connect(cluster.url, { transports: ['polling'] });
    t.after(() => (socket.close(), poller.close()));
    const open = () => fs.readdirSync(`/proc/${supervisor}/fd`).length;
    await until(30_000, 'what the others had open is closed', () => open() < 150, 200);
    const used = open();
    const limits = /Max open files\s+(\d+)\s+(\d+)/.exec(fs.readFileSync(`/proc/${supervisor}/limits`, 'utf8'));
    execFileSync('prlimit', ['--pid', String(supervisor), `--nofile=${used + 20}:${limits[2]}`]);
    const wires = await Promise.all(Array.from({ length: 60 }, () => Wire.open(cluster.port)));
    for (const wire of wires) wire.request('GET', '/');
    await sleep(1000);
    const answered = wires.filter((wire) => wire.buffer.length > 0).length;
    assert.ok(answered < 60, `${answered} of 60 answered: the limit is felt`);
    const before = cpu(supervisor);
    for (let round = 0; round < 10; round++) {
      await ask(socket, 'echo-ack', round);
      await sleep(50);
    }
    assert.ok(cpu(supervisor) - before < 1, 'and it does not spin');
    execFileSync('prlimit', ['--pid', String(supervisor), `--nofile=${limits[1]}:${limits[2]}`]);
    for (const wire of wires) {
      assert.equal((await wire.response()).status, 200);
      wire.destroy();
    }
    await ask(poller, 'echo-ack', 'still there');
    assert.ok(socket.connected && poller.connected);
  });
});
