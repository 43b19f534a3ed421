// PROXY protocol headers together with what else a front door can do: before TLS that ends there, and on a port that
// several apps share.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import net from 'node:net';
import { describe, test } from 'node:test';
import tls from 'node:tls';
import { Cluster, app, freePort, kind } from '../lib/cluster.mjs';
import { proxy1, proxy2 } from '../lib/proxy.mjs';
import { until } from '../lib/wait.mjs';
import { WEBSOCKET, Wire, websocket } from '../lib/wire.mjs';

/** What is said, and who is meant. */
const HEADERS = [[proxy1('203.0.113.7'), '203.0.113.7'], [proxy1('2001:db8::7'), '2001:db8::7'], [proxy2('203.0.113.8'), '203.0.113.8']];
const trusting = { trustedProxies: ['127.0.0.1'], proxyProtocol: 'require' };

/** An address as sockets write it, without its port. */
const bare = (address) => address.replace(/^\[(.*)\](:\d+)?$/, '$1').replace(/^(::ffff:)?(\d+\.\d+\.\d+\.\d+)(:\d+)?$/, '$2');

/** The answer to a request for this host. */
const get = (wire, path, Host, headers = {}) => {
  const lines = Object.entries({ Host, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return wire.send(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`).response();
};

/** What the program says of who asks, on a websocket. */
async function whoami(wire, host) {
  assert.equal((await get(wire, websocket(), host, WEBSOCKET)).status, 101);
  assert.match(await wire.frame(), /^0\{/);
  wire.text('40');
  await wire.frame();
  wire.text('420["whoami"]');
  return JSON.parse((await wire.frame()).slice(3))[0];
}

/** A connection that says `header`, and is encrypted after it. */
async function encrypted(port, header) {
  const socket = net.connect({ port, host: '127.0.0.1' });
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  socket.write(header);
  const secure = tls.connect({ socket, servername: 'localhost', rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] });
  await new Promise((resolve, reject) => secure.once('secureConnect', resolve).once('error', reject).once('close', () => reject(new Error('closed'))));
  return new Wire(secure);
}

describe(`PROXY protocol, ${kind} workers`, () => {
  test('before TLS: the worker sees the client, on requests and on websockets', async (t) => {
    const port = await freePort();
    const cluster = await Cluster.start({
      prepare: ({ dir }) => {
        const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
        execFileSync('openssl', ['req', '-x509', ...curve, '-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', `${dir}/one.key`, '-out', `${dir}/one.pem`], { stdio: 'ignore' });
      },
      apps: [app({ instances: 2, sundew: { ...trusting, tls: { cert: 'one.pem', key: 'one.key', listen: port } } })],
      answers: false,
    });
    t.after(() => cluster.close());
    await until(10_000, 'it answers', async () => {
      const wire = await encrypted(port, HEADERS[0][0]).catch(() => undefined);
      const status = wire && (await get(wire, '/address', 'localhost').then((response) => response.status, () => 0));
      wire?.destroy();
      return status === 200;
    });
    for (const [header, client] of HEADERS) {
      const wire = await encrypted(port, header);
      t.after(() => wire.destroy());
      assert.equal(bare((await get(wire, '/address', 'localhost')).body), client);
      assert.equal(bare((await whoami(wire, 'localhost')).address), client);
    }
    await assert.rejects(encrypted(port, ''), 'who does not say it is not served');
  });

  test('on a port that two apps share: each is told of the client', async (t) => {
    const PORT = await freePort();
    const one = (name, more) => app({ name, instances: 2, env: { PORT }, sundew: { ...trusting, ...more } });
    const cluster = await Cluster.start({ daemon: true, apps: [one('rest'), one('named', { hosts: ['named.test'] })], answers: false });
    t.after(() => cluster.close());
    const ask = async (host, header) => {
      const wire = await Wire.open(PORT);
      t.after(() => wire.destroy());
      wire.send(header);
      const { status, body } = await get(wire, '/address', host);
      assert.equal(status, 200, host);
      return { seen: bare(body), who: await whoami(wire, host) };
    };
    await until(10_000, 'both answer', async () => (await Promise.all(['rest.test', 'named.test'].map((host) => ask(host, HEADERS[0][0]).then(() => true, () => false)))).every(Boolean));
    const processes = JSON.parse((await cluster.ok('jlist')).stdout);
    const name = (pid) => processes.find((process) => process.pid === pid)?.name;
    for (const [host, expected] of [['rest.test', 'rest'], ['named.test', 'named']]) {
      for (const [header, client] of HEADERS) {
        const { seen, who } = await ask(host, header);
        assert.deepEqual([seen, bare(who.address), name(who.pid)], [client, client, expected]);
      }
    }
  });
});
