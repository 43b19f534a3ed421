// What each way to route costs, side by side: CPU of everything on the server's side (supervisor, workers, proxy) per message,
// by long-polling and on websockets, and what an idle websocket holds in front of its worker.
//
//     cargo xtask bench ways [native|node] [ROUNDS] [CLIENTS] [SECONDS]
//
// Round trips of 100 bytes and their acknowledgement, two under way per client. In each round every way has its turn, and
// the ratios are to the session id's figure of the same round.

import { Cluster, app, freePort } from '../lib/cluster.mjs';
import { SharedAgent } from '../lib/client.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { cpuTicks, descriptors, residentKiB, withChildren } from '../lib/proc.mjs';
import { startHaproxy, startNginx } from '../lib/proxies.mjs';
import { sleep } from '../lib/wait.mjs';
import { use } from '../lib/workers.mjs';

const [kind = 'native', rounds = '5', clients = '100', seconds = '3'] = process.argv.slice(2);
use(kind);
const IDLE = 500;
/** By address: as many as there are clients' networks. */
const ADDRESSES = 20;

const base = await freePort();
const direct = await Cluster.start({ apps: [app({ sundew: { direct: { basePort: base }, route: true, trustedProxies: ['loopback'] } })] });
const byAddress = await Cluster.start({ apps: [app({ sundew: { affinity: 'ip' } })] });
const nginx = await startNginx(direct, await freePort());
const haproxy = await startHaproxy(direct, await freePort());

const told = async () => (await (await fetch(`${direct.url}/.sundew/route`)).json()).url;
const WAYS = {
  'session id': { cluster: direct, url: () => direct.url },
  'routing by the server': { cluster: direct, url: told },
  'nginx by address': { cluster: direct, url: () => nginx.url, proxy: nginx },
  'HAProxy by address': { cluster: direct, url: () => haproxy.url, proxy: haproxy },
  "the client's address": { cluster: byAddress, url: () => byAddress.url },
};

/** What stands in front of the workers. */
const front = ({ cluster, proxy }) => [cluster.supervisor(), ...(proxy ? withChildren(proxy.pid) : [])];
const everything = (way) => [...new Set([...way.cluster.pids(), ...front(way)])];
const sum = (pids, of) => pids.reduce((all, pid) => all + of(pid), 0);

async function crowd(way, count, transports) {
  const agents = Array.from({ length: ADDRESSES }, (_, index) => new SharedAgent({ localAddress: `127.0.${index + 1}.1` }));
  const crowds = await Promise.all(agents.map(async (agent) => {
    const all = [];
    for (let index = 0; index < count / ADDRESSES; index++) {
      const one = new Crowd(await way.url(), { transports, agent });
      await one.add(1, { upgrade: false });
      all.push(one);
    }
    return all;
  }));
  const all = crowds.flat();
  const errors = () => all.flatMap((one) => one.errors);
  if (errors().length) throw new Error(errors().join(', '));
  return {
    sockets: all.flatMap(({ members }) => members.map(({ socket }) => socket)),
    close: () => (all.forEach((one) => one.close()), agents.forEach((agent) => agent.destroy())),
    errors,
  };
}

/** Microseconds of CPU per message. */
async function message(way, transport) {
  const { sockets, close, errors } = await crowd(way, Number(clients), [transport]);
  await sleep(300);
  let messages = 0;
  const pids = everything(way);
  const before = sum(pids, cpuTicks);
  const end = Date.now() + Number(seconds) * 1000;
  await Promise.all([...sockets, ...sockets].map(async (socket) => {
    while (Date.now() < end) {
      await socket.timeout(20_000).emitWithAck('echo-ack', 'x'.repeat(100));
      messages++;
    }
  }));
  const used = (sum(pids, cpuTicks) - before) * 10_000;
  close();
  if (errors().length) throw new Error(errors().join(', '));
  await sleep(300);
  return used / messages;
}

/** Descriptors and KiB that an idle websocket holds in front of its worker. */
async function idle(way) {
  const pids = front(way);
  const before = { fds: sum(pids, descriptors), kib: sum(pids, residentKiB) };
  const { close } = await crowd(way, IDLE, ['websocket']);
  await sleep(1000);
  const held = { fds: (sum(pids, descriptors) - before.fds) / IDLE, kib: (sum(pids, residentKiB) - before.kib) / IDLE };
  close();
  await sleep(500);
  return held;
}

const median = (values) => values.slice().sort((a, b) => a - b)[values.length >> 1];
const spread = (values) => `${median(values).toFixed(2)} (${Math.min(...values).toFixed(2)}-${Math.max(...values).toFixed(2)})`;
try {
  console.log(`${kind} workers, ${clients} clients of ${ADDRESSES} addresses, ${rounds} rounds of ${seconds} s; µs of CPU per message, and the ratio to the session id's (median, min-max)`);
  for (const transport of ['polling', 'websocket']) {
    const costs = Object.fromEntries(Object.keys(WAYS).map((name) => [name, []]));
    // What was never used yet is slow at first.
    for (const way of Object.values(WAYS)) await message(way, transport);
    for (let round = 0; round < Number(rounds); round++) for (const [name, way] of Object.entries(WAYS)) costs[name].push(await message(way, transport));
    for (const [name, all] of Object.entries(costs)) {
      const ratios = all.map((cost, round) => cost / costs['session id'][round]);
      console.log(`${transport.padEnd(10)} ${name.padEnd(22)} ${median(all).toFixed(0).padStart(5)} µs   x ${spread(ratios)}`);
    }
  }
  for (const [name, way] of Object.entries(WAYS)) {
    const { fds, kib } = await idle(way);
    console.log(`idle       ${name.padEnd(22)} ${Math.abs(fds).toFixed(1)} descriptors, ${kib.toFixed(1)} KiB per websocket before its worker`);
  }
} finally {
  await nginx.close();
  await haproxy.close();
  await direct.close();
  await byAddress.close();
}
process.exit(0);
