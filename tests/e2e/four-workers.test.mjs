// What is off by default, behind the front door with four workers: clients of Socket.IO 2, on each transport and by JSONP,
// permessage-deflate, and compressed polling answers. Each session stays with its worker, and upgrades are handed over.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { io } from 'socket.io-client';
import io2 from 'socket.io-client-2';
import WebSocket from 'ws';
import { SharedAgent, ask, connect, upgraded } from '../lib/client.mjs';
import { Cluster, app } from '../lib/cluster.mjs';
import { CHROMIUM, jsonpPage } from '../lib/jsonp.mjs';
import { establishedInodes, socketInodes } from '../lib/proc.mjs';
import { once, until, within } from '../lib/wait.mjs';
import { WEBSOCKET, Wire } from '../lib/wire.mjs';

const CLIENTS = 24;
const LARGE = 'again and again, '.repeat(6000);
const MODES = {
  polling: { transports: ['polling'] },
  'polling, binary as text': { transports: ['polling'], forceBase64: true },
  websocket: { transports: ['websocket'] },
  default: {},
};

/** Old clients take no promises. */
const old = (socket, event, ...args) =>
  within(10_000, `an answer to ${event}`, new Promise((resolve) => socket.emit(event, ...args, resolve)));

/** How many connections that were not there before the supervisor has nothing to do with. */
const handedOver = (cluster, before) => {
  const own = socketInodes(cluster.supervisor());
  return [...establishedInodes(cluster.port)].filter((inode) => !before.has(inode) && !own.has(inode)).length;
};

