// The corpus of ambiguous and broken requests against the whole: how each is answered, and what the workers saw of it.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { Cluster, app, root } from '../lib/cluster.mjs';
import { until } from '../lib/wait.mjs';
import { Wire } from '../lib/wire.mjs';

const FOLDER = path.join(root, 'crates/router/tests/corpus/requests');
const SEEN = `
  const fs = require('fs');
  const server = require('http').createServer((request, response) => {
    fs.appendFileSync(process.env.SEEN, request.url + '\\n');
    request.resume().on('end', () => response.end('seen'));
  });
  server.on('clientError', (error, socket) => (fs.appendFileSync(process.env.SEEN, 'error ' + error.code + '\\n'), socket.destroy()));
  server.listen(process.env.PORT);
`;

const KINDS = {
  native: (settings) => app({ instances: 1, ...settings }),
  node: (settings) => app({ instances: 1, script: 'seen.cjs', interpreter: process.execPath, ...settings }),
};

for (const [kind, make] of Object.entries(KINDS)) {
  test(`each is answered as it must be, and no worker sees what is refused: ${kind}`, async (t) => {
    const seen = path.join(fs.mkdtempSync('/tmp/sundew-seen-'), 'urls');
    fs.writeFileSync(seen, '');
    t.after(() => fs.rmSync(path.dirname(seen), { recursive: true }));
    const cluster = await Cluster.start({ apps: [make({ env: { SEEN: seen } })], files: { 'seen.cjs': SEEN } });
    t.after(() => cluster.close());
    fs.writeFileSync(seen, '');
    let served = 0;
    for (const name of fs.readdirSync(FOLDER).sort()) {
      const status = Number(name.slice(0, 3));
      const bytes = fs.readFileSync(path.join(FOLDER, name));
      const wire = await Wire.open(cluster.port);
      wire.send(bytes);
      const answer = await wire.response();
      // A worker may want no body, or no POST; that is its business.
      if (status === 200) assert.ok(answer.status === 200 || answer.status === 405, `${name}: ${answer.status}`);
      else assert.equal(answer.status, status, name);
      if (status === 200) served++;
      else {
        await wire.closed();
        assert.equal(wire.buffer.length, 0, `${name}: nothing follows the refusal`);
      }
      wire.destroy();
    }
    assert.ok(served > 10);
    assert.equal((await fetch(`${cluster.url}/`)).status, 200, 'and it goes on');
    if (kind === 'native') return;
    await until(5000, 'all was seen', () => fs.readFileSync(seen, 'utf8').split('\n').length > served + 1);
    const lines = fs.readFileSync(seen, 'utf8').trim().split('\n');
    assert.deepEqual(lines.filter((line) => line !== '/'), [], 'no smuggled request, and none that Node could not read');
    assert.equal(lines.length, served + 1);
  });
}
