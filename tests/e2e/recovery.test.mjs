// Connection state recovery with the official client, on both transports and both parsers: cut off without a word and
// back again it is the same socket, in its rooms, and has every event once and in order.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import * as msgpack from 'socket.io-msgpack-parser';
import { MODES, ask, connect, cuttable, transport, upgraded } from '../lib/client.mjs';
import { Sandbox, freePort, worker } from '../lib/cluster.mjs';
import { once, sleep, until } from '../lib/wait.mjs';

async function start(env) {
  const sandbox = new Sandbox();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const child = sandbox.spawn(...worker.alone, { env: { PORT: String(port), ...env } });
  await until(10_000, 'echo listens', async () => {
    if (child.exitCode !== null) throw new Error(child.output);
    return (await fetch(url)).ok;
  });
  return { url, close: () => sandbox.close() };
}

for (const [name, options, env] of [['json', {}, {}], ['msgpack', { parser: msgpack }, { PARSER: 'msgpack' }]]) {
  describe(`recovery, ${name}`, () => {
    let server;
    let sender;
    before(async () => {
      server = await start({ RECOVERY: '10', ...env });
      sender = await connect(server.url, { ...options, transports: ['websocket'] });
    });
    after(() => {
      sender?.close();
      server?.close();
    });

    for (const [mode, transports] of Object.entries(MODES)) {
      const settings = { ...options, ...transports, reconnection: true, reconnectionDelay: 200, reconnectionDelayMax: 300 };

      test(`${mode}: cut off and back`, async (t) => {
        const socket = await connect(server.url, settings);
        t.after(() => socket.close());
        if (mode === 'default') await upgraded(socket);
        const room = `room ${mode}`;
        await ask(socket, 'join', room);
        assert.equal(socket.recovered, false);

        const seen = [];
        socket.on('broadcast', (payload) => seen.push(payload.number));
        let number = 0;
        // Twice, the first time before any event came.
        for (let round = 0; round < 3; round++) {
          const { id } = socket;
          const back = once(socket, 'connect', 15_000);
          socket.io.engine.close();
          for (let count = 0; count < 20; count++) sender.emit('room-broadcast', room, { number: number++ });
          sender.emit('room-broadcast', `not ${room}`, { number: -1 });
          await ask(sender, 'echo-ack', 1);
          await back;
          assert.equal(socket.id, id, `the same socket, round ${round}`);
          assert.equal(socket.recovered, true);
          const [recovered, rooms] = await ask(socket, 'recovered');
          assert.equal(recovered, true);
          assert.deepEqual(new Set(rooms), new Set([id, room]));
          sender.emit('room-broadcast', room, { number: number++ });
          await until(5000, 'everything', () => seen.length >= number);
        }
        assert.deepEqual(seen, Array.from({ length: number }, (_, index) => index));
      });
    }

    test('cut off while events keep coming', async (t) => {
      const settings = { ...options, reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 100 };
      const sockets = await Promise.all(
        Object.values(MODES).flatMap((mode) => [mode, mode, mode]).map((mode) => connect(server.url, { ...settings, ...mode })),
      );
      t.after(() => sockets.forEach((socket) => socket.close()));
      const room = 'stream';
      await Promise.all(sockets.map((socket) => ask(socket, 'join', room)));
      const seen = sockets.map((socket) => {
        const numbers = [];
        socket.on('broadcast', (payload) => numbers.push(payload.number));
        return numbers;
      });
      const ids = sockets.map((socket) => socket.id);
      const total = 400;
      for (let number = 0; number < total; number++) {
        sender.emit('room-broadcast', room, { number });
        const socket = sockets[Math.floor(Math.random() * sockets.length)];
        if (number % 10 === 3 && cuttable(socket)) socket.io.engine.close();
        await sleep(5);
      }
      await until(15_000, 'everything everywhere', () => seen.every((numbers) => numbers.length >= total));
      const expected = Array.from({ length: total }, (_, index) => index);
      seen.forEach((numbers, index) => assert.deepEqual(numbers, expected, transport(sockets[index])));
      assert.deepEqual(sockets.map((socket) => socket.id), ids);
    });
  });
}
