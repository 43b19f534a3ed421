// Mistakes in files and commands: each has its own answer that names what is wrong and where, the exit code is 1, and a
// good app in the same daemon does not notice.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ask, connect } from '../lib/client.mjs';
import { Cluster, Sandbox, app, echo, freePort, isRoot } from '../lib/cluster.mjs';
import { sleep, until } from '../lib/wait.mjs';

describe('bad input, beside a good app', () => {
  let cluster;
  let socket;
  let pids;
  before(async () => {
    cluster = await Cluster.start({ apps: [app({ name: 'good', instances: 2 })], daemon: true });
    socket = await connect(cluster.url);
    pids = (await cluster.workers('good')).map(({ pid }) => pid);
  });
  after(async () => {
    socket?.close();
    await cluster?.close();
  });

  /** Runs a command that must fail, and checks that the good app is as it was. */
  async function refused(args, ...says) {
    const result = await cluster.sundew(...args);
    assert.equal(result.code, 1, `exit code of sundew ${args.join(' ')}:\n${result.text}`);
    for (const pattern of says) assert.match(result.text, pattern);
    assert.doesNotMatch(result.text, /panicked|RUST_BACKTRACE/);
    assert.equal(socket.connected, true);
    assert.equal(await ask(socket, 'echo-ack', 1), 1);
    assert.deepEqual((await cluster.workers('good')).map(({ pid }) => pid), pids);
    return result;
  }

  const file = (content) => cluster.file('bad.json', content);
  const bad = async (settings) => file({ apps: [app({ name: 'bad', instances: 1, env: { PORT: await freePort() }, ...settings })] });
  /** Whatever a refused start left in the list goes before the next test. */
  const forget = () => cluster.sundew('delete', 'bad');

  for (const command of ['start', 'run']) {
    test(`${command}: no such file`, () => refused([command, './nowhere.json'], /nowhere\.json/, /no such file|not found|does not exist/i));

    test(`${command}: broken JSON says line and column`, () =>
      refused([command, file('{ "apps": [\n  { "name": "bad",\n    "script" "./x" }\n] }\n')], /bad\.json/, /\b3\b.{0,20}\b1[34]\b/));

    test(`${command}: no apps in it`, () => refused([command, file('{ "aps": [] }')], /bad\.json/, /apps/));

    test(`${command}: script missing`, async () => refused([command, await bad({ script: './no-such-program' })], /no-such-program/, /bad/));

    test(`${command}: script is not executable`, async () => {
      const script = cluster.file('plain.txt', 'hello', 0o644);
      await refused([command, await bad({ script })], /plain\.txt/, /execut|chmod/i);
    });

    for (const instances of [1.5, 'many', 100_000]) {
      test(`${command}: instances: ${JSON.stringify(instances)}`, async () =>
        refused([command, await bad({ instances })], /instances/, new RegExp(String(instances).replace('.', '\\.'))));
    }

    test(`${command}: a wrong type names the key`, async () => refused([command, await bad({ args: { a: 1 } })], /args/));
  }

  test('start: port taken by another program', async (t) => {
    const holder = net.createServer();
    const port = await freePort();
    await new Promise((resolve) => holder.listen(port, resolve));
    t.after(() => holder.close());
    t.after(forget);
    await refused(['start', await bad({ env: { PORT: port }, max_restarts: 2, restart_delay: 50 })], new RegExp(`${port}`), /in use|taken|already/i);
  });

  test('start: two apps on one port', async (t) => {
    t.after(forget);
    await refused(
      ['start', await bad({ env: { PORT: cluster.port }, max_restarts: 2, restart_delay: 50 })],
      new RegExp(`${cluster.port}`),
      /good/,
    );
  });

  test('start: the same script and name is online already', () =>
    refused(['start', echo, '--name', 'good'], /good/, /-f|--force|already|restart/));

  test('a name that is not there', async () => {
    for (const command of ['stop', 'restart', 'reload', 'delete', 'describe']) await refused([command, 'nobody'], /nobody/);
    await refused(['scale', 'nobody', '2'], /nobody/);
  });

  test('scale to nonsense', async () => {
    await refused(['scale', 'good', 'lots'], /lots/);
    await refused(['scale', 'good', '-5'], /5|instance/);
  });

  test('an unknown command and an unknown flag', async () => {
    await refused(['relaod', 'good'], /reload/);
    await refused(['reload', 'good', '--wiat'], /--wait/);
  });

  test('an unknown key is reported with the nearest known one, a known key not built yet by name; both start', async (t) => {
    t.after(forget);
    const result = await cluster.ok('start', await bad({ instnaces: 4, max_memory_restart: '300M', sundew: { drainTimout: 5 } }));
    assert.match(result.text, /instnaces.*\binstances\b/s);
    assert.match(result.text, /max_memory_restart/);
    assert.match(result.text, /drainTimout.*\bdrainTimeout\b/s);
    assert.equal((await cluster.workers('bad')).length, 1);
  });

  test('a daemon that is not there', async () => {
    const other = new Sandbox();
    try {
      const ping = await other.sundew('ping');
      const list = await other.sundew('stop', 'good');
      assert.equal(list.code, 1, list.text);
      assert.doesNotMatch(ping.text + list.text, /panicked/);
    } finally {
      await other.close();
    }
  });
});

