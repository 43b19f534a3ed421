// Requests of many clients share a connection to a Node worker, and yet each is seen to come from its own client: by a
// rate limiter, by `req.ip`, by the handshake. With `trust proxy` and without, as if no one stood between.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { MODES, ask, connect, upgraded } from '../lib/client.mjs';
import { use } from '../lib/workers.mjs';
import { WEBSOCKET, Wire, websocket } from '../lib/wire.mjs';

use('node');
const { Cluster, app } = await import('../lib/cluster.mjs');

const LIMIT = 5;
const SOURCE = `
  const express = require('express');
  const { rateLimit } = require('express-rate-limit');
  const application = express();
  if (process.env.TRUST) application.set('trust proxy', process.env.TRUST);
  const server = require('http').createServer(application);
  const io = new (require('socket.io').Server)(server);
  const legs = new Map();
  const leg = (socket) => legs.get(socket) ?? legs.set(socket, legs.size).get(socket);
  application.get('/', (request, response) => response.end('hello'));
  application.get('/ip', (request, response) => response.json({
    ip: request.ip, remote: request.socket.remoteAddress, port: request.socket.remotePort, family: request.socket.remoteFamily,
    leg: leg(request.socket), headers: request.headers, raw: request.rawHeaders,
  }));
  application.use('/limited', rateLimit({ windowMs: 600000, limit: ${LIMIT}, validate: { xForwardedForHeader: false } }));
  application.get('/limited', (request, response) => response.end('within the limit'));
  // Read only when asked for: an address that belongs to the connection would be another client's by then.
  io.on('connection', (socket) => {
    socket.on('addresses', (done) => done([socket.handshake.address, socket.conn.remoteAddress, socket.request.socket?.remoteAddress].filter(Boolean)));
  });
  server.on('upgrade', (request, socket) => {
    if (request.url === '/own') socket.end('HTTP/1.1 101 Switching Protocols\\r\\nConnection: upgrade\\r\\nUpgrade: own\\r\\n\\r\\n' + request.socket.remoteAddress);
  });
  server.listen(process.env.PORT);
`;

const start = (settings = {}) => Cluster.start({ apps: [app({ script: 'app.cjs', instances: 1, ...settings })], files: { 'app.cjs': SOURCE } });

/** Keeps one connection from an address of its own. */
class Client {
  constructor(port, localAddress) {
    this.port = port;
    this.localAddress = localAddress;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1, localAddress });
  }

  get(path, headers = {}) {
    return new Promise((resolve, reject) => {
      const request = http.get({ host: '127.0.0.1', port: this.port, path, agent: this.agent, headers }, async (response) => {
        let text = '';
        for await (const chunk of response) text += chunk;
        resolve({ status: response.statusCode, text, port: response.socket?.localPort ?? request.socket.localPort });
      });
      request.on('error', reject);
    });
  }
}

const is = (address, own) => assert.ok(address === own || address === `::ffff:${own}`, `${address} is ${own}`);

