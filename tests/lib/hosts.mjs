// Several hosts on one machine: network namespaces on a bridge, a daemon in each, a balancer that knows nothing of
// sessions in front of them. Needs root.

import { execFileSync } from 'node:child_process';
import net from 'node:net';
import path from 'node:path';
import { Sandbox, freePort, sundew } from './cluster.mjs';
import { until } from './wait.mjs';
import { app } from './workers.mjs';

const ip = (...args) => execFileSync('ip', args, { stdio: ['ignore', 'pipe', 'pipe'] });

/** Where the apps of every host are served. */
const PORT = 8080;
/** Where the nodes listen for each other. */
const NODE_PORT = 7465;

const networks = new Set();
let made = 0;
process.once('exit', () => networks.forEach((network) => network.close()));

/** A bridge with namespaces on it. */
class Network {
  constructor(cleanup) {
    this.cleanup = cleanup;
    // Names of interfaces are short, and another run may be under way.
    this.tag = `sd${(process.pid % 0xffff).toString(36)}${made}`;
    this.subnet = `10.${99 + made++}.${process.pid % 254}`;
    this.names = [];
    networks.add(this);
    ip('link', 'add', this.tag, 'type', 'bridge');
    ip('addr', 'add', `${this.subnet}.1/24`, 'dev', this.tag);
    ip('link', 'set', this.tag, 'up');
  }

  /** Adds a host with this last number of its address. */
  host(number) {
    const name = `${this.tag}-${number}`;
    ip('netns', 'add', name);
    this.names.push(name);
    ip('link', 'add', `${this.tag}.${number}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
    ip('link', 'set', `${this.tag}.${number}`, 'master', this.tag, 'up');
    ip('-n', name, 'link', 'set', 'lo', 'up');
    ip('-n', name, 'link', 'set', 'eth0', 'up');
    ip('-n', name, 'addr', 'add', `${this.subnet}.${number}/24`, 'dev', 'eth0');
    return name;
  }

  close() {
    if (!networks.delete(this)) return;
    this.cleanup();
    for (const name of this.names) {
      try {
        // A namespace lives as long as a process in it: its end of the cable goes first.
        ip('link', 'del', name.replace('-', '.'));
        ip('netns', 'del', name);
      } catch {
        // somebody was faster
      }
    }
    ip('link', 'del', this.tag);
  }
}

/** One host: its daemon, in a namespace of its own. */
class Host extends Sandbox {
  constructor(hosts, index) {
    super();
    this.files({});
    this.hosts = hosts;
    this.index = index;
    this.number = 11 + index;
    this.namespace = hosts.network.host(this.number);
  }

  get address() {
    return `${this.hosts.network.subnet}.${this.number}`;
  }

  get url() {
    return `http://${this.address}:${PORT}`;
  }

  inside(...args) {
    return ip('netns', 'exec', this.namespace, ...args);
  }

  run() {
    const { settings, cluster } = this.hosts;
    const config = this.file('pm2.json', {
      apps: [app({ instances: 2, ...settings, env: { ...settings?.env, PORT } })],
      sundew: { cluster },
    });
    this.child = this.spawn('ip', ['netns', 'exec', this.namespace, sundew, 'run', config]);
  }

  /** What `sundew nodes --json` says. */
  async nodes() {
    return JSON.parse((await this.ok('nodes', '--json')).stdout);
  }

  /** The numbers of the nodes it can reach. */
  async reaches() {
    return (await this.nodes()).nodes.filter(({ state }) => state === 'up').map(({ number }) => number);
  }

  /** The sum of a counter over its apps. */
  async counted(name) {
    return (await this.nodes()).apps.reduce((sum, traffic) => sum + traffic[name], 0);
  }

  /** Everything that runs here dies at once, as the host does. */
  die() {
    this.killAll('sundew');
    this.killAll();
  }

  /** No packet leaves for this address any more. */
  cut(address) {
    ip('-n', this.namespace, 'route', 'add', 'blackhole', `${address}/32`);
  }

  heal(address) {
    ip('-n', this.namespace, 'route', 'del', 'blackhole', `${address}/32`);
  }

  /** Moves the host to another address. Nothing may run on it. */
  move(number) {
    ip('-n', this.namespace, 'addr', 'del', `${this.address}/24`, 'dev', 'eth0');
    this.number = number;
    ip('-n', this.namespace, 'addr', 'add', `${this.address}/24`, 'dev', 'eth0');
  }
}

/** Hosts that are one cluster, with Redis on another one and HAProxy in front. */
export class Hosts {
  /** `cluster`: settings beside secret and registry; `settings`: the app's. */
  static async start({ count = 3, cluster = {}, settings } = {}) {
    const hosts = new Hosts();
    try {
      hosts.network = new Network(() => hosts.stopRedis?.());
      hosts.others = new Sandbox();
      await hosts.redis();
      hosts.settings = settings;
      const registry = `redis://${hosts.redisAddress}:6379`;
      hosts.cluster = { secret: hosts.others.id, registry, heartbeat: 200, expiry: 1500, ...cluster };
      hosts.all = Array.from({ length: count }, (_, index) => new Host(hosts, index));
      hosts.all.forEach((host) => host.run());
      await hosts.joined();
      hosts.url = await hosts.balance();
      return hosts;
    } catch (error) {
      const output = hosts.all?.map((host) => host.child?.output).join('\n---\n');
      await hosts.close();
      throw new Error(`${error.message}\n${output}`);
    }
  }

