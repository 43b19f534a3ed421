// A cluster of the real `sundew` binary with a SUNDEW_HOME and ports of its own, gone without a trace afterwards.
//
// Everything a test starts carries SUNDEW_TEST=<id> in its environment. Clean-up finds it by that mark, whatever became
// of the supervisor, and kills it by pid.

import { execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { bin, root } from './paths.mjs';
import { alive, pidsWith, program } from './proc.mjs';
import { sleep, until } from './wait.mjs';
import { app } from './workers.mjs';

export * from './paths.mjs';
export * from './workers.mjs';
export const sundew = path.join(bin, 'sundew');
export const isRoot = process.getuid() === 0;

const [firstPort, lastPort] = (process.env.SUNDEW_TEST_PORTS ?? '20000-29999').split('-').map(Number);
const handedOut = new Set();

/** A port nobody listens on, outside the range the kernel takes client ports from. */
export async function freePort() {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = firstPort + Math.floor(Math.random() * (lastPort - firstPort + 1));
    if (handedOut.has(port)) continue;
    const free = await new Promise((resolve) => {
      const server = net.createServer().once('error', () => resolve(false));
      server.listen(port, () => server.close(() => resolve(true)));
    });
    if (!free) continue;
    handedOut.add(port);
    return port;
  }
  throw new Error(`no free port in ${firstPort}-${lastPort}`);
}

/** The first of so many free ports in a row. */
export async function freePorts(count) {
  for (;;) {
    const first = await freePort();
    const others = Array.from({ length: count - 1 }, (_, index) => first + 1 + index);
    const free = await Promise.all(others.map((port) => new Promise((resolve) => {
      const server = net.createServer().once('error', () => resolve(false));
      server.listen(port, () => server.close(() => resolve(true)));
    })));
    if (!free.every(Boolean) || others.some((port) => handedOut.has(port))) continue;
    others.forEach((port) => handedOut.add(port));
    return first;
  }
}

const running = new Set();
process.once('exit', () => running.forEach((sandbox) => sandbox.killAll()));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));

/** A folder and a mark; whatever is started through it ends with it. */
export class Sandbox {
  constructor() {
    this.id = randomUUID();
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sundew-test-'));
    this.home = path.join(this.dir, 'home');
    const { PORT, NODE_APP_INSTANCE, ...inherited } = process.env;
    this.env = { ...inherited, SUNDEW_HOME: this.home, SUNDEW_TEST: this.id };
    running.add(this);
  }

  /** Writes a file into the sandbox's folder. */
  file(name, content, mode = 0o644) {
    const file = path.join(this.dir, name);
    // Renamed into place: a program that runs from the old file is not disturbed.
    fs.writeFileSync(`${file}.new`, typeof content === 'string' ? content : JSON.stringify(content, null, 2));
    fs.chmodSync(`${file}.new`, mode);
    fs.renameSync(`${file}.new`, file);
    return file;
  }

  /** Writes programs that find the packages of the tests. */
  files(files) {
    const packages = path.join(this.dir, 'node_modules');
    if (!fs.existsSync(packages)) fs.symlinkSync(path.join(root, 'tests/node_modules'), packages);
    for (const [name, content] of Object.entries(files)) this.file(name, content);
  }

  remove(name) {
    fs.rmSync(path.join(this.dir, name));
  }

