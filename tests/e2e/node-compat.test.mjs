// What a Node program under pm2 may rely on: the cluster module, ready and shutdown messages, ports and paths of every
// kind, TLS, UDP. Each test has a small program of its own, written as for pm2.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import dgram from 'node:dgram';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { before, describe, test } from 'node:test';
import tls from 'node:tls';
import { ask, connect } from '../lib/client.mjs';
import { use } from '../lib/workers.mjs';
import { once, sleep, until, within } from '../lib/wait.mjs';

use('node');
const { Cluster, app, freePort } = await import('../lib/cluster.mjs');

/** Starts a program on `instances` workers. `settings` are the app's. */
async function run(t, source, settings = {}, options = {}) {
  const script = settings.script ?? 'app.cjs';
  const files = { ...options.files, [script]: source };
  const cluster = await Cluster.start({ ...options, files, apps: [app({ name: 'app', instances: 2, ...settings, script })] });
  t.after(() => cluster.close());
  return cluster;
}

/** One request on a connection of its own. */
function get(options) {
  return within(
    10_000,
    'an answer',
    new Promise((resolve, reject) => {
      const request = (options.cert === undefined ? http : https).get({ host: '127.0.0.1', agent: false, ...options }, async (response) => {
        let text = '';
        for await (const chunk of response) text += chunk;
        resolve(text);
      });
      request.on('error', reject);
    }),
  );
}

/** What each of `count` workers answers, by instance. */
async function everyone(options, count = 2) {
  const answers = {};
  await until(10_000, `answers of ${count} workers`, async () => {
    const answer = JSON.parse(await get(options));
    answers[answer.instance] = answer;
    return Object.keys(answers).length === count;
  }, 5);
  return answers;
}

/** A program that answers each request with what `expression` says. */
const telling = (expression, more = '') => `
  const cluster = require('cluster');
  const instance = Number(process.env.NODE_APP_INSTANCE);
  ${more}
  require('http').createServer((request, response) => response.end(JSON.stringify({ instance, pid: process.pid, ...${expression} }))).listen(process.env.PORT);
`;

