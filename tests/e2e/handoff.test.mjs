// After the hand-off the supervisor has nothing to do with a websocket: no file descriptor, no CPU time, no wake-up,
// and hardly any memory. Measured with 1,000 of them on four workers.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ask, upgraded, connect } from '../lib/client.mjs';
import { Cluster, app } from '../lib/cluster.mjs';
import { contextSwitches, cpuTicks, establishedInodes, openFiles, residentKiB, socketInodes } from '../lib/proc.mjs';
import { pool, sleep, until } from '../lib/wait.mjs';
import { WEBSOCKET, Wire, websocket } from '../lib/wire.mjs';

const CONNECTIONS = 1000;
const WINDOW = 5000;
const RSS_LIMIT_KIB = 12 * 1024;

/** A bare websocket client: connects to `/`, answers heartbeats, counts what it is told. */
async function bare(port) {
  const wire = await Wire.open(port);
  const answer = await wire.request('GET', websocket(), WEBSOCKET).response();
  assert.equal(answer.status, 101);
  assert.match(await wire.frame(), /^0\{/);
  wire.text('40');
  assert.match(await wire.frame(), /^40\{/);
  const client = { wire, replies: 0 };
  client.read = (async () => {
    for (;;) {
      const frame = await wire.frame(600_000);
      if (frame === '2') wire.text('3');
      else if (typeof frame === 'string') client.replies++;
      else return;
    }
  })().catch(() => {});
  return client;
}

describe('1,000 handed-over websockets', () => {
  let cluster;
  let supervisor;
  let filesBefore;
  let connectionsBefore;
  const clients = [];

  before(async () => {
    // What is looked at when a start is over is behind us before anything is counted.
    const started = Date.now();
    cluster = await Cluster.start({ apps: [app({ listen_timeout: 3000 })] });
    supervisor = cluster.supervisor();
    // One session of each kind first, so that legs and the like are there before the count.
    for (let round = 0; round < 8; round++) {
      const socket = await connect(cluster.url);
      await upgraded(socket);
      await ask(socket, 'whoami');
      socket.close();
    }
    await sleep(500);
    filesBefore = openFiles(supervisor);
    connectionsBefore = establishedInodes(cluster.port);
    await pool(CONNECTIONS, 20, async () => clients.push(await bare(cluster.port)));
    await sleep(Math.max(1000, started + 5000 - Date.now()));
  });
  after(async () => {
    clients.forEach(({ wire }) => wire.destroy());
    await cluster?.close();
  });

  test('the supervisor holds no file descriptor of them', async (t) => {
    // The harness's own keep-alive connection is proxied, so it was there before and is held.
    const now = [...establishedInodes(cluster.port)];
    const connections = new Set(now.filter((inode) => !connectionsBefore.has(inode)));
    assert.ok(connections.size >= CONNECTIONS, `${connections.size} connections are open`);
    const held = [...socketInodes(supervisor)].filter((inode) => connections.has(inode));
    t.diagnostic(`open files of the supervisor: ${filesBefore} before, ${openFiles(supervisor)} with ${connections.size} connections`);
    assert.equal(held.length, 0, `${held.length} connections are still held`);
    assert.ok(openFiles(supervisor) <= filesBefore + 8, `${openFiles(supervisor)} open files, ${filesBefore} before`);
  });

  test('its memory stays under 12 MiB', (t) => {
    const resident = residentKiB(supervisor);
    t.diagnostic(`resident: ${(resident / 1024).toFixed(1)} MiB`);
    assert.ok(resident < RSS_LIMIT_KIB, `${resident} KiB resident`);
  });

  test('its CPU time and context switches do not grow with messages', async (t) => {
    const window = async (work) => {
      const start = { ticks: cpuTicks(supervisor), switches: contextSwitches(supervisor) };
      const stop = Date.now() + WINDOW;
      const messages = await work(stop);
      return { messages, ticks: cpuTicks(supervisor) - start.ticks, switches: contextSwitches(supervisor) - start.switches };
    };
    const idle = await window(async () => (await sleep(WINDOW), 0));
    const loaded = await window(async (stop) => {
      const replies = () => clients.reduce((sum, client) => sum + client.replies, 0);
      const start = replies();
      let sent = 0;
      while (Date.now() < stop) {
        for (const { wire } of clients) wire.text('42["echo","ping"]');
        sent += clients.length;
        // No faster than they are answered: nothing piles up.
        await until(10_000, 'replies', () => replies() - start >= sent, 5);
      }
      return sent;
    });
    t.diagnostic(`idle: ${JSON.stringify(idle)}; loaded: ${JSON.stringify(loaded)}`);
    assert.ok(loaded.messages >= 10_000, `${loaded.messages} messages are a load`);
    // A supervisor on the path would be woken at least once per burst and connection: thousands of times.
    assert.ok(loaded.switches <= idle.switches + 100, 'no wake-ups by messages');
    assert.ok(loaded.ticks <= idle.ticks + 3, 'no CPU time by messages');
  });
});
