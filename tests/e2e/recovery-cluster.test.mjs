// Connection state recovery over four workers: a client that is cut off lands on any of them, and each time it is what it
// was, with every event once and in order.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { MODES, ask, connect, cuttable, transport } from '../lib/client.mjs';
import { Cluster, app } from '../lib/cluster.mjs';
import { once, sleep, until } from '../lib/wait.mjs';

const RECOVERY = { reconnection: true, reconnectionDelay: 30, reconnectionDelayMax: 150 };

/** Cuts it off, does something meanwhile, and waits until it is back. */
async function cut(socket, meanwhile) {
  const back = once(socket, 'connect', 15_000);
  socket.io.engine.close();
  meanwhile();
  await back;
}

describe('recovery over four workers', () => {
  let cluster;
  let senders;
  before(async () => {
    // Connections one after the other go to one worker after the other.
    const settings = { env: { RECOVERY: '20' }, sundew: { balance: 'round-robin' } };
    cluster = await Cluster.start({ apps: [app(settings)], daemon: true });
    senders = await Promise.all(Array.from({ length: 4 }, () => connect(cluster.url, { transports: ['websocket'] })));
  });
  after(async () => {
    senders?.forEach((sender) => sender.close());
    await cluster?.close();
  });

  for (const [mode, transports] of Object.entries(MODES)) {
    test(`${mode}: cut off and back on each of them`, async (t) => {
      const socket = await connect(cluster.url, { ...RECOVERY, ...transports });
      t.after(() => socket.close());
      const room = `room ${mode}`;
      await ask(socket, 'join', room);
      const { id } = socket;
      const seen = [];
      socket.on('broadcast', (payload) => seen.push(payload.number));
      const landed = new Set([(await ask(socket, 'whoami')).pid]);
      let number = 0;
      const say = () => senders[0].emit('room-broadcast', room, { number: number++ });
      for (let round = 0; round < 40 && (landed.size < 4 || round < 8); round++) {
        // Every other time nothing came since it connected, or nothing is missed.
        if (round % 2) say();
        await cut(socket, () => {
          if (round % 3) for (let count = 0; count < 5; count++) say();
        });
        const [recovered, rooms] = await ask(socket, 'recovered');
        assert.equal(socket.recovered, true, `round ${round}`);
        assert.equal(recovered, true, `round ${round}`);
        assert.equal(socket.id, id);
        assert.deepEqual(new Set(rooms), new Set([id, room]));
        landed.add((await ask(socket, 'whoami')).pid);
        say();
        await until(5000, `everything in round ${round}`, () => seen.length >= number);
      }
      assert.deepEqual(seen, Array.from({ length: number }, (_, index) => index));
      assert.equal(landed.size, 4, 'it has been on every worker');
    });
  }

  test('cut off at random while all workers send', async (t) => {
    const modes = Object.values(MODES).flatMap((mode) => Array(10).fill(mode));
    const sockets = await Promise.all(modes.map((mode) => connect(cluster.url, { ...RECOVERY, ...mode })));
    t.after(() => sockets.forEach((socket) => socket.close()));
    await Promise.all(sockets.map((socket) => ask(socket, 'join', 'stream')));
    const ids = sockets.map((socket) => socket.id);
    const lost = [];
    let cuts = 0;
    const streams = sockets.map((socket, index) => {
      const numbers = senders.map(() => []);
      socket.on('broadcast', ({ sender, number }) => numbers[sender].push(number));
      socket.on('connect', () => socket.recovered || lost.push(`${index} (${transport(socket)})`));
      return numbers;
    });
    const total = 250;
    for (let number = 0; number < total; number++) {
      senders.forEach((sender, index) => sender.emit('room-broadcast', 'stream', { sender: index, number }));
      const socket = sockets[Math.floor(Math.random() * sockets.length)];
      if (number % 2 && cuttable(socket)) {
        socket.io.engine.close();
        cuts++;
      }
      await sleep(10);
    }
    const whole = () => streams.every((numbers) => numbers.every((of) => of.length >= total));
    await until(20_000, 'everything everywhere', whole);
    await sleep(300);
    assert.deepEqual(lost, []);
    assert.ok(cuts > 80, `${cuts} cuts`);
    const expected = Array.from({ length: total }, (_, index) => index);
    streams.forEach((numbers, index) => numbers.forEach((of) => assert.deepEqual(of, expected, transport(sockets[index]))));
    assert.deepEqual(sockets.map((socket) => socket.id), ids);
  });

  test('a worker that is gone took its sessions with it: they begin anew', async (t) => {
    const socket = await connect(cluster.url, { ...RECOVERY, transports: ['websocket'] });
    t.after(() => socket.close());
    const { pid } = await ask(socket, 'whoami');
    const { id } = socket;
    const back = once(socket, 'connect', 15_000);
    const start = Date.now();
    process.kill(pid, 'SIGKILL');
    await back;
    const [recovered] = await ask(socket, 'recovered');
    assert.equal(recovered, false);
    assert.notEqual(socket.id, id);
    assert.ok(Date.now() - start < 5000, 'nobody waits for the dead');
  });
});
