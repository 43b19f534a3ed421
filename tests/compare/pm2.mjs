// The same program, the same pm2.json, the same crowd: under stock pm2 and under Sundew. Prints what became of the
// clients, and fails if Sundew lost one.
//
//     node tests/compare/pm2.mjs [CLIENTS]

import path from 'node:path';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { FreshAgent, SharedAgent, exchange } from '../lib/client.mjs';
import { Sandbox, freePort, root } from '../lib/cluster.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { until } from '../lib/wait.mjs';

const CLIENTS = Number(process.argv[2] ?? 500);
/** How many arrive at the same time. */
const WIDTH = 50;
/** From the first request to the answer on a websocket. */
const DEADLINE_MS = 15_000;

const folder = path.join(root, 'examples/node-chat');
const config = path.join(folder, 'pm2.json');
const pm2 = fileURLToPath(new URL('node_modules/pm2/bin/pm2', import.meta.url));
const { version } = createRequire(import.meta.url)('pm2/package.json');

/** Both start the file as their users do, with homes of their own, and leave nothing behind. */
const SUPERVISORS = {
  [`pm2 ${version}`]: {
    async start(sandbox) {
      sandbox.env.PM2_HOME = path.join(sandbox.dir, 'pm2');
      const child = sandbox.spawn(process.execPath, [pm2, 'start', config], { cwd: folder });
      const { code } = await child.ended;
      if (code !== 0) throw new Error(`pm2 start exited with ${code}:\n${child.output}`);
    },
    stop: (sandbox) => sandbox.spawn(process.execPath, [pm2, 'kill']).ended,
  },
  sundew: {
    start: (sandbox) => sandbox.ok('start', config),
    stop: (sandbox) => sandbox.sundew('kill'),
  },
};

const AGENTS = { 'shared keep-alive': SharedAgent, 'a connection per request': FreshAgent };

/** "Which of you am I talking to": an event and its answer. */
async function whoami(socket) {
  const [answer] = await exchange(socket, 'b:message', 's:message');
  return answer;
}

async function crowd(url, agent) {
  const clients = new Crowd(url, { agent }, whoami);
  await clients.add(CLIENTS, { width: WIDTH, ms: DEADLINE_MS });
  const result = {
    in: clients.members.length,
    upgraded: clients.upgraded,
    unknown: clients.unknown,
    workers: new Set(clients.members.map(({ who }) => who.pid)).size,
    failures: clients.failures,
  };
  clients.close();
  agent.destroy();
  return result;
}

const row = (...cells) => console.log(cells.map((cell, at) => (at < 2 ? String(cell).padEnd([12, 26][at]) : String(cell).padStart(10))).join(' '));

console.log(`examples/node-chat/pm2.json, ${CLIENTS} clients with default transports, ${WIDTH} at a time`);
row('', 'connections', 'clients', 'got in', 'upgraded', 'code 1', 'workers');
let lost = 0;
for (const [name, supervisor] of Object.entries(SUPERVISORS)) {
  const sandbox = new Sandbox();
  try {
    const port = await freePort();
    sandbox.env.PORT = String(port);
    const url = `http://127.0.0.1:${port}`;
    await supervisor.start(sandbox);
    await until(20_000, `an answer from ${name}`, async () => (await fetch(`${url}/page`)).ok);
    for (const [connections, Agent] of Object.entries(AGENTS)) {
      const { in: got, upgraded, unknown, workers, failures } = await crowd(url, new Agent());
      row(name, connections, CLIENTS, got, upgraded, unknown, workers);
      for (const [text, count] of Object.entries(failures).sort(([, a], [, b]) => b - a).slice(0, 5)) console.log(`${String(count).padStart(17)} x ${text}`);
      if (name === 'sundew') lost += CLIENTS - upgraded + Object.keys(failures).length;
    }
    await supervisor.stop(sandbox);
  } finally {
    await sandbox.close();
  }
}
console.log('"code 1" is the answer of a worker that does not know the session: its client had been with another one.');
process.exitCode = lost > 0 ? 1 : 0;
