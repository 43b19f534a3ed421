// Behind proxies the workers see the clients, not the proxies: by X-Forwarded-For and Forwarded, by PROXY protocol headers,
// on requests and on websockets that were handed over. And nobody but the proxies can say who somebody is.

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { MODES, ask, connect, upgraded } from '../lib/client.mjs';
import { Cluster, app, freePort } from '../lib/cluster.mjs';
import { proxy1, proxy2 } from '../lib/proxy.mjs';
import { sleep, until } from '../lib/wait.mjs';
import { WEBSOCKET, Wire, polling, session, websocket } from '../lib/wire.mjs';

const PROXY = '127.0.0.61';
const OTHER = '127.0.0.62';

const start = (sundew, settings = {}) => Cluster.start({ apps: [app({ instances: 2, ...settings, sundew })], answers: sundew.proxyProtocol !== 'require' });

/** The address is this client's, in whichever way a socket writes it, with a port or without. */
const is = (address, client) => {
  const bare = address.replace(/^\[?(::ffff:)?/, '').replace(/\]?(:\d+)?$/, (end) => (client.includes(':') && !end.startsWith(']') ? end : ''));
  assert.equal(bare, client, `${address} is ${client}`);
};

/** GET /address from this source address. */
const get = (port, localAddress, headers = {}) => new Promise((resolve, reject) => {
  http.get({ port, host: '127.0.0.1', path: '/address', localAddress, agent: false, headers }, async (response) => {
    let text = '';
    for await (const chunk of response) text += chunk;
    resolve(text);
  }).on('error', reject);
});

/** Opens a connection and says these bytes first. */
const say = async (port, ...parts) => {
  const wire = await Wire.open(port);
  for (const part of parts) wire.send(part);
  return wire;
};

describe('X-Forwarded-For of a trusted proxy', () => {
  let cluster;
  before(async () => {
    cluster = await start({ trustedProxies: [PROXY, '10.0.0.0/8'] });
  });
  after(() => cluster?.close());

  test('requests have the address of the first untrusted hop', async () => {
    is(await get(cluster.port, PROXY, { 'X-Forwarded-For': '6.6.6.6, 203.0.113.7' }), '203.0.113.7');
    is(await get(cluster.port, PROXY, { 'X-Forwarded-For': '6.6.6.6, 203.0.113.7, 10.1.1.1' }), '203.0.113.7');
    is(await get(cluster.port, PROXY, { 'X-Forwarded-For': '6.6.6.6, [2001:db8::7]:4711, 10.1.1.1' }), '2001:db8::7');
    is(await get(cluster.port, PROXY, { 'X-Forwarded-For': '6.6.6.6, unknown' }), PROXY);
    is(await get(cluster.port, PROXY, { Forwarded: 'for=6.6.6.6' }), PROXY);
    is(await get(cluster.port, PROXY), PROXY);
  });

  test('of one keep-alive connection each request has its own client', async (t) => {
    const socket = net.connect({ port: cluster.port, host: '127.0.0.1', localAddress: PROXY });
    const wire = new Wire(socket);
    t.after(() => wire.destroy());
    for (const client of ['203.0.113.7', '203.0.113.8', '203.0.113.7']) {
      is((await wire.request('GET', '/address', { 'X-Forwarded-For': client }).response()).body, client);
    }
    is((await wire.request('GET', '/address').response()).body, PROXY);
  });

  test('nobody else is believed', async () => {
    is(await get(cluster.port, OTHER, { 'X-Forwarded-For': '6.6.6.6', Forwarded: 'for=6.6.6.6', 'x-sundew-peer': '6.6.6.6:6' }), OTHER);
  });

  for (const [mode, options] of Object.entries(MODES)) {
    test(`a session: ${mode}`, async (t) => {
      for (const [localAddress, seen] of [[PROXY, '203.0.113.9'], [OTHER, OTHER]]) {
        const agent = new http.Agent({ keepAlive: true, localAddress });
        const socket = await connect(cluster.url, { ...options, agent, extraHeaders: { 'X-Forwarded-For': '6.6.6.6, 203.0.113.9' } });
        t.after(() => (socket.close(), agent.destroy()));
        if (mode === 'default') await upgraded(socket);
        is((await ask(socket, 'whoami')).address, seen);
      }
    });
  }
});

test('Forwarded of a trusted proxy, where it is the header that counts', async (t) => {
  const cluster = await start({ trustedProxies: ['loopback'], forwardedHeader: 'forwarded' });
  t.after(() => cluster.close());
  is(await get(cluster.port, PROXY, { Forwarded: 'for=6.6.6.6, for="[2001:db8::7]:4711";proto=https', 'X-Forwarded-For': '6.6.6.6' }), '2001:db8::7');
  is(await get(cluster.port, PROXY, { Forwarded: 'for="x, for=6.6.6.6', 'X-Forwarded-For': '6.6.6.6' }), PROXY);
});

