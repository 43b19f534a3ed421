// TLS ends at the front door: 500 clients over https and wss while the certificate is exchanged under them; HTTP/2 for
// ordinary requests; what a worker is told of its clients; bad certificates, slow handshakes, and a browser.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { describe, test } from 'node:test';
import tls from 'node:tls';
import { chromium } from 'playwright-core';
import { ask, connect, open, upgraded } from '../lib/client.mjs';
import { Cluster, app, freePort, kind } from '../lib/cluster.mjs';
import { Crowd } from '../lib/crowd.mjs';
import { sleep, until } from '../lib/wait.mjs';

const CLIENTS = 500;
const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(fs.existsSync);

/** Makes a certificate for `name`, in place of the one before. */
function certify(sandbox, file, name) {
  const [cert, key] = [`${sandbox.dir}/${file}.pem`, `${sandbox.dir}/${file}.key`];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
  const names = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
  execFileSync('openssl', ['req', '-x509', ...curve, '-nodes', '-days', '2', '-keyout', `${key}.new`, '-out', `${cert}.new`, ...names], { stdio: 'ignore' });
  fs.renameSync(`${cert}.new`, cert);
  fs.renameSync(`${key}.new`, key);
  return { cert, key };
}

async function start(settings = {}, more = []) {
  const port = await freePort();
  const cluster = await Cluster.start({
    prepare: (sandbox) => {
      certify(sandbox, 'one', 'localhost');
      more.forEach((name) => certify(sandbox, name, name));
    },
    apps: [
      app({
        instances: 2,
        ...settings,
        sundew: { tls: { cert: ['one.pem', ...more.map((name) => `${name}.pem`)], key: ['one.key', ...more.map((name) => `${name}.key`)], listen: port }, ...settings.sundew },
      }),
    ],
  });
  cluster.tls = { port, url: `https://localhost:${port}` };
  return cluster;
}

/** The name on the certificate a new connection is shown. */
const shown = (port, servername = 'localhost') =>
  new Promise((resolve, reject) => {
    const socket = tls.connect({ port, servername, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] });
    socket.once('secureConnect', () => (resolve(socket.getPeerCertificate().subject.CN), socket.destroy()));
    socket.once('error', reject);
  });

/** One request over HTTP/2; `session` is kept by the caller. */
const over2 = (session, path, { method = 'GET', body, ...headers } = {}) =>
  new Promise((resolve, reject) => {
    const stream = session.request({ ':path': path, ':method': method, ...headers });
    let text = '';
    let status;
    stream.on('response', (head) => (status = head[':status']));
    stream.setEncoding('utf8').on('data', (data) => (text += data));
    stream.once('end', () => resolve({ status, text }));
    stream.once('error', reject);
    stream.end(body);
  });

const agent = (options = {}) => new https.Agent({ keepAlive: true, maxFreeSockets: 1024, rejectUnauthorized: false, ...options });
const trusting = { rejectUnauthorized: false };