describe('the process', () => {
  test('cluster, environment and arguments are as under pm2', async (t) => {
    const source = telling(`{
      worker: cluster.isWorker, primary: cluster.isPrimary, id: cluster.worker.id, connected: cluster.worker.isConnected(),
      pm_id: process.env.pm_id, name: process.env.name, custom: process.env.WHICH, cwd: process.cwd(),
      args: process.argv.slice(2), memory: process.execArgv, stale: ['NODE_CHANNEL_FD', 'NODE_UNIQUE_ID'].filter((name) => name in process.env),
      globals: Object.keys(globalThis).filter((name) => /sundew/i.test(name)), loaded: Object.keys(require.cache).length,
    }`);
    const settings = { args: 'one "two three"', node_args: '--max-old-space-size=123 --no-warnings', instance_var: 'WHICH' };
    const cluster = await run(t, source.replace('process.env.NODE_APP_INSTANCE', 'process.env.WHICH'), settings);
    const answers = await everyone({ port: cluster.port });
    for (const [instance, answer] of Object.entries(answers)) {
      assert.deepEqual([answer.worker, answer.primary, answer.connected], [true, false, true]);
      assert.deepEqual(answer.args, ['one', 'two three']);
      assert.deepEqual(answer.memory, ['--max-old-space-size=123', '--no-warnings'], 'the arguments of the file, and no other');
      assert.equal(answer.custom, instance);
      assert.equal(answer.name, 'app');
      assert.match(answer.pm_id, /^\d+$/);
      assert.equal(fs.realpathSync(answer.cwd), fs.realpathSync(cluster.dir));
      assert.deepEqual([answer.stale, answer.globals], [[], []], 'nothing of the machinery is seen');
    }
    assert.notEqual(answers[0].id, answers[1].id);
  });

  test('programs that a worker starts are not workers', async (t) => {
    const child = `console.log(JSON.stringify([require('cluster').isWorker, process.execArgv, Object.keys(require.cache).length]));`;
    const source = telling('{ child: [String(execFileSync(process.execPath, [...process.execArgv, file])), forked] }', `
      const { execFileSync, fork } = require('child_process');
      const file = require('path').join(__dirname, 'child.cjs');
      let forked = '';
      fork(file, { silent: true }).stdout.on('data', (text) => (forked += text));`);
    const cluster = await run(t, source, { instances: 1 }, { files: { 'child.cjs': child } });
    await until(5000, 'the forked child', async () => JSON.parse(await get({ port: cluster.port })).child[1]);
    for (const text of JSON.parse(await get({ port: cluster.port })).child) assert.deepEqual(JSON.parse(text), [false, [], 1]);
  });

  test('ES modules', async (t) => {
    const source = `
      import cluster from 'node:cluster';
      import { createServer } from 'node:http';
      await new Promise((resolve) => setTimeout(resolve, 50));
      createServer((request, response) => response.end(JSON.stringify({ instance: Number(process.env.NODE_APP_INSTANCE), worker: cluster.isWorker, address: request.socket.remoteAddress })))
        .listen(process.env.PORT);`;
    const cluster = await run(t, source, { script: 'app.mjs' });
    for (const { worker, address } of Object.values(await everyone({ port: cluster.port }))) {
      assert.equal(worker, true);
      assert.match(address, /127\.0\.0\.1$/);
    }
  });

  test('npm start: node is started directly, with what the line says', async (t) => {
    const files = {
      'package.json': { name: 'packed', version: '1.2.3', scripts: { start: 'WHO=npm node --no-warnings app.cjs first' } },
      'app.cjs': telling('{ worker: cluster.isWorker, who: process.env.WHO, args: process.argv.slice(2), flags: process.execArgv, version: process.env.npm_package_version }'),
    };
    const cluster = await Cluster.start({ files, apps: [app({ name: 'app', script: 'npm', args: 'start -- second', interpreter: undefined, instances: 2 })] });
    t.after(() => cluster.close());
    for (const { worker, who, args, flags, version } of Object.values(await everyone({ port: cluster.port }))) {
      assert.deepEqual([worker, who, args, flags, version], [true, 'npm', ['first', 'second'], ['--no-warnings'], '1.2.3']);
    }
    assert.equal(cluster.pids().length, 3, 'the supervisor and two workers, no npm');
  });

  for (const [name, content] of Object.entries({
    'ecosystem.config.js': (apps) => `const os = require('os');\nmodule.exports = { apps: ${apps} };`,
    'ecosystem.config.cjs': (apps) => `module.exports = { apps: ${apps} };`,
    'ecosystem.config.mjs': (apps) => `import os from 'node:os';\nexport default { apps: ${apps} };`,
  })) {
    test(`start ${name}`, async (t) => {
      const cluster = new Cluster();
      t.after(() => cluster.close());
      const port = await freePort();
      cluster.files({ 'app.cjs': telling('{ made: process.env.MADE }') });
      cluster.file(name, content(`[{ name: 'app', script: 'app.cjs', instances: 1 + 1, env: { PORT: ${port}, MADE: [1, 2].map((n) => n * 2).join() } }]`));
      await cluster.ok('start', name);
      for (const { made } of Object.values(await everyone({ port }))) assert.equal(made, '2,4');
    });
  }

  test('messages: serialization "json" and process.send of anything', async (t) => {
    const source = telling('{ sent }', `
      let sent = 0;
      for (const message of ['text', 7, null, { nested: [1, { x: 'y' }] }, 'x'.repeat(300000)]) process.send(message, () => sent++);`);
    for (const serialization of ['json', 'advanced']) {
      const cluster = await run(t, source, { sundew: { serialization } });
      await until(5000, 'all are sent', async () => Object.values(await everyone({ port: cluster.port })).every(({ sent }) => sent === 5));
    }
  });
});