  async redis() {
    const namespace = this.network.host(2);
    this.redisAddress = `${this.network.subnet}.2`;
    const args = ['--bind', this.redisAddress, '--port', '6379', '--save', '', '--protected-mode', 'no'];
    const child = this.others.spawn('ip', ['netns', 'exec', namespace, 'redis-server', ...args]);
    // It writes over its environment, where the mark is.
    this.stopRedis = () => child.kill('SIGKILL');
    await until(5000, 'redis', () => child.output.includes('Ready to accept connections'));
  }

  /** Every node reaches every other one, and serves. */
  async joined(all = this.all) {
    for (const host of all) {
      await until(20_000, `node ${host.index} reaches the others and serves`, async () => {
        if (host.child.exitCode !== null) throw new Error('sundew run has ended');
        if ((await host.reaches()).length !== all.length - 1) return false;
        return (await fetch(`${host.url}/`)).ok;
      });
    }
  }

  /** HAProxy: one connection to each host in turn; or, by `source`, each client to one host. Gives its URL. */
  async balance(way = 'roundrobin') {
    const port = await freePort();
    const servers = this.all.map((host) => `  server n${host.index} ${host.address}:${PORT} check inter 200ms fall 1 rise 1`);
    const config = this.others.file(`${way}.cfg`, [
      'global',
      '  maxconn 8000',
      `  stats socket ${path.join(this.others.dir, `${way}.sock`)}`,
      'defaults',
      '  mode tcp',
      '  timeout connect 2s',
      '  timeout client 60s',
      '  timeout server 60s',
      'listen sundew',
      `  bind 127.0.0.1:${port}`,
      `  balance ${way}`,
      '  hash-type consistent',
      '  option redispatch 1',
      ...servers,
      '',
    ].join('\n'));
    const url = `http://127.0.0.1:${port}`;
    this.others.spawn('haproxy', ['-db', '-f', config]);
    await until(5000, 'haproxy', async () => (await fetch(url)).ok);
    return url;
  }

  /** By which host each of the balancer's connections goes, by the client's port. */
  async through() {
    const table = await new Promise((resolve, reject) => {
      let text = '';
      const socket = net.connect(path.join(this.others.dir, 'roundrobin.sock'), () => socket.end('show sess all\n'));
      socket.setEncoding('utf8').on('data', (part) => (text += part));
      socket.on('end', () => resolve(text)).on('error', reject);
    });
    const hosts = new Map();
    for (const session of table.split('source=').slice(1)) {
      const port = /^[^ :]+:(\d+)/.exec(session)?.[1];
      const server = /server=n(\d+)/.exec(session)?.[1];
      if (port && server) hosts.set(Number(port), this.all[server]);
    }
    return hosts;
  }

  /** The host a process runs on. */
  owner(pid) {
    return this.all.find((host) => host.pids().includes(pid));
  }

  async close() {
    this.stopRedis?.();
    for (const sandbox of [...(this.all ?? []), ...(this.others ? [this.others] : [])]) await sandbox.close();
    this.network?.close();
  }
}

/** What a session's own requests say: by hand, to any host. */
export async function poll(host, sid, options = {}) {
  const response = await fetch(`${host.url}/socket.io/?EIO=4&transport=polling&sid=${sid}`, options);
  return { status: response.status, text: await response.text() };
}

/** Opens a session at a host by hand. */
export async function handshake(host) {
  const response = await fetch(`${host.url}/socket.io/?EIO=4&transport=polling`);
  return JSON.parse((await response.text()).slice(1)).sid;
}
