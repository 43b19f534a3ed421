// Several apps on one port, told apart by host and path: native and Node.js workers behind one address, over one
// keep-alive connection, through reloads and deletes of one of them.

import assert from 'node:assert/strict';
import http from 'node:http';
import { describe, test } from 'node:test';
import { connect, ask, upgraded } from '../lib/client.mjs';
import { Cluster, app, freePort } from '../lib/cluster.mjs';
import { sleep, until } from '../lib/wait.mjs';

const server = `
const { createServer } = require('node:http');
const { Server } = require('socket.io');
const { NAME: name, SIO: path = '/socket.io' } = process.env;
const server = createServer((request, response) => response.end(name));
new Server(server, { path }).on('connection', (socket) => socket.on('who', (done) => done(name)));
server.listen(process.env.PORT);
`;

/** One request over `agent`'s only connection. */
const get = (port, host, path, agent) =>
  new Promise((resolve, reject) => {
    const request = http.get({ port, path, agent, headers: { host } }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (data) => (text += data));
      response.once('end', () => resolve({ status: response.statusCode, text }));
    });
    request.once('error', reject);
  });

async function start(t) {
  const PORT = await freePort();
  const node = (name, sundew, env) =>
    app({ name, script: 'who.cjs', interpreter: process.execPath, instances: 2, env: { PORT, NAME: name, ...env }, sundew });
  const cluster = await Cluster.start({
    daemon: true,
    files: { 'who.cjs': server },
    apps: [
      app({ name: 'rest', instances: 2, env: { PORT } }),
      node('chat', { hosts: ['chat.test', '*.chat.test'] }),
      node('old', { hosts: ['chat.test'], prefix: '/old' }, { SIO: '/old/socket.io' }),
      node('any', { prefix: ['/any', '/some'] }),
    ],
  });
  t.after(() => cluster.close());
  return cluster;
}

describe('several apps on one port', () => {
  test('each request goes to the app it names', async (t) => {
    const cluster = await start(t);
    const { port } = cluster;
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    t.after(() => agent.destroy());
    let opened = 0;
    const { createConnection } = agent;
    agent.createConnection = (...args) => (opened++, Reflect.apply(createConnection, agent, args));
    for (const [host, path, name] of [
      ['chat.test', '/', 'chat'],
      ['elsewhere.test', '/', 'echo'],
      ['CHAT.test:8080', '/x', 'chat'],
      ['a.chat.test', '/old', 'chat'],
      ['chat.test', '/old?x', 'old'],
      ['chat.test', '/older', 'chat'],
      ['elsewhere.test', '/any/thing', 'any'],
      ['elsewhere.test', '/some', 'any'],
    ]) {
      const { status, text } = await get(port, host, path, agent);
      assert.deepEqual([status, text], [200, name], `${host} ${path}`);
    }
    assert.deepEqual(await get(port, 'elsewhere.test', '/anything', agent), { status: 404, text: '' }, "the native app's own");
    assert.equal(opened, 1, 'over one connection');
    // Every name leads here.
    const lookup = (_, { all }, done) => (all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4));
    const here = new http.Agent({ keepAlive: true, lookup });
    t.after(() => here.destroy());
    for (const [host, name, path] of [['chat.test', 'chat'], ['x.chat.test', 'chat'], ['chat.test', 'old', '/old/socket.io']]) {
      for (const transports of [['polling'], ['websocket'], ['polling', 'websocket']]) {
        const socket = await connect(`http://${host}:${port}`, { transports, path, agent: here });
        t.after(() => socket.close());
        if (transports.length > 1) await upgraded(socket);
        assert.equal(await ask(socket, 'who'), name);
      }
    }
    const plain = await connect(cluster.url);
    t.after(() => plain.close());
    assert.ok((await ask(plain, 'whoami')).pid);
  });

  test('one comes and goes, the others stay', async (t) => {
    const cluster = await start(t);
    const { port } = cluster;
    const asked = { count: 0, wrong: [] };
    let over = false;
    const keep = (async () => {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
      while (!over) {
        const { status, text } = await get(port, 'chat.test', '/', agent).catch(({ message }) => ({ text: message }));
        asked.count++;
        if (status !== 200 || text !== 'chat') asked.wrong.push([status, text]);
        await sleep(5);
      }
      agent.destroy();
    })();
    await cluster.ok('reload', 'rest', '--wait');
    await cluster.ok('stop', 'rest');
    await until(5000, 'nobody is left for other paths', async () => (await get(port, 'elsewhere.test', '/')).status === 404, 50);
    assert.match((await get(port, 'elsewhere.test', '/')).text, /path/);
    assert.equal((await get(port, 'elsewhere.test', '/any')).text, 'any');
    await cluster.ok('delete', 'any');
    await until(5000, 'nor for other hosts', async () => (await get(port, 'elsewhere.test', '/any')).status === 421, 50);
    assert.match((await get(port, 'elsewhere.test', '/')).text, /host/);
    await cluster.ok('start', 'rest');
    await until(5000, 'it is back', async () => (await get(port, 'elsewhere.test', '/')).text === 'echo', 50);
    await cluster.ok('delete', 'old');
    assert.equal((await get(port, 'chat.test', '/old')).text, 'chat');
    over = true;
    await keep;
    assert.deepEqual(asked.wrong, [], `of ${asked.count} requests`);
    assert.ok(asked.count > 5);
    const second = cluster.file('second.json', { apps: [app({ name: 'second', instances: 1, env: { PORT: port } })] });
    const refused = await cluster.sundew('start', second);
    assert.equal(refused.code, 1);
    assert.match(refused.text, /"rest" of this daemon listens there already.*hosts/s);
    assert.equal((await get(port, 'elsewhere.test', '/')).text, 'echo');
    const wrong = cluster.file('wrong.json', { apps: [app({ name: 'wrong', sundew: { hosts: ['http://a'] } })] });
    assert.match((await cluster.sundew('start', wrong)).text, /"http:\/\/a" in `sundew.hosts` is not a host/);
  });
});