describe('two clients on one leg, trust proxy unset', () => {
  let cluster;
  const clients = [];
  before(async () => {
    cluster = await start();
    for (const address of ['127.0.0.21', '127.0.0.22']) clients.push(new Client(cluster.port, address));
  });
  after(async () => {
    clients.forEach(({ agent }) => agent.destroy());
    await cluster?.close();
  });

  test('each request has its own address, and nothing else is changed', async () => {
    const legs = new Map();
    for (let round = 0; round < 20; round++) {
      const client = clients[round % 2];
      const answer = JSON.parse((await client.get('/ip', { 'X-Forwarded-For': '6.6.6.6', 'x-sundew-peer': '6.6.6.6:6', 'X-Odd-Case': 'kept' })).text);
      is(answer.ip, client.localAddress);
      is(answer.remote, client.localAddress);
      assert.equal(answer.family, answer.remote.includes(':') ? 'IPv6' : 'IPv4');
      assert.equal(answer.headers['x-sundew-peer'], undefined);
      assert.equal(answer.headers['x-forwarded-for'], '6.6.6.6', "the client's own headers are the program's business");
      assert.ok(!answer.raw.some((text) => /sundew/i.test(text)) && answer.raw.includes('X-Odd-Case'), JSON.stringify(answer.raw));
      legs.set(answer.leg, (legs.get(answer.leg) ?? new Set()).add(client.localAddress));
    }
    assert.ok([...legs.values()].some(({ size }) => size === 2), 'they did share a connection to the worker');
  });

  test('express-rate-limit counts them apart', async () => {
    for (let round = 0; round < LIMIT; round++) assert.equal((await clients[0].get('/limited')).status, 200);
    assert.equal((await clients[0].get('/limited')).status, 429, 'the first is over its limit');
    for (let round = 0; round < LIMIT; round++) assert.equal((await clients[1].get('/limited')).status, 200, 'the second is not');
    assert.equal((await clients[1].get('/limited')).status, 429);
  });

  test('a shouting crowd: every one of 400 requests at once', async () => {
    const many = Array.from({ length: 20 }, (_, index) => new Client(cluster.port, `127.0.1.${index + 1}`));
    await Promise.all(many.flatMap((client) => Array.from({ length: 20 }, async () => {
      is(JSON.parse((await client.get('/ip')).text).ip, client.localAddress);
    })));
    many.forEach(({ agent }) => agent.destroy());
  });

  for (const [mode, options] of Object.entries(MODES)) {
    test(`the handshake: ${mode}`, async (t) => {
      const sockets = [];
      for (const { localAddress } of clients) {
        const agent = new http.Agent({ keepAlive: true, localAddress });
        const socket = await connect(cluster.url, { ...options, agent, extraHeaders: { 'X-Forwarded-For': '6.6.6.6', 'x-sundew-peer': '6.6.6.6:6' } });
        t.after(() => (socket.close(), agent.destroy()));
        if (mode === 'default') await upgraded(socket);
        sockets.push(socket);
      }
      for (let round = 0; round < 3; round++) {
        for (const [index, socket] of sockets.entries()) {
          const [handshake, connection] = await ask(socket, 'addresses');
          is(handshake, clients[index].localAddress);
          is(connection, clients[index].localAddress);
        }
      }
    });
  }

  test('an upgrade to something else', async (t) => {
    const wire = await Wire.open(cluster.port);
    t.after(() => wire.destroy());
    wire.request('GET', '/own', { Connection: 'Upgrade', Upgrade: 'own', 'x-sundew-peer': '6.6.6.6:6' });
    assert.equal((await wire.response()).status, 101);
    await wire.closed();
    is(wire.buffer.toString(), '127.0.0.1');
  });

  test('a websocket by hand', async (t) => {
    const wire = await Wire.open(cluster.port);
    t.after(() => wire.destroy());
    assert.equal((await wire.request('GET', websocket(), { ...WEBSOCKET, 'x-sundew-peer': '6.6.6.6:6' }).response()).status, 101);
    await wire.frame();
    wire.text('40');
    await wire.frame();
    wire.text('420["addresses"]');
    for (const address of JSON.parse((await wire.frame()).slice(3))[0]) is(address, '127.0.0.1');
  });
});

test('trust proxy set: X-Forwarded-For of a trusted client counts, as with no one between', async (t) => {
  const cluster = await start({ env: { TRUST: 'loopback' } });
  t.after(() => cluster.close());
  const client = new Client(cluster.port, '127.0.0.23');
  t.after(() => client.agent.destroy());
  assert.equal(JSON.parse((await client.get('/ip', { 'X-Forwarded-For': '203.0.113.9' })).text).ip, '203.0.113.9');
  is(JSON.parse((await client.get('/ip')).text).ip, '127.0.0.23');
});

test('"preload": false: the address is in X-Forwarded-For, for trust proxy', async (t) => {
  const cluster = await start({ env: { TRUST: 'loopback' }, sundew: { preload: false } });
  t.after(() => cluster.close());
  const client = new Client(cluster.port, '127.0.0.24');
  t.after(() => client.agent.destroy());
  const answer = JSON.parse((await client.get('/ip')).text);
  assert.equal(answer.headers['x-forwarded-for'], '127.0.0.24');
  assert.equal(answer.headers['x-sundew-peer'], undefined);
  const socket = await connect(cluster.url);
  t.after(() => socket.close());
  await upgraded(socket);
});
