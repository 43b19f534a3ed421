// python-socketio, the blocking client and the one on asyncio, each transport and both parsers, against one worker alone and
// (to check the test) Node's own server; and a crowd of them on four workers. The scenario is tests/apps/client.py.

import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import * as msgpack from 'socket.io-msgpack-parser';
import { Cluster, Sandbox, app, freePort, python, root, worker } from '../lib/cluster.mjs';
import { startReference } from '../lib/reference.mjs';
import { until } from '../lib/wait.mjs';

// The reference runs in this process; workers inherit it.
process.env.ECHO_REASONS = '1';

const CLIENTS = ['sync', 'asyncio'];
const TRANSPORTS = ['polling', 'websocket', 'default'];
const PARTS = ['sessions', 'events', 'acknowledgements', 'rooms', 'refusals', 'reasons', 'reconnects'];

async function startAlone(env) {
  const sandbox = new Sandbox();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const child = sandbox.spawn(...worker.alone, { env: { PORT: String(port), ...env } });
  await until(10_000, 'echo listens', async () => {
    if (child.exitCode !== null) throw new Error(child.output);
    return (await fetch(url)).ok;
  });
  return { url, close: () => sandbox.close() };
}

/** Goes through the scenario; fails with what Python says. */
async function scenario(t, url, client, transports, ...more) {
  const sandbox = new Sandbox();
  t.after(() => sandbox.close());
  const script = path.join(root, 'tests/apps/client.py');
  const args = [script, url, '--client', client, '--transports', transports, ...more];
  const child = sandbox.spawn('python3', args, { env: { PYTHONPATH: python, PYTHONDONTWRITEBYTECODE: '1' } });
  const { code } = await child.ended;
  assert.equal(code, 0, child.output);
  return child.output.split('\n');
}

const TARGETS = {
  "Node's server": [() => startReference(), 'default'],
  "Node's server, msgpack": [() => startReference({ parser: msgpack }), 'msgpack'],
  'one worker alone': [() => startAlone(), 'default'],
  'one worker alone, msgpack': [() => startAlone({ PARSER: 'msgpack' }), 'msgpack'],
  'four workers': [() => Cluster.start({ apps: [app()], daemon: true }), 'default'],
};

for (const [target, [start, serializer]] of Object.entries(TARGETS)) {
  describe(`python-socketio, ${target}`, () => {
    let server;
    before(async () => (server = await start()));
    after(() => server?.close());

    for (const client of CLIENTS) {
      for (const transports of TRANSPORTS) {
        test(`${client}, ${transports}`, async (t) => {
          const done = await scenario(t, server.url, client, transports, '--serializer', serializer);
          for (const part of PARTS) assert.ok(done.includes(part), `${part} was gone through`);
        });

        if (target !== 'four workers') continue;
        test(`${client}, ${transports}: a crowd`, async (t) => {
          const done = await scenario(t, server.url, client, transports, '--crowd', '24');
          assert.ok(done.includes('crowd'));
        });
      }
    }
  });
}