describe(`TLS, ${kind} workers`, () => {
  test(`${CLIENTS} clients, the certificate exchanged under them`, async (t) => {
    const cluster = await start();
    t.after(() => cluster.close());
    const { port, url } = cluster.tls;
    for (const [name, options] of Object.entries({ default: { agent: agent() }, 'wss only': { transports: ['websocket'] } })) {
      const crowd = new Crowd(url, { ...trusting, ...options });
      t.after(() => crowd.close());
      await crowd.add(CLIENTS / 4);
      // In turn with the clients that come: none of them may meet a moment without a certificate.
      const exchanged = `${name.replace(' ', '-')}.test`;
      const [, added] = await Promise.all([
        (async () => {
          certify(cluster, 'one', exchanged);
          await until(15_000, 'the new certificate', async () => (await shown(port)) === exchanged, 50);
        })(),
        crowd.add(CLIENTS / 4),
      ]);
      assert.equal(added.length, CLIENTS / 4);
      await crowd.census();
      assert.deepEqual(crowd.failures, {}, `no errors, ${name}`);
      assert.equal(crowd.upgraded, CLIENTS / 2);
      t.diagnostic(`${name}: ${JSON.stringify(crowd.latency)} ms to the first answer`);
      if (name === 'default') options.agent.destroy();
    }
    const [{ sundew }] = await cluster.list();
    assert.equal(sundew.tls.error, null);
  });

  test('what a worker is told of who comes by TLS', async (t) => {
    const cluster = await start();
    t.after(() => cluster.close());
    const { url, port } = cluster.tls;
    for (const options of [{ transports: ['polling'] }, { transports: ['websocket'] }, {}]) {
      const socket = await connect(url, { ...trusting, ...options });
      t.after(() => socket.close());
      if (Object.keys(options).length === 0) await upgraded(socket);
      const { address, handshake } = await ask(socket, 'whoami');
      for (const told of [address, handshake].filter((one) => one !== undefined)) {
        assert.match(told, /^(::ffff:)?127\.0\.0\.1(:\d+)?$|^(\[?::1\]?)(:\d+)?$/, JSON.stringify(options));
      }
      const payload = Buffer.alloc(300_000, 7);
      const echoed = await new Promise((resolve) => socket.once('echo', resolve).emit('echo', payload));
      assert.deepEqual(Buffer.from(echoed), payload);
    }
    const plain = await fetch(`http://localhost:${port}/`).then((answer) => answer.json());
    assert.match(plain.error, /speaks TLS/);
  });

  test('HTTP/2: many polls wait on one connection, and no websocket is promised', async (t) => {
    const cluster = await start();
    t.after(() => cluster.close());
    const session = http2.connect(cluster.tls.url, trusting);
    t.after(() => session.destroy());
    const settings = await new Promise((resolve) => session.once('remoteSettings', resolve));
    assert.notEqual(settings.enableConnectProtocol, true);
    const path = '/socket.io/?EIO=4&transport=polling';
    const sids = await Promise.all(
      Array.from({ length: 50 }, async () => {
        const { status, text } = await over2(session, path);
        assert.equal(status, 200, text);
        return JSON.parse(text.slice(1)).sid;
      }),
    );
    const sid = (index) => `${path}&sid=${sids[index]}`;
    // All of them wait at once, on the one connection; each gets its own answer.
    const polls = sids.map(async (_, index) => {
      const connected = over2(session, sid(index));
      await over2(session, sid(index), { method: 'POST', body: '40' });
      assert.match((await connected).text, /^40\{"sid"/);
      const waits = over2(session, sid(index));
      await sleep(300);
      await over2(session, sid(index), { method: 'POST', body: `420["echo-ack",${index}]` });
      assert.equal((await waits).text, `430[${index}]`);
    });
    await Promise.all(polls);
    assert.equal((await over2(session, `${path}&sid=AAAAAAAAAAAAAAAAAAAA`)).status, 400);
    const body = 'x'.repeat(200_000);
    assert.ok((await over2(session, '/nothing', { method: 'POST', body })).status < 500);
    // As curl and as a client that gives up on a poll.
    const curl = execFileSync('curl', ['-sk', '--http2', '-w', ' %{http_version} %{http_code}', `${cluster.tls.url}${path}`], { encoding: 'utf8' });
    assert.match(curl, /^0\{.*"upgrades":\["websocket"\].*\} 2 200$/);
    const given = session.request({ ':path': sid(0) });
    given.on('error', () => {});
    await sleep(100);
    given.close(http2.constants.NGHTTP2_CANCEL);
    assert.equal((await over2(session, path)).status, 200, 'the connection goes on');
  });

  test('a bad new certificate changes nothing and is shown; the right one is told by the name asked for', async (t) => {
    const cluster = await start({}, ['other.test']);
    t.after(() => cluster.close());
    const { port } = cluster.tls;
    assert.equal(await shown(port), 'localhost');
    assert.equal(await shown(port, 'other.test'), 'other.test');
    assert.equal(await shown(port, 'nobody.test'), 'localhost', 'the first one for all others');
    cluster.file('one.key', fs.readFileSync(`${cluster.dir}/other.test.key`, 'utf8'));
    const told = await until(15_000, 'the error is shown', async () => (await cluster.list())[0].sundew.tls.error, 100);
    assert.match(told, /one\.key: the private key does not belong to the certificate/);
    assert.match((await cluster.ok('describe', '0')).stdout, /not used: .*one\.key/);
    assert.equal(await shown(port), 'localhost');
    certify(cluster, 'one', 'healed.test');
    await cluster.ok('reload', 'echo');
    await until(15_000, 'the new one', async () => (await shown(port)) === 'healed.test', 100);
    assert.equal((await cluster.list())[0].sundew.tls.error, null);
  });

  test('handshakes that never end are ended; sessions are resumed; an end is said', async (t) => {
    const cluster = await start({ sundew: { limits: { handshakeTimeout: '500ms' } } });
    t.after(() => cluster.close());
    const { port, url } = cluster.tls;
    const slow = Array.from({ length: 50 }, () => net.connect(port).on('error', () => {}));
    await Promise.all(slow.map((socket) => new Promise((resolve) => socket.once('close', resolve))));
    const answer = await new Promise((resolve, reject) => {
      const tickets = [];
      const first = tls.connect({ port, servername: 'localhost', ...trusting });
      first.on('session', (ticket) => tickets.push(ticket));
      first.on('error', reject);
      let text = '';
      first.on('data', (data) => (text += data));
      // 'end' comes only with a close_notify; without, it would be an error.
      first.once('end', () => resolve({ text, ticket: tickets.at(-1) }));
      first.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    });
    assert.match(answer.text, /^HTTP\/1\.1 \d+ /);
    const again = tls.connect({ port, servername: 'localhost', session: answer.ticket, ...trusting });
    await new Promise((resolve) => again.once('secureConnect', resolve));
    assert.ok(again.isSessionReused());
    again.destroy();
    const { front } = JSON.parse((await cluster.ok('jlist')).stdout)[0].sundew;
    assert.ok(front === undefined || front.rejected_tls >= 50);
    const socket = await connect(url, { ...trusting, transports: ['websocket'] });
    socket.close();
    const missing = await cluster.sundew('start', cluster.file('bad.json', { apps: [app({ name: 'bad', sundew: { tls: { cert: 'nowhere.pem', key: 'one.key', listen: 1 } } })] }));
    assert.equal(missing.code, 1);
    assert.match(missing.text, /`nowhere.pem` of `sundew.tls` is not a file/);
  });

  test('a browser', { skip: !CHROMIUM && 'no chromium' }, async (t) => {
    const cluster = await start();
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--ignore-certificate-errors', '--disable-quic'] });
    // The page is plain, from elsewhere: what counts is the traffic of the official client.
    const script = fs.readFileSync(new URL('../node_modules/socket.io-client/dist/socket.io.min.js', import.meta.url));
    const page = http.createServer((request, response) => {
      response.setHeader('content-type', request.url === '/client.js' ? 'text/javascript' : 'text/html');
      response.end(request.url === '/client.js' ? script : '<script src=/client.js></script>');
    });
    await new Promise((resolve) => page.listen(0, resolve));
    t.after(async () => (await browser.close(), page.close(), cluster.close()));
    const tab = await (await browser.newContext({ ignoreHTTPSErrors: true, bypassCSP: true })).newPage();
    const protocols = new Set();
    const devtools = await tab.context().newCDPSession(tab);
    await devtools.send('Network.enable');
    devtools.on('Network.responseReceived', ({ response }) => response.url.includes('transport=polling') && protocols.add(response.protocol));
    await tab.goto(`${cluster.tls.url}/`);
    await tab.addScriptTag({ content: script.toString() });
    const result = await tab.evaluate(async () => {
      const polling = window.io({ transports: ['polling'], forceNew: true });
      const upgrading = window.io({ forceNew: true });
      const says = (socket) => new Promise((resolve) => socket.emit('echo-ack', 'hello', resolve));
      const answers = [await says(polling), await says(upgrading)];
      while (upgrading.io.engine.transport.name !== 'websocket') await new Promise((resolve) => setTimeout(resolve, 20));
      return [...answers, await says(upgrading), polling.io.engine.transport.name];
    });
    assert.deepEqual(result, ['hello', 'hello', 'hello', 'polling']);
    assert.deepEqual([...protocols], ['h2'], 'polls go over HTTP/2, the websocket over a connection of its own');
  });
});