describe('coming and going', () => {
  test('wait_ready: online when the program says so, and late is failed', async (t) => {
    const source = telling('{ readyAt }', `
      let readyAt = 0;
      setTimeout(() => { readyAt = Date.now(); process.send('ready'); }, 1500);`);
    const cluster = await run(t, source, { wait_ready: true });
    // Cluster.start waits until all are online.
    const now = Date.now();
    for (const { readyAt } of Object.values(await everyone({ port: cluster.port }))) assert.ok(readyAt > 0 && readyAt <= now);

    cluster.file('app.cjs', source.replace("process.send('ready')", ''));
    const changed = cluster.file('pm2.json', { apps: [{ ...cluster.apps[0], listen_timeout: 1000 }] });
    const old = (await cluster.workers()).map(({ pid }) => pid);
    const reloaded = await cluster.sundew('reload', changed);
    assert.equal(reloaded.code, 1, reloaded.text);
    assert.match(reloaded.text, /ready/);
    assert.deepEqual((await cluster.workers()).map(({ pid }) => pid), old, 'the old workers stay');
  });

  test('without wait_ready: online when it listens', async (t) => {
    const source = `
      const { createServer } = require('http');
      const server = createServer((request, response) => response.end(JSON.stringify({ instance: Number(process.env.NODE_APP_INSTANCE) })));
      setTimeout(() => server.listen(process.env.PORT, () => console.log('listens now')), 1000);`;
    const cluster = await run(t, source);
    assert.equal(cluster.child.output.match(/listens now/g)?.length, 2, 'both listened before they were online');
    await everyone({ port: cluster.port });
  });

  test('shutdown_with_message: the program is told and ends by itself', async (t) => {
    const source = telling('{}', `
      const fs = require('fs');
      process.on('SIGINT', () => fs.appendFileSync('log', 'SIGINT '));
      process.on('message', (message) => {
        fs.appendFileSync('log', JSON.stringify(message) + ' ');
        setTimeout(() => process.exit(0), 200);
      });`);
    const cluster = await run(t, source, { shutdown_with_message: true });
    await cluster.ok('stop', 'app');
    assert.equal(fs.readFileSync(path.join(cluster.dir, 'log'), 'utf8'), '"shutdown" "shutdown" ');
  });

  test('SIGINT otherwise, and what it prints last is in the log', async (t) => {
    const source = telling('{}', `process.on('SIGINT', () => { console.log('cleaned up'); process.exit(0); });`);
    const cluster = await run(t, source);
    await cluster.ok('stop', 'app');
    await until(5000, 'the last words', () => cluster.child.output.match(/cleaned up/g)?.length === 2);
  });

  for (const [what, code] of Object.entries({
    'process.disconnect()': 'process.disconnect()',
    'cluster.worker.disconnect()': 'cluster.worker.disconnect()',
    'cluster.worker.kill()': 'cluster.worker.kill()',
    'process.exit()': 'process.exit(3)',
  })) {
    test(`${what}: the worker ends and is replaced`, async (t) => {
      const source = telling('{}', '').replace('(request, response) => ', `(request, response) => request.url === '/go' ? (response.end('{}'), setTimeout(() => ${code}, 50)) : `);
      const cluster = await run(t, source);
      const before = await everyone({ port: cluster.port });
      await get({ port: cluster.port, path: '/go' });
      await until(10_000, 'another process', async () => {
        const pids = (await cluster.workers()).map(({ pid }) => pid);
        return pids.length === 2 && pids.filter((pid) => pid === before[0].pid || pid === before[1].pid).length === 1;
      });
      await everyone({ port: cluster.port });
    });
  }

  test('handles that a worker sends do not stop its messages', async (t) => {
    const source = telling('{ acks }', `
      const net = require('net');
      let acks = 0;
      const server = net.createServer().listen(0, '127.0.0.1', () => {
        for (let round = 0; round < 5; round++) {
          net.connect(server.address().port).once('connect', function () { process.send('a socket', this, () => acks++); });
        }
      });`);
    const cluster = await run(t, source);
    await until(5000, 'all acknowledged', async () => Object.values(await everyone({ port: cluster.port })).every(({ acks }) => acks === 5));
  });
});

