// The official client with `socket.io-msgpack-parser`, every way it can travel, against the echo example with the same
// parser and (to check the test) Node's own server with it: events, acknowledgements both ways, binary, refusal, rooms.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Server } from 'socket.io';
import io2 from 'socket.io-client-2';
import { io as io3 } from 'socket.io-client-3';
import * as parser from 'socket.io-msgpack-parser';
import parser2 from 'socket.io-msgpack-parser-2';
import events from '../apps/events.cjs';
import { MODES, ask, connect, exchange, open, transport, upgraded } from '../lib/client.mjs';
import { Sandbox, freePort, worker } from '../lib/cluster.mjs';
import { once, until, within } from '../lib/wait.mjs';

async function startOurs() {
  const sandbox = new Sandbox();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const child = sandbox.spawn(...worker.alone, { env: { PORT: String(port), PARSER: 'msgpack', ECHO_EIO3: '1' } });
  await until(10_000, 'echo listens', async () => {
    if (child.exitCode !== null) throw new Error(child.output);
    return (await fetch(url)).ok;
  });
  return { url, close: () => sandbox.close() };
}

async function startNode() {
  const server = http.createServer(events.answer);
  const io = new Server(server, { parser, allowEIO3: true });
  events.serve(io);
  await new Promise((resolve) => server.listen(0, resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => (io.close(), server.closeAllConnections()) };
}

for (const [target, start] of Object.entries({ "Node's server": startNode, sundew: startOurs })) {
  describe(`msgpack, ${target}`, () => {
    let server;
    before(async () => (server = await start()));
    after(() => server?.close());

    for (const [mode, settings] of Object.entries(MODES)) {
      const options = { ...settings, parser };

      test(`${mode}: events, acknowledgements, binary`, async (t) => {
        const socket = await connect(`${server.url}/ws`, options);
        t.after(() => socket.close());
        if (mode === 'default') await upgraded(socket);
        assert.equal((await ask(socket, 'whoami')).transport, transport(socket));

        const values = ['text', 7, -1, -70_000, 2 ** 40, 1.5, null, true, { nested: [1, { deep: 'ü→🌱' }] }, ['a', []], 'x'.repeat(70_000)];
        assert.deepEqual(await exchange(socket, 'echo', 'echo', ...values), values);
        const numbers = Array.from({ length: 20_000 }, (_, number) => number * 3);
        assert.deepEqual(await exchange(socket, 'echo', 'echo', numbers), [numbers]);
        assert.deepEqual(await ask(socket, 'echo-ack', { question: 1 }), { question: 1 });

        socket.onAny((event, ...args) => {
          const answer = args.at(-1);
          if (typeof answer === 'function') answer({ answered: args.slice(0, -1) });
        });
        assert.deepEqual(await ask(socket, 'ask-me', 'how are you'), { answered: ['how are you'] });

        const blob = randomBytes(200_000);
        const [echoed] = await exchange(socket, 'echo', 'echo', blob);
        assert.ok(blob.equals(echoed), 'binary event');
        const mixed = await ask(socket, 'echo-ack', { name: 'file', parts: [blob, randomBytes(0)] });
        assert.ok(blob.equals(mixed.parts[0]), 'binary acknowledgement');
        assert.equal(mixed.parts[1].length, 0);
        // Their lengths look like the marker of a date.
        for (const length of [215, 471]) {
          const bytes = new Uint8Array(randomBytes(length));
          const echoed = await ask(socket, 'echo-ack', bytes.buffer);
          assert.deepEqual([...new Uint8Array(echoed)], [...bytes], `an ArrayBuffer of ${length}`);
        }
        // More than JSON's ten attachments.
        const many = Array.from({ length: 50 }, (_, index) => Buffer.from([index]));
        assert.deepEqual((await ask(socket, 'echo-ack', many)).map((part) => part[0]), many.map((part) => part[0]));

        const count = 200;
        const seen = [];
        socket.on('echo', (number) => seen.push(number));
        for (let number = 0; number < count; number++) socket.emit('echo', number);
        await until(10_000, 'all replies', () => seen.length >= count);
        assert.deepEqual(seen, Array.from({ length: count }, (_, number) => number));
      });

      test(`${mode}: broadcasts to a room, text and binary`, async (t) => {
        const sockets = await Promise.all([1, 2, 3].map(() => connect(server.url, options)));
        t.after(() => sockets.forEach((socket) => socket.close()));
        await Promise.all(sockets.slice(0, 2).map((socket) => ask(socket, 'join', 'r')));
        let outsider = 0;
        sockets[2].on('broadcast', () => outsider++);
        for (const payload of [{ text: 'é' }, randomBytes(5000)]) {
          const all = sockets.slice(0, 2).map((socket) => once(socket, 'broadcast', 10_000));
          sockets[0].emit('room-broadcast', 'r', payload);
          for (const [got] of await Promise.all(all)) assert.deepEqual(got, payload);
        }
        await ask(sockets[2], 'echo-ack', 1);
        assert.equal(outsider, 0);
      });

      test(`${mode}: refused, and nowhere`, async (t) => {
        const refused = open(`${server.url}/auth`, { ...options, auth: { token: 'wrong' } });
        t.after(() => refused.close());
        const [error] = await once(refused, 'connect_error');
        assert.equal(error.message, 'not authorized');
        assert.equal(typeof error.data?.content, 'string');
        const nowhere = open(`${server.url}/nowhere`, options);
        t.after(() => nowhere.close());
        assert.equal((await once(nowhere, 'connect_error'))[0].message, 'Invalid namespace');
      });
    }

    for (const [mode, settings] of Object.entries(MODES)) {
      test(`Socket.IO 3, ${mode}`, async (t) => {
        const socket = io3(`${server.url}/ws`, { ...settings, parser, forceNew: true, reconnection: false });
        t.after(() => socket.close());
        const next = (event) => within(10_000, event, new Promise((resolve) => socket.once(event, resolve)));
        const ask3 = (...args) => within(10_000, args[0], new Promise((resolve) => socket.emit(...args, resolve)));
        await next('connect');
        if (mode === 'default') await upgraded(socket);
        const values = ['text', 7, -70_000, 2 ** 40, 1.5, null, true, { nested: [1, { deep: 'ü→🌱' }] }];
        assert.deepEqual(await ask3('echo-ack', values), values);
        socket.onAny((event, ...args) => {
          const answer = args.at(-1);
          if (typeof answer === 'function') answer({ answered: args.slice(0, -1) });
        });
        assert.deepEqual(await ask3('ask-me', 'how are you'), { answered: ['how are you'] });
        const blob = randomBytes(200_000);
        const echoed = next('echo');
        socket.emit('echo', blob);
        assert.ok(blob.equals(await echoed), 'binary event');
        assert.ok(blob.equals((await ask3('echo-ack', { part: blob })).part), 'binary acknowledgement');
      });
    }

    // Its parser writes CONNECT as JSON and counts binary packets as types of their own, both of which no newer parser reads:
    // so it is for the namespace / and text.
    for (const [mode, settings] of Object.entries({ polling: ['polling'], websocket: ['websocket'], default: undefined })) {
      const open = () => io2(server.url, { parser: parser2, forceNew: true, reconnection: false, ...(settings && { transports: settings }) });
      const next = (socket, event) => within(10_000, event, new Promise((resolve) => socket.once(event, resolve)));

      test(`Socket.IO 2 with its own parser, ${mode}`, async (t) => {
        const socket = open();
        t.after(() => socket.close());
        await next(socket, 'connect');
        const ask2 = (...args) => within(10_000, args[0], new Promise((resolve) => socket.emit(...args, resolve)));
        const values = ['text', 7, -70_000, 1.5, null, true, { nested: [1, { deep: 'ü→🌱' }] }];
        assert.deepEqual(await ask2('echo-ack', values), values);
        socket.on('ask-me', (question, answer) => answer({ answered: question }));
        assert.deepEqual(await ask2('ask-me', 'how'), { answered: 'how' });
        const seen = [];
        socket.on('echo', (number) => seen.push(number));
        for (let number = 0; number < 100; number++) socket.emit('echo', number);
        await until(10_000, 'all replies', () => seen.length >= 100);
        assert.deepEqual(seen, Array.from({ length: 100 }, (_, number) => number));

        // What the server sends may be binary.
        const other = await connect(server.url, { parser, transports: ['websocket'] });
        t.after(() => other.close());
        const heard = next(socket, 'broadcast');
        other.emit('broadcast', Buffer.from([1, 2, 3]));
        assert.deepEqual([...new Uint8Array(await heard)], [1, 2, 3]);
        const ended = next(socket, 'disconnect');
        socket.emit('echo', Buffer.from([1]));
        assert.equal(await ended, 'transport close');
      });
    }

    test('a client with another parser is let go', async (t) => {
      const socket = open(server.url, { transports: ['websocket'] });
      t.after(() => socket.close());
      await within(10_000, 'its end', new Promise((resolve) => {
        socket.io.engine.once('close', resolve);
      }));
      assert.equal(socket.connected, false);
    });
  });
}