describe('four workers, clients of Socket.IO 2', () => {
  let cluster;
  before(async () => (cluster = await Cluster.start({ apps: [app({ env: { ECHO_EIO3: '1' } })], daemon: true })));
  after(() => cluster?.close());

  for (const [mode, options] of Object.entries(MODES)) {
    test(mode, async (t) => {
      // Keep-alive connections that all share, so that only the session's id says where a request belongs.
      const agent = new SharedAgent();
      const sockets = [];
      t.after(() => (sockets.forEach((socket) => socket.close()), agent.destroy()));
      const polls = mode.startsWith('polling');
      const before = establishedInodes(cluster.port);
      await Promise.all(Array.from({ length: CLIENTS }, async () => {
        const socket = io2(cluster.url, { ...options, ...(polls && { agent }), forceNew: true, reconnection: false });
        sockets.push(socket);
        await within(15_000, 'connect', new Promise((resolve, reject) => {
          socket.once('connect', resolve);
          socket.once('connect_error', reject);
          socket.once('error', reject);
        }));
        if (mode === 'default') await upgraded(socket);
      }));
      const owners = await Promise.all(sockets.map((socket) => old(socket, 'whoami')));
      assert.equal(new Set(owners.map(({ pid }) => pid)).size, 4, 'all workers have some');
      for (const who of owners) assert.equal(who.transport, polls ? 'polling' : 'websocket');
      const blob = randomBytes(20_000);
      for (let round = 0; round < 5; round++) {
        await Promise.all(sockets.map(async (socket, index) => {
          const [number, back] = await old(socket, 'echo-ack', [index * 100 + round, blob]);
          assert.equal(number, index * 100 + round);
          assert.ok(blob.equals(Buffer.from(back)));
        }));
      }
      assert.deepEqual(await Promise.all(sockets.map((socket) => old(socket, 'whoami'))), owners, 'each is where it was');
      // What one worker's client says, those of the others hear.
      await Promise.all(sockets.map((socket) => old(socket, 'join', mode)));
      const heard = sockets.map((socket) => once(socket, 'broadcast'));
      sockets[0].emit('room-broadcast', mode, blob);
      for (const [bytes] of await Promise.all(heard)) assert.ok(blob.equals(Buffer.from(bytes)));
      if (!polls) await until(5000, 'all websockets to be handed over', () => handedOver(cluster, before) >= CLIENTS);
    });
  }

  test('JSONP: each request on a connection that others use too', async (t) => {
    const wires = await Promise.all([1, 2, 3].map(() => Wire.open(cluster.port)));
    t.after(() => wires.forEach((wire) => wire.destroy()));
    let turn = 0;
    const path = (sid, j) => `/socket.io/?EIO=3&transport=polling&j=${j}${sid ? `&sid=${sid}` : ''}`;
    const get = async (sid, j) => {
      const answer = await wires[turn++ % 3].request('GET', path(sid, j)).response();
      const [, number, text] = /^___eio\[(\d+)\]\((".*")\);$/s.exec(answer.body) ?? assert.fail(`${answer.status} ${answer.body}`);
      assert.equal(Number(number), j);
      return JSON.parse(text);
    };
    const post = async (sid, payload) => {
      const form = { 'Content-Type': 'application/x-www-form-urlencoded' };
      const answer = await wires[turn++ % 3].request('POST', path(sid, 9), form, `d=${encodeURIComponent(payload)}`).response();
      assert.equal(answer.status, 200, answer.body);
    };
    const pids = new Set();
    for (let session = 0; session < 16; session++) {
      const open = await get('', session);
      const { sid } = JSON.parse(/^\d+:0(\{.*?\})(?:\d+:.*)?$/s.exec(open)[1]);
      let seen = open;
      const next = async (word) => {
        while (!seen.includes(word)) seen = await get(sid, session);
        return seen;
      };
      await next('2:40');
      for (let round = 0; round < 4; round++) {
        const packet = `42["echo","${session}/${round}"]`;
        await post(sid, `${packet.length}:${packet}`);
        assert.equal(await get(sid, session), `${packet.length}:${packet}`);
      }
      await post(sid, '13:420["whoami"]');
      seen = await get(sid, session);
      pids.add(/"pid":(\d+)/.exec(seen)[1]);
      await post(sid, '1:1');
    }
    assert.equal(pids.size, 4);
  });

  test('JSONP, in a browser', { skip: !CHROMIUM && 'no chromium' }, async (t) => {
    const { page, fetched } = await jsonpPage(t);
    const results = await within(60_000, 'the page', page.evaluate(async ([url, clients]) => {
      const session = async (number) => {
        // eslint-disable-next-line no-undef
        const socket = io(url, { transports: ['polling'], forceJSONP: true, forceNew: true, reconnection: false });
        const ask = (...args) => new Promise((resolve, reject) => {
          socket.once('disconnect', reject);
          socket.emit(...args, resolve);
        });
        await new Promise((resolve, reject) => {
          socket.on('connect', resolve);
          socket.on('connect_error', (error) => reject(new Error(String(error))));
        });
        const { pid, transport } = await ask('whoami');
        const answers = [];
        for (let round = 0; round < 5; round++) answers.push(await ask('echo-ack', `${number}/${round} ü`));
        socket.close();
        return { pid, transport, answers };
      };
      return Promise.all(Array.from({ length: clients }, (_, number) => session(number)));
    }, [cluster.url, 12]));
    assert.equal(new Set(results.map(({ pid }) => pid)).size, 4, 'all workers have some');
    results.forEach(({ transport, answers }, number) => {
      assert.equal(transport, 'polling');
      assert.deepEqual(answers, [0, 1, 2, 3, 4].map((round) => `${number}/${round} ü`));
    });
    assert.ok(fetched.some(([kind, url]) => kind === 'script' && /[?&]j=/.test(url)), 'it came as scripts');
  });

  test('an upgrade on the connection that opened the session', async (t) => {
    for (let round = 0; round < 8; round++) {
      const wire = await Wire.open(cluster.port);
      t.after(() => wire.destroy());
      const { body } = await wire.request('GET', '/socket.io/?EIO=3&transport=polling&b64=1').response();
      const sid = /"sid":"([^"]+)"/.exec(body)[1];
      const answer = await wire.request('GET', `/socket.io/?EIO=3&transport=websocket&sid=${sid}`, WEBSOCKET).response();
      assert.equal(answer.status, 101);
      wire.text('2probe');
      assert.equal(await wire.frame(), '3probe');
      wire.text('5');
      wire.text('42["echo","first"]');
      let frame;
      do frame = await wire.frame();
      while (frame === '40');
      assert.equal(frame, '42["echo","first"]');
    }
  });

  test('clients of today beside them', async (t) => {
    const sockets = [await connect(cluster.url), await connect(cluster.url, { transports: ['polling'] })];
    t.after(() => sockets.forEach((socket) => socket.close()));
    for (const socket of sockets) assert.equal(await ask(socket, 'echo-ack', 4), 4);
  });
});