describe('addresses', () => {
  test('several ports, and listen(0): the same for all workers', async (t) => {
    const second = await freePort();
    const source = `
      const { createServer } = require('http');
      const instance = Number(process.env.NODE_APP_INSTANCE);
      const any = createServer((request, response) => response.end(JSON.stringify({ instance, at: 'any' })));
      const handler = (at) => (request, response) => response.end(JSON.stringify({ instance, at, any: any.address()?.port }));
      createServer(handler('first')).listen(process.env.PORT);
      createServer(handler('second')).listen(${second}, '127.0.0.1');
      any.listen(0);`;
    const cluster = await run(t, source);
    const ports = new Set();
    await until(5000, 'listen(0) to be done', async () => Object.values(await everyone({ port: cluster.port })).every(({ any }) => any));
    for (const { any, at } of Object.values(await everyone({ port: cluster.port }))) {
      assert.equal(at, 'first');
      ports.add(any);
    }
    assert.equal(ports.size, 1, 'one port for listen(0)');
    for (const { at } of Object.values(await everyone({ port: second }))) assert.equal(at, 'second');
    for (const { at } of Object.values(await everyone({ port: [...ports][0] }))) assert.equal(at, 'any');
  });

  test('a port that only one worker asks for goes to that one', async (t) => {
    const first = await freePort();
    const ports = [first, first + 1];
    const source = telling('{ port: request.socket.localPort }', `
      require('http').createServer((request, response) => response.end(JSON.stringify({ instance, own: true }))).listen(${first} + instance);`);
    const cluster = await run(t, source);
    for (let round = 0; round < 10; round++) {
      for (const instance of [0, 1]) assert.deepEqual(JSON.parse(await get({ port: ports[instance] })), { instance, own: true });
    }
    for (const { port } of Object.values(await everyone({ port: cluster.port }))) assert.equal(port, cluster.port, 'the port is known');
    // The worker that replaces it takes its port over.
    process.kill((await cluster.workers())[1].pid, 'SIGKILL');
    await until(10_000, 'its port again', async () => JSON.parse(await get({ port: ports[1] })).instance === 1);
  });

  test('a unix path', async (t) => {
    const source = telling('{}', '').replace('process.env.PORT', '__dirname + "/socket"') + telling('{}', '').replace(/const (cluster|instance) = .*/g, '');
    const cluster = await run(t, source);
    const answers = await everyone({ socketPath: path.join(cluster.dir, 'socket'), port: undefined, host: undefined });
    assert.equal(Object.keys(answers).length, 2);
  });

  test('maxConnections: what a worker refuses goes to another one', async (t) => {
    const source = `
      const net = require('net');
      const server = net.createServer((socket) => { socket.on('error', () => {}); socket.write(process.env.NODE_APP_INSTANCE); });
      server.maxConnections = 2;
      server.listen(process.env.PORT);`;
    const cluster = await run(t, source, {}, { answers: false });
    const wires = [];
    t.after(() => wires.forEach((wire) => wire.destroy()));
    const { Wire } = await import('../lib/wire.mjs');
    for (let index = 0; index < 4; index++) wires.push(await Wire.open(cluster.port));
    await until(5000, 'all four are served', () => wires.every(({ buffer }) => buffer.length === 1));
    assert.deepEqual(wires.map(({ buffer }) => buffer.toString()).sort(), ['0', '0', '1', '1']);
  });

  test('UDP: workers share the port', async (t) => {
    const source = telling('{}', `
      const socket = require('dgram').createSocket('udp4');
      socket.on('message', (text, from) => socket.send('got ' + text + ' on ' + instance, from.port, from.address));
      socket.bind(process.env.PORT);`);
    const cluster = await run(t, source);
    const client = dgram.createSocket('udp4');
    t.after(() => client.close());
    const heard = [];
    client.on('message', (text) => heard.push(String(text)));
    await until(5000, 'answers', () => {
      client.send('hello', cluster.port, '127.0.0.1');
      return heard.length >= 3;
    });
    assert.match(heard[0], /^got hello on [01]$/);
  });

  test('exclusive: the worker has the port for itself, and a warning says what that means', async (t) => {
    const own = await freePort();
    const source = telling('{}', `
      if (instance === 0) require('http').createServer((request, response) => response.end('mine')).listen({ port: ${own}, exclusive: true });`);
    const cluster = await run(t, source);
    assert.equal(await get({ port: own }), 'mine');
    await until(10_000, 'a warning', () => new RegExp(`${own}.*exclusive|exclusive.*${own}`).test(cluster.child.output));
  });

  test('a port of another program: the error says whose', async (t) => {
    const taken = await freePort();
    const other = http.createServer().listen(taken);
    t.after(() => other.close());
    const source = telling('{ error }', `
      let error;
      require('http').createServer().on('error', ({ code }) => (error = code)).listen(${taken});`);
    const cluster = await run(t, source);
    await until(5000, 'the error', async () => Object.values(await everyone({ port: cluster.port })).every(({ error }) => error === 'EADDRINUSE'));
    assert.match(cluster.child.output, new RegExp(`cannot listen on .*${taken}`));
  });
});