test('a program that binds by itself under the supervisor is told so', async (t) => {
  const sandbox = new Sandbox();
  t.after(() => sandbox.close());
  const port = await freePort();
  const script = sandbox.file('binds', `#!${process.execPath}\nrequire('net').createServer().listen(${port});\n`, 0o755);
  const config = sandbox.file('pm2.json', { apps: [app({ script, instances: 1, listen_timeout: 1500, max_restarts: 1, sundew: { kind: 'native' } })] });
  const result = await sandbox.sundew('start', config);
  assert.equal(result.code, 1, result.text);
  assert.match(result.text, /bind|listen|ready/i);
});

test('full disk under the logs: workers go on, and logging with them once there is room', { skip: !isRoot && 'needs root to mount' }, async (t) => {
  const sandbox = new Sandbox();
  const disk = path.join(sandbox.dir, 'disk');
  fs.mkdirSync(disk);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', disk]);
  t.after(async () => {
    execFileSync('umount', ['-l', disk]);
    await sandbox.close();
  });
  // A talkative worker: 20 KB a second from a child that shares its output.
  const line = 'x'.repeat(199);
  const script = sandbox.file('talkative', `#!/bin/sh\n(while sleep 0.05; do for i in 1 2 3 4 5; do echo ${line}; done; done) &\nexec ${echo}\n`, 0o755);
  const out = path.join(disk, 'out.log');
  const settings = { script, instances: 2, out_file: out, error_file: path.join(disk, 'err.log'), combine_logs: true };
  const cluster = await Cluster.start({ apps: [app(settings)] });
  t.after(() => cluster.close());
  const socket = await connect(cluster.url);
  t.after(() => socket.close());
  let lost;
  socket.on('disconnect', (reason) => (lost = reason));
  const pids = (await cluster.workers()).map(({ pid }) => pid);

  await until(30_000, 'the disk is full', () => {
    const { bavail } = fs.statfsSync(disk);
    return bavail === 0;
  }, 100);
  // Long enough for any pipe (64 KiB) to fill, if nobody read it.
  for (let second = 0; second < 8; second++) {
    assert.equal(await ask(socket, 'echo-ack', second), second);
    const response = await fetch(cluster.url);
    assert.equal(response.status, 200);
    await sleep(1000);
  }
  assert.equal(lost, undefined);
  assert.deepEqual((await cluster.workers()).map(({ pid }) => pid), pids);

  fs.truncateSync(out, 0);
  await until(10_000, 'logging goes on', () => fs.statSync(out).size > 1000);
  assert.deepEqual((await cluster.workers()).map(({ pid }) => pid), pids);
});