for (const how of ['alone', 'takeover']) {
  describe(`four workers, permessage-deflate (${how})`, () => {
    let cluster;
    before(async () => (cluster = await Cluster.start({ apps: [app({ env: { ECHO_DEFLATE: how } })], daemon: true })));
    after(() => cluster?.close());

    for (const transports of [['websocket'], ['polling', 'websocket']]) {
      test(`socket.io-client, ${transports.join(', then ')}`, async (t) => {
        const before = establishedInodes(cluster.port);
        const options = { transports, forceNew: true, reconnection: false, perMessageDeflate: { threshold: 0 } };
        const sockets = Array.from({ length: CLIENTS }, () => io(cluster.url, options));
        t.after(() => sockets.forEach((socket) => socket.close()));
        await Promise.all(sockets.map((socket) => once(socket, 'connect', 15_000)));
        await Promise.all(sockets.map((socket) => upgraded(socket)));
        const owners = await Promise.all(sockets.map((socket) => ask(socket, 'whoami')));
        assert.equal(new Set(owners.map(({ pid }) => pid)).size, 4);
        for (const socket of sockets) assert.match(socket.io.engine.transport.ws.extensions, /permessage-deflate/);
        for (let round = 0; round < 3; round++) {
          const read = sockets.map((socket) => socket.io.engine.transport.ws._socket.bytesRead);
          for (const text of await Promise.all(sockets.map((socket) => ask(socket, 'echo-ack', LARGE)))) assert.equal(text, LARGE);
          sockets.forEach((socket, index) => {
            const came = socket.io.engine.transport.ws._socket.bytesRead - read[index];
            assert.ok(came < LARGE.length / 20, `${came} bytes for ${LARGE.length}`);
          });
        }
        await Promise.all(sockets.map((socket) => ask(socket, 'join', 'deflate')));
        const heard = sockets.map((socket) => once(socket, 'broadcast'));
        sockets[0].emit('room-broadcast', 'deflate', { text: LARGE });
        for (const [{ text }] of await Promise.all(heard)) assert.equal(text, LARGE);
        assert.deepEqual(await Promise.all(sockets.map((socket) => ask(socket, 'whoami'))), owners);
        await until(5000, 'all websockets to be handed over', () => handedOver(cluster, before) >= CLIENTS);
      });
    }

    test('who does not offer it gets none', async (t) => {
      const ws = new WebSocket(`ws://127.0.0.1:${cluster.port}/socket.io/?EIO=4&transport=websocket`, { perMessageDeflate: false });
      t.after(() => ws.close());
      assert.match(String((await once(ws, 'message'))[0]), /^0\{/);
      assert.equal(ws.extensions, '');
    });
  });
}

describe('four workers, compressed polling answers', () => {
  let cluster;
  before(async () => (cluster = await Cluster.start({ daemon: true })));
  after(() => cluster?.close());

  for (const encoding of ['gzip', 'deflate']) {
    test(encoding, async () => {
      await Promise.all(Array.from({ length: CLIENTS }, async (_, index) => {
        const base = `${cluster.url}/socket.io/?EIO=4&transport=polling`;
        const { sid } = JSON.parse((await (await fetch(base)).text()).slice(1));
        const get = () => fetch(`${base}&sid=${sid}`, { headers: { 'accept-encoding': encoding } });
        const post = (body) => fetch(`${base}&sid=${sid}`, { method: 'POST', body });
        assert.equal((await post('40')).status, 200);
        assert.match(await (await get()).text(), /^40\{/);
        for (let round = 0; round < 3; round++) {
          const packet = `42${JSON.stringify(['echo', LARGE, index, round])}`;
          assert.equal((await post(packet)).status, 200);
          const answer = await get();
          assert.equal(answer.headers.get('content-encoding'), encoding);
          assert.ok(Number(answer.headers.get('content-length')) < LARGE.length / 20, 'its length is the compressed one');
          assert.equal(await answer.text(), packet);
        }
      }));
    });
  }
});