describe('TLS in the workers', () => {
  const files = {};
  before(() => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sundew-test-'));
    const [key, cert] = ['key.pem', 'cert.pem'].map((name) => path.join(folder, name));
    const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost'];
    execFileSync('openssl', [...made, '-keyout', key, '-out', cert], { stdio: 'ignore' });
    for (const file of [key, cert]) files[path.basename(file)] = fs.readFileSync(file, 'utf8');
    fs.rmSync(folder, { recursive: true });
  });
  const options = `{ key: require('fs').readFileSync('key.pem'), cert: require('fs').readFileSync('cert.pem') }`;

  test('https: a session is resumed on another worker', async (t) => {
    const source = `
      require('https').createServer(${options}, (request, response) => {
        response.end(JSON.stringify({ instance: Number(process.env.NODE_APP_INSTANCE), address: request.socket.remoteAddress, resumed: request.socket.isSessionReused() }));
      }).listen(process.env.PORT);`;
    const cluster = await run(t, source, {}, { answers: false, files });
    const visit = (localAddress, session) =>
      within(10_000, 'an answer', new Promise((resolve, reject) => {
        const socket = tls.connect({ port: cluster.port, host: '127.0.0.1', localAddress, session, rejectUnauthorized: false, maxVersion: 'TLSv1.2' });
        let text = '';
        socket.on('error', reject);
        socket.on('data', (chunk) => (text += chunk));
        socket.on('end', () => resolve({ ...JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1)), session: socket.getSession() }));
        socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
      }));
    const first = await visit('127.0.0.2');
    assert.equal(first.resumed, false);
    assert.match(first.address, /127\.0\.0\.2$/);
    const other = [];
    for (let host = 3; host < 40; host++) {
      const again = await visit(`127.0.0.${host}`, first.session);
      assert.equal(again.resumed, true, `worker ${again.instance} resumes a session of worker ${first.instance}`);
      if (again.instance !== first.instance) other.push(again);
      // The same client stays where it is.
      assert.equal((await visit(`127.0.0.${host}`)).instance, again.instance);
    }
    assert.ok(other.length > 0, 'another worker was met');
  });

  test('http2', async (t) => {
    const source = `
      require('http2').createSecureServer(${options}, (request, response) => {
        response.end(JSON.stringify({ instance: Number(process.env.NODE_APP_INSTANCE), version: request.httpVersion }));
      }).listen(process.env.PORT);`;
    const cluster = await run(t, source, {}, { answers: false, files });
    const session = http2.connect(`https://127.0.0.1:${cluster.port}`, { rejectUnauthorized: false });
    t.after(() => session.close());
    for (let round = 0; round < 3; round++) {
      const stream = session.request({ ':path': '/' });
      let text = '';
      stream.on('data', (chunk) => (text += chunk));
      await within(10_000, 'an answer', new Promise((resolve, reject) => stream.on('end', resolve).on('error', reject)));
      assert.equal(JSON.parse(text).version, '2.0');
    }
  });

  test('a reload finishes answers that are under way: https and http2', async (t) => {
    const source = `
      const handler = (request, response) => setTimeout(() => response.end(JSON.stringify({ pid: process.pid })), request.url === '/slow' ? 1500 : 0);
      require('http2').createSecureServer({ ...${options}, allowHTTP1: true }, handler).listen(process.env.PORT);`;
    const cluster = await run(t, source, { instances: 1, sundew: { drainTimeout: 300 } }, { answers: false, files });
    const session = http2.connect(`https://127.0.0.1:${cluster.port}`, { rejectUnauthorized: false });
    t.after(() => session.destroy());
    const two = new Promise((resolve, reject) => {
      const stream = session.request({ ':path': '/slow' });
      let text = '';
      stream.on('data', (chunk) => (text += chunk)).on('end', () => resolve(text)).on('error', reject);
    });
    const one = get({ port: cluster.port, cert: null, rejectUnauthorized: false, path: '/slow' });
    const idle = new https.Agent({ keepAlive: true, rejectUnauthorized: false });
    t.after(() => idle.destroy());
    await get({ port: cluster.port, cert: null, agent: idle });
    await sleep(300);
    const [{ pid }] = await cluster.workers();
    await cluster.ok('reload', 'app', '--wait');
    assert.deepEqual([JSON.parse(await one).pid, JSON.parse(await two).pid], [pid, pid], 'answered by the old worker');
    assert.notEqual(JSON.parse(await get({ port: cluster.port, cert: null, rejectUnauthorized: false })).pid, pid);
  });

  test('Socket.IO over https and wss', async (t) => {
    const source = `
      const server = require('https').createServer(${options});
      const io = new (require('socket.io').Server)(server);
      io.on('connection', (socket) => socket.on('whoami', (done) => done({ pid: process.pid, address: socket.handshake.address })));
      server.listen(process.env.PORT);`;
    const cluster = await run(t, source, {}, { answers: false, files });
    for (let host = 2; host < 8; host++) {
      const agent = new https.Agent({ keepAlive: true, localAddress: `127.0.0.${host}`, rejectUnauthorized: false });
      const socket = await connect(`https://127.0.0.1:${cluster.port}`, { agent, rejectUnauthorized: false });
      t.after(() => (socket.close(), agent.destroy()));
      assert.match((await ask(socket, 'whoami')).address, new RegExp(`127\\.0\\.0\\.${host}$`));
    }
  });
});