  /** Starts a program; its output is collected in `child.output`. */
  spawn(command, args = [], options = {}) {
    const child = spawn(command, args, {
      cwd: this.dir,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...options,
      env: { ...this.env, ...options.env },
    });
    child.output = '';
    // Bounded: a test that logs without end must not take the runner down.
    const collect = (text) => {
      child.output = (child.output + text).slice(-200_000);
    };
    child.stdout.setEncoding('utf8').on('data', collect);
    child.stderr.setEncoding('utf8').on('data', collect);
    child.ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }));
      child.once('error', (error) => resolve({ error }));
    });
    return child;
  }

  /** Runs `sundew ARGS` to its end. Never throws: the exit code is part of what is tested. */
  sundew(...args) {
    const options = { cwd: this.dir, env: this.env, timeout: 90_000, killSignal: 'SIGKILL', maxBuffer: 32 << 20 };
    return new Promise((resolve) => {
      execFile(sundew, args, options, (error, stdout, stderr) => {
        const code = error ? (typeof error.code === 'number' ? error.code : (error.signal ?? error.code)) : 0;
        resolve({ code, stdout, stderr, text: stdout + stderr });
      });
    });
  }

  /** Runs `sundew ARGS` and fails unless it exits 0. */
  async ok(...args) {
    const result = await this.sundew(...args);
    if (result.code !== 0) throw new Error(`sundew ${args.join(' ')} exited with ${result.code}:\n${result.text}`);
    return result;
  }

  /** What `sundew jlist` says. */
  async list() {
    return JSON.parse((await this.ok('jlist')).stdout);
  }

  /** The living pids of the sandbox that run `name`. */
  pids(name) {
    return pidsWith(`SUNDEW_TEST=${this.id}`).filter((pid) => alive(pid) && (!name || program(pid) === name));
  }

  killAll(name) {
    for (const pid of this.pids(name)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // gone already
      }
    }
  }

  async close() {
    // A supervisor that is killed first cannot respawn what is killed next.
    this.killAll('sundew');
    for (let round = 0; round < 50 && this.pids().length > 0; round++) {
      this.killAll();
      await sleep(50);
    }
    running.delete(this);
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Apps under a supervisor, ready to be connected to. */
export class Cluster extends Sandbox {
  /**
   * Starts `apps` (by default one echo with four workers) and waits until each worker is online.
   * `daemon`: with `sundew start` instead of `sundew run`. `files`: programs of the test's own, by name, that find the
   * packages of the tests. `answers: false`: its ports do not speak plain HTTP. `prepare`: is given the sandbox first.
   */
  static async start({ apps = [app()], daemon = false, files = {}, answers = true, prepare } = {}) {
    const cluster = new Cluster();
    try {
      cluster.answers = answers;
      cluster.files(files);
      prepare?.(cluster);
      cluster.apps = [];
      for (const settings of apps) {
        const port = settings.env?.PORT ?? (await freePort());
        cluster.apps.push({ ...settings, env: { ...settings.env, PORT: port } });
      }
      cluster.port = cluster.apps[0].env.PORT;
      cluster.url = `http://127.0.0.1:${cluster.port}`;
      cluster.config = cluster.file('pm2.json', { apps: cluster.apps });
      if (daemon) await cluster.ok('start', cluster.config);
      else cluster.child = cluster.spawn(sundew, ['run', cluster.config]);
      await cluster.ready();
      return cluster;
    } catch (error) {
      const output = cluster.child?.output ? `\n--- output of sundew run\n${cluster.child.output}` : '';
      await cluster.close();
      throw new Error(`${error.message}${output}`);
    }
  }

  /** Every worker online and every port answering. */
  async ready(ms = 30_000) {
    const wanted = this.apps.reduce((sum, { instances }) => sum + instances, 0);
    await until(ms, `${wanted} workers online`, async () => {
      if (this.child && this.child.exitCode !== null) return true;
      return (await this.workers()).length === wanted;
    });
    if (this.child && this.child.exitCode !== null) throw new Error(`sundew run exited with ${this.child.exitCode}`);
    for (const { env } of this.answers ? this.apps : []) {
      await until(5000, `an answer on port ${env.PORT}`, async () => (await fetch(`http://127.0.0.1:${env.PORT}/`)).ok);
    }
  }

  /** Online workers as `{ name, instance, pid, restarts }`, in the order of their instance. */
  async workers(name) {
    return (await this.list())
      .filter((entry) => entry.pm2_env.status === 'online' && (!name || entry.name === name))
      .map((entry) => ({
        name: entry.name,
        id: entry.pm_id,
        instance: Number(entry.pm2_env.NODE_APP_INSTANCE ?? entry.pm2_env.env?.NODE_APP_INSTANCE),
        pid: entry.pid,
        restarts: entry.pm2_env.restart_time,
      }))
      .sort((a, b) => a.instance - b.instance);
  }

  /** The pid of the supervisor. */
  supervisor() {
    const [pid] = this.pids('sundew');
    if (!pid) throw new Error('the supervisor is not running');
    return pid;
  }
}
