// The access log: a line for each request that ended or was handed over, without session ids, in both formats.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import { describe, test } from 'node:test';
import { ask, connect } from '../lib/client.mjs';
import { Cluster, app, kind } from '../lib/cluster.mjs';
import { until } from '../lib/wait.mjs';

const get = (port, path) =>
  new Promise((resolve, reject) => {
    http.get({ port, path }, (response) => response.resume().once('end', () => resolve(response.statusCode))).once('error', reject);
  });

describe(`the access log, ${kind} workers`, () => {
  test('as JSON, in a file', async (t) => {
    const cluster = await Cluster.start({ apps: [app({ instances: 2, sundew: { accessLog: 'json', accessLogFile: 'access.log', requestId: true } })] });
    t.after(() => cluster.close());
    const lines = () => fs.readFileSync(`${cluster.dir}/access.log`, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    const polling = await connect(cluster.url, { transports: ['polling'] });
    const websocket = await connect(cluster.url, { transports: ['websocket'] });
    await ask(polling, 'echo-ack', 'x'.repeat(5000));
    const sid = polling.io.engine.id;
    assert.equal(await get(cluster.port, '/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA'), 400);
    polling.close();
    websocket.close();
    await until(5000, 'all lines', () => lines().some(({ status }) => status === 400) && lines().some(({ handedOver }) => handedOver), 50);
    const [text, all] = [fs.readFileSync(`${cluster.dir}/access.log`, 'utf8'), lines()];
    assert.ok(!text.includes(sid) && !text.includes('AAAAAAAA'), 'no session id');
    const handed = all.find(({ handedOver }) => handedOver);
    assert.equal(handed.status, 101);
    assert.match(handed.target, /transport=websocket/);
    const post = all.find(({ method }) => method === 'POST');
    assert.equal(post.status, 200);
    assert.match(post.target, /sid=\*\*\*/);
    assert.match(post.client, /127\.0\.0\.1:\d+$/);
    assert.ok([0, 1].includes(post.worker) && post.bytes > 50 && post.ms >= 0);
    assert.ok(all.some(({ method, bytes }) => method === 'GET' && bytes > 5000), 'the echo');
    assert.equal(handed.id, undefined, 'its program knows of none');
    const ids = all.filter(({ handedOver }) => !handedOver).map(({ id }) => id);
    assert.ok(ids.length > 3 && ids.every(Boolean) && new Set(ids).size === ids.length, ids.join());
  });

  test('combined, on the standard output of `run`', async (t) => {
    const cluster = await Cluster.start({ apps: [app({ instances: 1, sundew: { accessLog: 'combined' } })] });
    t.after(() => cluster.close());
    await get(cluster.port, '/?a="b"');
    const line = /^(::ffff:)?127\.0\.0\.1 - - \[\d\d\/\w{3}\/\d{4}:[\d:]{8} [+-]\d{4}\] "GET \/\?a=\\"b\\" HTTP\/1\.1" \d{3} \d+ "-" "-" \d+ 0$/m;
    await until(5000, 'the line', () => line.test(cluster.child.output), 50);
  });
});
