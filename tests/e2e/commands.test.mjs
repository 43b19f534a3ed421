// The commands, with pm2's names, targets and exit codes, on a daemon; and `run`, as systemd and containers use it.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { MODES, ask, connect } from '../lib/client.mjs';
import { Cluster, Sandbox, app, echo, freePort, isRoot, root, sundew } from '../lib/cluster.mjs';
import { alive } from '../lib/proc.mjs';
import { once, sleep, until, within } from '../lib/wait.mjs';

const pidsOf = (workers) => workers.map(({ pid }) => pid);

/** A worker that says at its start what it was given, then serves. */
const TELLS = `#!/bin/sh
echo "instance=$NODE_APP_INSTANCE node_env=$NODE_ENV args=$*"
echo "to stderr from $NODE_APP_INSTANCE" >&2
exec ${echo}
`;

test('start, list, jlist, describe, stop, restart, delete, kill', async (t) => {
  const cluster = await Cluster.start({ daemon: true });
  t.after(() => cluster.close());
  const started = await cluster.workers();

  const list = await cluster.ok('list');
  for (const word of ['echo', 'cluster', 'online']) assert.match(list.stdout, new RegExp(word));
  for (const { pid } of started) assert.match(list.stdout, new RegExp(`\\b${pid}\\b`));
  assert.equal((await cluster.ok('ls')).stdout.includes('online'), true);
  assert.equal((await cluster.ok('status')).stdout.includes('online'), true);
  assert.doesNotMatch(list.stdout, /\x1b\[/, 'plain where there is no terminal');

  // The shape scripts around pm2 read.
  for (const entry of await cluster.list()) {
    assert.equal(entry.name, 'echo');
    assert.equal(typeof entry.pid, 'number');
    assert.equal(typeof entry.pm_id, 'number');
    assert.equal(entry.pm2_env.status, 'online');
    assert.equal(entry.pm2_env.exec_mode, 'cluster_mode');
    assert.equal(entry.pm2_env.restart_time, 0);
    assert.ok(entry.pm2_env.pm_uptime <= Date.now() + 1000);
    assert.ok(entry.monit.memory > 0);
    assert.equal(typeof entry.monit.cpu, 'number');
  }

  const described = await cluster.ok('describe', 'echo');
  assert.match(described.stdout, /script path/);
  assert.ok(described.stdout.includes(echo));

  // A file that runs already is restarted.
  await cluster.ok('start', cluster.config);
  await cluster.ready();
  const restarted = await cluster.workers();
  assert.equal(restarted.length, 4);
  assert.ok(pidsOf(restarted).every((pid) => !pidsOf(started).includes(pid)));

  await cluster.ok('restart', 'echo');
  await cluster.ready();
  assert.ok(pidsOf(await cluster.workers()).every((pid) => !pidsOf(restarted).includes(pid)));

  // One instance, by id.
  const before = await cluster.workers();
  await cluster.ok('restart', String(before[2].id));
  await cluster.ready();
  const changed = (await cluster.workers()).filter(({ pid }) => !pidsOf(before).includes(pid));
  assert.deepEqual(changed.map(({ id }) => id), [before[2].id]);

  await cluster.ok('stop', 'echo');
  assert.deepEqual((await cluster.list()).map(({ pm2_env }) => pm2_env.status), Array(4).fill('stopped'));
  assert.deepEqual(cluster.pids('echo'), [], 'stop returns when they are gone');
  await cluster.ok('restart', 'all');
  await cluster.ready();

  await cluster.ok('delete', 'echo');
  assert.deepEqual(await cluster.list(), []);
  assert.deepEqual(cluster.pids('echo'), []);
  assert.equal((await cluster.sundew('stop', 'all')).code, 1, 'nothing to stop');

  assert.match((await cluster.ok('ping')).stdout, /pong/);
  await cluster.ok('kill');
  await until(5000, 'the daemon is gone', () => cluster.pids().length === 0);
});

test('start PROGRAM -i N --name NAME, scale', async (t) => {
  const cluster = new Cluster();
  t.after(() => cluster.close());
  const port = await freePort();
  cluster.env.PORT = String(port);
  await cluster.ok('start', echo, '-i', '2', '--name', 'scaled');
  const count = async () => (await cluster.workers('scaled')).length;
  await until(10_000, 'two workers', async () => (await count()) === 2);
  const first = pidsOf(await cluster.workers('scaled'));

  const again = await cluster.sundew('start', echo, '--name', 'scaled');
  assert.equal(again.code, 1, 'same script and name online');

  const socket = await connect(`http://127.0.0.1:${port}`);
  t.after(() => socket.close());
  for (const [argument, wanted] of [['4', 4], ['+2', 6], ['-3', 3]]) {
    await cluster.ok('scale', 'scaled', argument);
    await until(15_000, `${wanted} workers`, async () => (await count()) === wanted);
  }
  const now = await cluster.workers('scaled');
  assert.deepEqual(now.map(({ instance }) => instance), [0, 1, 2]);
  assert.deepEqual(pidsOf(now).slice(0, 2), first, 'the first ones were never touched');
  assert.equal(await ask(socket, 'echo-ack', 1), 1);
  const seen = new Set();
  for (let round = 0; round < 12; round++) {
    const each = await connect(`http://127.0.0.1:${port}`, MODES['websocket only']);
    seen.add((await ask(each, 'whoami')).pid);
    each.close();
  }
  assert.ok([...seen].every((pid) => pidsOf(now).includes(pid)));
});

test('env, env_NAME, args, instance variable, logs', async (t) => {
  const sandbox = new Sandbox();
  t.after(() => sandbox.close());
  sandbox.file('worker', TELLS, 0o755);
  const settings = app({
    name: 'ws',
    script: './worker',
    instances: 4,
    args: ['--flag', 'two words'],
    env: { NODE_ENV: 'development', PORT: await freePort() },
    env_production: { NODE_ENV: 'production' },
    max_restarts: 3,
    log_date_format: 'YYYY-MM-DD HH:mm Z',
    combine_logs: true,
  });
  const config = sandbox.file('pm2.json', { apps: [settings] });
  const says = async (pattern, lines = 100) => {
    await until(10_000, `a log line like ${pattern}`, async () =>
      pattern.test((await sandbox.ok('logs', '--nostream', '--lines', String(lines))).stdout),
    );
  };

  await sandbox.ok('start', config);
  for (const instance of [0, 1, 2, 3]) await says(new RegExp(`instance=${instance} node_env=development args=--flag two words`));
  await says(/to stderr from 3/);

  // combine_logs: one file for all instances, each line stamped.
  const logs = path.join(sandbox.home, 'logs');
  assert.deepEqual(fs.readdirSync(logs).filter((name) => name.startsWith('ws')).sort(), ['ws-error.log', 'ws-out.log']);
  const lines = fs.readFileSync(path.join(logs, 'ws-out.log'), 'utf8').trim().split('\n').filter((line) => line.includes('instance='));
  assert.equal(lines.length, 4);
  for (const line of lines) assert.match(line, /^\d{4}-\d\d-\d\d \d\d:\d\d [+-]\d\d:\d\d: instance=/);

  const tail = (await sandbox.ok('logs', 'ws', '--nostream', '--lines', '1')).stdout;
  // One line a file: the last of the output, the last of the errors.
  const out = tail.split('\n').filter((line) => line && !line.includes('to stderr'));
  assert.equal(out.length, 1, tail);

  await sandbox.ok('start', config, '--env', 'production');
  await says(/node_env=production/);

  // Following: what is written from now on arrives.
  const follower = sandbox.spawn(sundew, ['logs', 'ws', '--lines', '0']);
  await sleep(500);
  await sandbox.ok('restart', 'ws');
  await until(10_000, 'the follower sees the restart', () => /instance=2 node_env/.test(follower.output));
  follower.kill('SIGINT');
  await within(5000, 'the follower ends', follower.ended);
});

test('SUNDEW_HOME isolates a daemon completely; its folder is private', async (t) => {
  const one = await Cluster.start({ daemon: true, apps: [app({ instances: 1 })] });
  t.after(() => one.close());
  const two = await Cluster.start({ daemon: true, apps: [app({ instances: 1 })] });
  t.after(() => two.close());
  assert.notEqual(one.supervisor(), two.supervisor());
  await two.ok('delete', 'all');
  assert.equal((await one.workers()).length, 1);
  assert.equal(fs.statSync(one.home).mode & 0o777, 0o700);
  assert.equal(fs.statSync(path.join(one.home, 'sundew.sock')).mode & 0o077, 0);
  await two.ok('kill');
  assert.equal((await one.workers()).length, 1);
});

test('run: SIGTERM drains, and exits 0', async (t) => {
  const cluster = await Cluster.start({ apps: [app({ sundew: { drainTimeout: 2000 } })] });
  t.after(() => cluster.close());
  const sockets = [await connect(cluster.url), await connect(cluster.url, MODES['websocket only'])];
  t.after(() => sockets.forEach((socket) => socket.close()));
  const left = Promise.all(sockets.map((socket) => once(socket, 'disconnect', 10_000)));
  const inFlight = ask(sockets[0], 'echo-ack', 'last words');
  cluster.child.kill('SIGTERM');
  assert.equal(await inFlight, 'last words');
  const { code, signal } = await within(15_000, 'the end', cluster.child.ended);
  assert.deepEqual({ code, signal }, { code: 0, signal: null }, cluster.child.output);
  for (const [reason] of await left) assert.ok(reason.startsWith('transport'), reason);
  assert.deepEqual(cluster.pids(), []);
});

test('run: the first Ctrl-C drains, the second ends at once', async (t) => {
  const cluster = await Cluster.start({ apps: [app({ sundew: { drainTimeout: 60_000 } })] });
  t.after(() => cluster.close());
  const socket = await connect(cluster.url, MODES['websocket only']);
  t.after(() => socket.close());
  cluster.child.kill('SIGINT');
  await sleep(1500);
  assert.equal(cluster.child.exitCode, null, 'draining: a session is left');
  assert.equal(await ask(socket, 'echo-ack', 1), 1, 'and it works');
  const second = Date.now();
  cluster.child.kill('SIGINT');
  await within(5000, 'the end', cluster.child.ended);
  assert.ok(Date.now() - second < 4000);
  await until(2000, 'nobody is left', () => cluster.pids().length === 0);
});

test('run: workers of both kinds of output are on stdout, named', async (t) => {
  const sandbox = new Sandbox();
  t.after(() => sandbox.close());
  const script = sandbox.file('worker', TELLS, 0o755);
  const cluster = await Cluster.start({ apps: [app({ script, instances: 2 })] });
  t.after(() => cluster.close());
  await until(5000, 'the output', () => /echo.*instance=1/.test(cluster.child.output) && /to stderr from 0/.test(cluster.child.output));
});

test('run as PID 1 reaps what others leave behind', { skip: !isRoot && 'needs root for a pid namespace' }, async (t) => {
  const sandbox = new Sandbox();
  t.after(() => sandbox.close());
  // Each leaves an orphan that ends soon after: without a reaper, a zombie.
  const script = sandbox.file('worker', `#!/bin/sh\n(sleep 0.3 & sleep 0.3 & sleep 0.3 &)\nexec ${echo}\n`, 0o755);
  const port = await freePort();
  const config = sandbox.file('pm2.json', { apps: [app({ script, instances: 2, env: { PORT: port } })] });
  const child = sandbox.spawn('unshare', ['--pid', '--fork', '--kill-child', '--mount-proc', sundew, 'run', config]);
  await until(15_000, 'an answer', async () => (await fetch(`http://127.0.0.1:${port}/`)).ok);
  await sleep(1500);
  const [init] = sandbox.pids('sundew');
  // Each thread lists the children it started itself.
  const children = fs
    .readdirSync(`/proc/${init}/task`)
    .flatMap((thread) => fs.readFileSync(`/proc/${init}/task/${thread}/children`, 'utf8').trim().split(' '))
    .filter(Boolean)
    .map(Number);
  assert.equal(children.filter((pid) => !alive(pid)).length, 0, 'no zombies');
  assert.equal(children.length, 2, 'the workers, nobody else');
  process.kill(init, 'SIGTERM');
  const { code } = await within(10_000, 'the end', child.ended);
  assert.equal(code, 0, child.output);
});

test('the examples start from the root of the repository and from their own folder', async () => {
  for (const name of ['chat', 'echo']) {
    for (const [cwd, file] of [[root, `examples/${name}/pm2.json`], [path.join(root, 'examples', name), 'pm2.json']]) {
      const sandbox = new Sandbox();
      const port = await freePort();
      const child = sandbox.spawn(sundew, ['run', file], { cwd, env: { PORT: String(port) } });
      try {
        await until(15_000, `${file} from ${cwd}`, async () => {
          if (child.exitCode !== null) throw new Error(child.output);
          return (await fetch(`http://127.0.0.1:${port}/${name === 'chat' ? 'page' : ''}`)).ok;
        });
        assert.equal((await sandbox.list()).length, 4);
      } finally {
        await sandbox.close();
      }
    }
  }
});

test('start FILE again applies what has changed: another port, another affinity', async (t) => {
  const [first, second] = [await freePort(), await freePort()];
  const cluster = await Cluster.start({ daemon: true, apps: [app({ instances: 2, env: { PORT: first } })] });
  t.after(() => cluster.close());
  const config = cluster.file('pm2.json', {
    apps: [app({ instances: 2, env: { PORT: second }, sundew: { affinity: 'none', balance: 'round-robin' } })],
  });
  await cluster.ok('start', config);
  await until(5000, 'an answer on the new port', async () => (await fetch(`http://127.0.0.1:${second}/`)).ok);
  const tcp = new Promise((resolve, reject) => {
    const probe = net.connect(first, '127.0.0.1').once('error', reject);
    probe.once('connect', () => resolve(probe.destroy()));
  });
  await assert.rejects(tcp, /ECONNREFUSED/, 'the old port is closed');
  const handshake = await fetch(`http://127.0.0.1:${second}/socket.io/?EIO=4&transport=polling`, { headers: { connection: 'close' } });
  const { sid } = JSON.parse((await handshake.text()).slice(1));
  // Without affinity one of two requests in turn meets the other worker.
  const statuses = new Set();
  for (let turn = 0; turn < 2; turn++) {
    const url = `http://127.0.0.1:${second}/socket.io/?EIO=4&transport=polling&sid=${sid}`;
    const answer = await fetch(url, { method: 'POST', body: '3', headers: { connection: 'close' } });
    statuses.add(answer.status);
  }
  assert.ok(statuses.has(400), `affinity none is in force: ${[...statuses]}`);
  const refused = await cluster.sundew('reload', cluster.file('pm2.json', { apps: [app({ instances: 2, env: { PORT: second } })] }));
  assert.equal(refused.code, 1, refused.text);
  assert.match(refused.text, /affinity.*sundew start/s);
});