describe('PROXY protocol required', () => {
  let cluster;
  before(async () => {
    cluster = await start({ trustedProxies: ['127.0.0.1'], proxyProtocol: 'require' });
    await until(10_000, 'an answer', async () => {
      const wire = await say(cluster.port, proxy1('203.0.113.7'), 'GET / HTTP/1.1\r\nHost: t\r\n\r\n');
      return (await wire.response()).status === 200;
    });
  });
  after(() => cluster?.close());

  const HEADERS = {
    'version 1': [proxy1('203.0.113.7'), '203.0.113.7'],
    'version 1, IPv6': [proxy1('2001:db8::7'), '2001:db8::7'],
    'version 1, UNKNOWN': [Buffer.from('PROXY UNKNOWN\r\n'), '127.0.0.1'],
    'version 2': [proxy2('203.0.113.7'), '203.0.113.7'],
    'version 2 with TLVs': [proxy2('203.0.113.7', { tlvs: Buffer.from([4, 0, 3, 1, 2, 3, 5, 0, 0]) }), '203.0.113.7'],
    'version 2, LOCAL': [proxy2('203.0.113.7', { command: 0 }), '127.0.0.1'],
  };
  for (const [name, [header, client]] of Object.entries(HEADERS)) {
    test(`${name}: requests, and a websocket handed over, in whatever pieces`, async (t) => {
      for (const piece of [header.length, 7, 1]) {
        const wire = await Wire.open(cluster.port);
        t.after(() => wire.destroy());
        for (let at = 0; at < header.length; at += piece) {
          wire.send(header.subarray(at, at + piece));
          if (piece < header.length) await sleep(1);
        }
        is((await wire.request('GET', '/address').response()).body, client);
        // The same connection, later: nothing of it was lost, nothing is left over.
        const upgrade = wire.request('GET', websocket(), WEBSOCKET);
        assert.equal((await upgrade.response()).status, 101);
        assert.match(await wire.frame(), /^0\{/);
        wire.text('40');
        await wire.frame();
        wire.text('420["whoami"]');
        is(JSON.parse((await wire.frame()).slice(3))[0].address, client);
      }
      // All in one write, the websocket too.
      const first = `GET ${websocket()} HTTP/1.1\r\nHost: t\r\n${Object.entries(WEBSOCKET).map(([key, value]) => `${key}: ${value}`).join('\r\n')}\r\n\r\n`;
      const wire = await say(cluster.port, Buffer.concat([header, Buffer.from(first)]));
      t.after(() => wire.destroy());
      assert.equal((await wire.response()).status, 101);
      assert.match(await wire.frame(), /^0\{/);
    });
  }

  test('what is none, or a bad one, is told so', async () => {
    for (const bad of ['GET / HTTP/1.1\r\nHost: t\r\n\r\n', 'PROXY TCP4 1.2.3.4\r\n', 'PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n', Buffer.concat([proxy2('1.2.3.4').subarray(0, 12), Buffer.from([0x31, 0x11, 0, 0])])]) {
      const wire = await say(cluster.port, bad);
      const { status, body } = await wire.response();
      assert.equal(status, 400, String(bad));
      assert.match(body, /PROXY protocol/);
      await wire.closed();
    }
  });

  test('others than the proxy are not served', async (t) => {
    const wire = new Wire(net.connect({ port: cluster.port, host: '127.0.0.1', localAddress: OTHER }));
    t.after(() => wire.destroy());
    wire.send(proxy1('6.6.6.6')).request('GET', '/address');
    await wire.closed();
    assert.equal(wire.buffer.length, 0);
  });

  for (const version of ['send-proxy', 'send-proxy-v2']) {
    test(`the real HAProxy, ${version}: every kind of client`, async (t) => {
      const port = await freePort();
      const config = cluster.file(`${version}.cfg`, [
        'defaults', '  mode tcp', '  timeout connect 5s', '  timeout client 60s', '  timeout server 60s',
        'listen front', `  bind 127.0.0.1:${port}`, `  server one 127.0.0.1:${cluster.port} ${version}`, '',
      ].join('\n'));
      const haproxy = cluster.spawn('haproxy', ['-f', config]);
      t.after(() => haproxy.kill('SIGKILL'));
      await until(5000, 'HAProxy', () => get(port, OTHER).then(() => true, () => false));
      for (const [mode, options] of Object.entries(MODES)) {
        const agent = new http.Agent({ keepAlive: true, localAddress: '127.0.0.63' });
        const socket = await connect(`http://127.0.0.1:${port}`, { ...options, agent, extraHeaders: { 'X-Forwarded-For': '6.6.6.6' } });
        t.after(() => (socket.close(), agent.destroy()));
        if (mode === 'default') await upgraded(socket);
        is((await ask(socket, 'whoami')).address, '127.0.0.63');
      }
    });
  }
});

test('PROXY protocol accepted: from the proxy, and only from it', async (t) => {
  const cluster = await start({ trustedProxies: ['127.0.0.1'], proxyProtocol: 'accept' });
  t.after(() => cluster.close());
  is(await get(cluster.port, '127.0.0.1'), '127.0.0.1');
  is(await get(cluster.port, OTHER), OTHER);
  const wire = await say(cluster.port, proxy2('203.0.113.7'));
  t.after(() => wire.destroy());
  is((await wire.request('GET', '/address', { 'X-Forwarded-For': '6.6.6.6' }).response()).body, '203.0.113.7', 'and that one is no proxy');
  const liar = new Wire(net.connect({ port: cluster.port, host: '127.0.0.1', localAddress: OTHER }));
  t.after(() => liar.destroy());
  liar.send(proxy1('6.6.6.6')).request('GET', '/address');
  assert.equal((await liar.response()).status, 400);
});

describe('affinity ip behind a proxy', () => {
  let cluster;
  before(async () => {
    cluster = await start({ affinity: 'ip', trustedProxies: ['127.0.0.1'], forwardedHeader: 'x-forwarded-for' }, { instances: 4 });
  });
  after(() => cluster?.close());

  const clients = Array.from({ length: 64 }, (_, index) => `203.0.${index}.7`);

  /** Which worker this client's websocket meets. */
  const worker = async (client) => {
    const wire = await Wire.open(cluster.port);
    wire.request('GET', websocket(), { ...WEBSOCKET, 'X-Forwarded-For': client });
    assert.equal((await wire.response()).status, 101);
    await wire.frame();
    wire.text('40');
    await wire.frame();
    wire.text('420["whoami"]');
    const { instance } = JSON.parse((await wire.frame()).slice(3))[0];
    wire.destroy();
    return instance;
  };
  const all = () => Promise.all(clients.map(worker));

  test('a client stays where its address leads, on every connection; others are elsewhere', async () => {
    const first = await all();
    assert.deepEqual(await all(), first);
    assert.ok(new Set(first).size >= 3, `64 clients are on ${new Set(first).size} of 4 workers`);
    // By polling too: the session is found again from any connection with the same client.
    const wire = await Wire.open(cluster.port);
    const sid = await session({ request: (method, path, headers, body) => wire.request(method, path, { ...headers, 'X-Forwarded-For': clients[0] }, body) });
    const other = await Wire.open(cluster.port);
    other.request('POST', polling(sid), { 'X-Forwarded-For': clients[0] }, '420["whoami"]');
    assert.equal((await other.response()).status, 200);
    wire.destroy();
    other.destroy();
  });

  test('a worker more, or one less, moves its share and no more', async () => {
    const before = await all();
    await cluster.ok('scale', 'echo', '5');
    await until(15_000, 'the fifth is up', async () => (await cluster.workers()).length === 5);
    const more = await all();
    const moved = clients.filter((_, index) => more[index] !== before[index]);
    assert.ok(moved.length > 0 && moved.length < clients.length / 2, `${moved.length} of ${clients.length} moved`);
    for (const [index, instance] of more.entries()) assert.ok(instance === before[index] || instance === 4, 'those that moved are with the new one');
    await cluster.ok('scale', 'echo', '4');
    await until(15_000, 'the fifth is gone', async () => (await cluster.workers()).length === 4);
    assert.deepEqual(await all(), before, 'and come back');
  });
});

test('connections per address are limited, the proxy\'s are not', async (t) => {
  const cluster = await start({ trustedProxies: [PROXY], limits: { connectionsPerIp: 3 } });
  t.after(() => cluster.close());
  const open = async (localAddress) => {
    const wire = new Wire(net.connect({ port: cluster.port, host: '127.0.0.1', localAddress }));
    t.after(() => wire.destroy());
    const answer = await wire.request('GET', '/address').response();
    return { wire, status: answer.status, headers: answer.headers };
  };
  const wires = [];
  for (let count = 0; count < 3; count++) wires.push(await open(OTHER));
  assert.deepEqual(wires.map(({ status }) => status), [200, 200, 200]);
  const refused = await open(OTHER);
  assert.equal(refused.status, 429);
  assert.equal(refused.headers['retry-after'], '1');
  assert.equal((await open('127.0.0.64')).status, 200, 'another address');
  for (let count = 0; count < 5; count++) assert.equal((await open(PROXY)).status, 200);
  // A websocket is its worker's, once it is handed over.
  assert.equal((await wires[0].wire.request('GET', websocket(), WEBSOCKET).response()).status, 101);
  await until(5000, 'room for one more', async () => (await open(OTHER)).status === 200);
});

test('mistakes are found before anything starts', async (t) => {
  const { Sandbox } = await import('../lib/cluster.mjs');
  const sandbox = new Sandbox();
  t.after(() => sandbox.close());
  for (const [sundew, said] of [
    [{ trustedProxies: ['10.0.0.0/33'] }, /"10\.0\.0\.0\/33" in `sundew\.trustedProxies` is neither an address nor a network/],
    [{ proxyProtocol: 'accept' }, /`proxyProtocol` needs `trustedProxies`/],
    [{ proxyProtocol: 'v2' }, /sundew\.proxyProtocol/],
    [{ limits: { connectionsPerIp: -1 } }, /connectionsPerIp/],
  ]) {
    const file = sandbox.file('bad.json', { apps: [app({ sundew })] });
    const { code, text } = await sandbox.sundew('start', file);
    assert.equal(code, 1);
    assert.match(text, said);
  }
});
