// rust_socketio, blocking and asynchronous, over every transport it has, against one worker alone, four workers and (to check
// the test) Node's own server. The scenario, and what that client cannot do, is in tests/clients-rust.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Cluster, Sandbox, app, freePort, root, worker } from '../lib/cluster.mjs';
import { startReference } from '../lib/reference.mjs';
import { until } from '../lib/wait.mjs';

// The reference runs in this process; workers inherit it.
process.env.ECHO_REASONS = '1';

const KINDS = ['sync', 'async'];
const TRANSPORTS = ['polling', 'websocket', 'websocket-upgrade', 'any'];
const PARTS = ['events', 'acknowledgements', 'rooms', 'refusals', 'leaving'];

// A workspace of its own: nothing else is built with that client's dependencies.
const folder = path.join(root, 'tests/clients-rust');
const program = path.join(folder, 'target/debug/sundew-clients-rust');
const { CARGO_TARGET_DIR, ...env } = process.env;
execFileSync('cargo', ['build', '--quiet', '--locked'], { cwd: folder, env, stdio: 'inherit' });

async function startAlone() {
  const sandbox = new Sandbox();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const child = sandbox.spawn(...worker.alone, { env: { PORT: String(port) } });
  await until(10_000, 'echo listens', async () => {
    if (child.exitCode !== null) throw new Error(child.output);
    return (await fetch(url)).ok;
  });
  return { url, close: () => sandbox.close() };
}

const TARGETS = {
  "Node's server": () => startReference(),
  'one worker alone': startAlone,
  'four workers': () => Cluster.start({ apps: [app()], daemon: true }),
};

for (const [target, start] of Object.entries(TARGETS)) {
  describe(`rust_socketio, ${target}`, () => {
    let server;
    before(async () => (server = await start()));
    after(() => server?.close());

    for (const kind of KINDS) {
      for (const transport of TRANSPORTS) {
        test(`${kind}, ${transport}`, async (t) => {
          const sandbox = new Sandbox();
          t.after(() => sandbox.close());
          const child = sandbox.spawn(program, [server.url, kind, transport]);
          const { code } = await child.ended;
          assert.equal(code, 0, child.output);
          assert.deepEqual(child.output.trim().split('\n'), PARTS);
        });
      }
    }
  });
}
