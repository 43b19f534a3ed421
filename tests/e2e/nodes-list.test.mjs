// A cluster without a registry, on one host: what nodes say of each other when their settings do not fit together.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Crowd } from '../lib/crowd.mjs';
import { Sandbox, app, freePort, sundew } from '../lib/cluster.mjs';
import { until } from '../lib/wait.mjs';

const SECRET = 'a secret as long as it has to be';

/** A daemon per entry of the list. `cluster(index)`: its settings. */
async function start(t, count, cluster) {
  const ports = [];
  for (let index = 0; index < 2 * count; index++) ports.push(await freePort());
  const list = ports.slice(0, count).map((port) => `127.0.0.1:${port}`);
  const nodes = [];
  for (let index = 0; index < count; index++) {
    const node = new Sandbox();
    t.after(() => node.close());
    node.files({});
    node.port = ports[count + index];
    const settings = { listen: list[index], registry: list, secret: SECRET, heartbeat: 100, expiry: 1000 };
    node.config = node.file('pm2.json', {
      apps: [app({ instances: 1, env: { PORT: node.port } })],
      sundew: { cluster: { ...settings, ...cluster?.(index, list) } },
    });
    node.child = node.spawn(sundew, ['run', node.config]);
    nodes.push(node);
  }
  return nodes;
}

const nodes = async (node) => JSON.parse((await node.ok('nodes', '--json')).stdout);
const reaches = (node, count) =>
  until(20_000, 'the nodes reach each other', async () => {
    if (node.child.exitCode !== null) throw new Error(node.child.output);
    return (await nodes(node)).nodes.filter(({ state }) => state === 'up').length === count;
  });
const serves = (node) => until(10_000, 'an answer', async () => (await fetch(`http://127.0.0.1:${node.port}/`)).ok);

test('a list is enough: a session is found from every node', async (t) => {
  const all = await start(t, 2);
  for (const node of all) await reaches(node, 1);
  for (const node of all) await serves(node);
  const [one, other] = all.map(({ port }) => `http://127.0.0.1:${port}/socket.io/?EIO=4&transport=polling`);
  const sid = JSON.parse((await (await fetch(one)).text()).slice(1)).sid;
  assert.equal(await (await fetch(`${other}&sid=${sid}`, { method: 'POST', body: '40' })).text(), 'ok');
  assert.match(await (await fetch(`${one}&sid=${sid}`)).text(), /^40\{"sid"/);
  // Its own clients go nowhere else, and a request that is forged to look forwarded is none.
  const crowd = new Crowd(`http://127.0.0.1:${all[0].port}`, { extraHeaders: { 'x-sundew-peer': '9.9.9.9:9' } });
  t.after(() => crowd.close());
  await crowd.add(10);
  assert.deepEqual(crowd.failures, {});
  assert.ok(crowd.members.every(({ who }) => !who.address.startsWith('9.9.9.9')));
  const [{ forwarded, relayed }] = (await nodes(all[0])).apps;
  assert.deepEqual([forwarded, relayed], [0, 0]);
  assert.match((await all[1].ok('nodes')).stdout, /this one[^]*up[^]*registry a list of 2/);
});

test('another secret: the nodes do not talk, and both go on alone', async (t) => {
  const all = await start(t, 2, (index) => ({ secret: `${SECRET} ${index}` }));
  for (const node of all) {
    await until(20_000, 'it says so', () => node.child.output.includes('has to be the same on every node'));
    await serves(node);
    assert.deepEqual((await nodes(node)).nodes, []);
  }
});

test('lists in another order: said, and not trusted', async (t) => {
  const all = await start(t, 3, (index, list) => (index === 2 ? { registry: [list[0], list[2], list[1]] } : {}));
  await reaches(all[0], 1);
  await until(20_000, 'it says so', () => all[0].child.output.includes('in the same order'));
});

test('a file whose cluster cannot be joined starts nothing and says why', async (t) => {
  const sandbox = new Sandbox();
  t.after(() => sandbox.close());
  sandbox.files({});
  const port = await freePort();
  const cluster = { listen: `127.0.0.1:${port}`, secret: SECRET, registry: `redis://127.0.0.1:${await freePort()}`, limits: { registryWait: 500 } };
  const config = sandbox.file('pm2.json', { apps: [app()], sundew: { cluster } });
  const { code, text } = await sandbox.sundew('run', config);
  assert.equal(code, 1, text);
  assert.match(text, /registry redis:\/\/127.0.0.1:\d+ cannot be used.*joins for the first time needs it, unless `node` gives its number/s);
});
