// What the wrong node costs: the same nodes behind a balancer that knows nothing of sessions, and behind a sticky one.
// Needs root (network namespaces).
//
//     cargo xtask bench nodes [native|node] [NODES] [CLIENTS] [SECONDS]
//
// Round trips are asked for one after the other per client; CPU is that of the daemons and workers, without the
// balancer and the clients, per thousand messages.

import http from 'node:http';
import fs from 'node:fs';
import { Crowd } from '../lib/crowd.mjs';
import { Hosts } from '../lib/hosts.mjs';
import { sleep } from '../lib/wait.mjs';
import { use } from '../lib/workers.mjs';

const [kind = 'native', nodes = '3', clients = '100', seconds = '4'] = process.argv.slice(2);
use(kind);
const ROUNDS = 3;

/** Seconds of CPU that everything on the hosts has used. */
function cpu(hosts) {
  let ticks = 0;
  for (const pid of hosts.all.flatMap((host) => host.pids())) {
    const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').pop().split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / 100;
}

/** Each client has an address of its own, which is what a sticky balancer goes by. */
async function crowd(url, options) {
  const all = new Crowd(url);
  for (let index = 0; index < Number(clients); index++) {
    const agent = new http.Agent({ keepAlive: true, localAddress: `127.0.${1 + (index >> 8)}.${1 + (index % 250)}` });
    all.options = { ...options, agent };
    await all.add(1, { upgrade: !options.transports });
  }
  if (all.errors.length) throw new Error(JSON.stringify(all.failures));
  return all;
}

async function measure(hosts, url, options) {
  const members = await crowd(url, options);
  // Sessions that follow their websocket have done so by then.
  await sleep(1000);
  const latencies = [];
  const before = cpu(hosts);
  const end = Date.now() + Number(seconds) * 1000;
  await Promise.all(
    members.members.map(async ({ socket }) => {
      while (Date.now() < end) {
        const started = performance.now();
        await socket.timeout(20_000).emitWithAck('echo-ack', 'x'.repeat(100));
        latencies.push(performance.now() - started);
        // The system is not to be full: who waits for a turn of the CPU tells nothing of the way.
        await sleep(20 + Math.random() * 20);
      }
    }),
  );
  const used = cpu(hosts) - before;
  members.close();
  if (members.errors.length) throw new Error(JSON.stringify(members.failures));
  latencies.sort((a, b) => a - b);
  const at = (share) => latencies[Math.floor((latencies.length - 1) * share)];
  return { ms: at(0.5), p99: at(0.99), cpu: (used * 1e6) / latencies.length };
}

/** The nodes as `cluster` says, behind balancers of these names. */
async function compare(name, cluster, balancers) {
  const hosts = await Hosts.start({ count: Number(nodes), cluster });
  try {
    const urls = { sticky: await hosts.balance('source'), any: hosts.url };
    const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
    for (const [transport, options] of [['websocket', {}], ['polling', { transports: ['polling'] }]]) {
      if (transport === 'polling' && balancers.length === 1) continue;
      const rounds = Object.fromEntries(balancers.map((balancer) => [balancer, []]));
      for (let round = 0; round < ROUNDS; round++) {
        for (const balancer of balancers) rounds[balancer].push(await measure(hosts, urls[balancer], options));
      }
      for (const [balancer, all] of Object.entries(rounds)) {
        const of = (key) => median(all.map((one) => one[key]));
        console.log(
          `${transport.padEnd(10)} ${`${balancer}${name}`.padEnd(22)} ${of('ms').toFixed(2)} ms, p99 ${of('p99').toFixed(1)} ms, ${of('cpu').toFixed(0)} µs of CPU per message`,
        );
      }
    }
    const sums = {};
    for (const counter of ['forwarded', 'relayed', 'moved', 'asked']) {
      sums[counter] = (await Promise.all(hosts.all.map((host) => host.counted(counter)))).reduce((a, b) => a + b);
    }
    console.log(JSON.stringify(sums));
  } finally {
    await hosts.close();
  }
}

console.log(`${nodes} nodes, ${kind} workers, ${clients} clients, median of ${ROUNDS} rounds`);
await compare('', {}, ['sticky', 'any']);
// As it is for sessions that cannot follow their websocket.
if (kind === 'native') await compare(', nobody moves', { limits: { moveQuiet: 0 } }, ['any']);
process.exit(0);
