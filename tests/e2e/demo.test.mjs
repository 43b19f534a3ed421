// The demo as a person sees it: a real browser opens the page, clicks, and gets answers over websocket; with websockets
// blocked on the way the same session stays on polling and works. Screenshots land in target/e2e.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Sandbox, bin, freePort, freePorts, kind, out, root, sundew, worker } from '../lib/cluster.mjs';
import { until } from '../lib/wait.mjs';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(fs.existsSync);
const QUIET = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A proxy as some companies have them: ordinary requests pass, upgrades are cut. */
async function startBlockingProxy(port) {
  let blocked = 0;
  const agent = new http.Agent({ keepAlive: true });
  const proxy = http.createServer((request, response) => {
    const { method, url, headers } = request;
    const upstream = http.request({ port, method, path: url, headers, agent }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    upstream.on('error', () => response.destroy());
    response.on('close', () => upstream.destroy());
    request.pipe(upstream);
  });
  proxy.on('upgrade', (_, socket) => {
    blocked++;
    socket.destroy();
  });
  await new Promise((resolve) => proxy.listen(0, resolve));
  return {
    url: `http://localhost:${proxy.address().port}`,
    blocked: () => blocked,
    close: () => (proxy.closeAllConnections(), proxy.close(), agent.destroy()),
  };
}

/** Opens the page and records its Socket.IO traffic. */
async function visit(browser, url, path = '/page') {
  const page = await browser.newPage({ viewport: { width: 1000, height: 700 } });
  const log = [];
  const problems = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('response', (response) => {
    const address = new URL(response.url());
    if (address.searchParams.has('transport')) {
      log.push({ transport: 'polling', port: Number(address.port), sid: address.searchParams.get('sid'), status: response.status(), method: response.request().method() });
    }
  });
  // Playwright shows no status of a websocket's handshake; the browser's own protocol does.
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Network.enable');
  devtools.on('Network.webSocketHandshakeResponseReceived', ({ response }) => log.push({ transport: 'websocket', status: response.status }));
  const frames = [];
  devtools.on('Network.webSocketFrameReceived', ({ response }) => frames.push(response.payloadData));
  const answer = await page.goto(`${url}${path}`);
  assert.equal(answer.status(), 200);
  return { page, log, frames, problems };
}

const hello = (page) => page.getByRole('button', { name: /say hello/i }).click();
/** The lines with answers, newest first; each names its worker and the transport. */
const answers = (page) => page.locator('#log li', { hasText: 's:message' });
const newest = (page) => answers(page).first().innerText();

describe(`the demo in a browser, ${kind} workers`, { skip: !CHROMIUM && 'no chromium' }, () => {
  let sandbox;
  let browser;
  let port;
  let first;
  before(async () => {
    fs.mkdirSync(out, { recursive: true });
    sandbox = new Sandbox();
    port = await freePort();
    first = await freePorts(4);
    // As it is, but for the workers' own ports: others may run the demo, too.
    const file = path.join(root, worker.demo);
    const { apps: [app] } = JSON.parse(fs.readFileSync(file));
    const script = worker.program === 'node' ? path.resolve(path.dirname(file), app.script) : path.join(bin, path.basename(app.script));
    const config = sandbox.file('demo.json', { apps: [{ ...app, script, sundew: { ...app.sundew, direct: { basePort: first } } }] });
    const child = sandbox.spawn(sundew, ['run', config], { cwd: root, env: { PORT: String(port) } });
    await until(20_000, 'the page', async () => {
      if (child.exitCode !== null) throw new Error(child.output);
      return (await fetch(`http://127.0.0.1:${port}/page`)).ok;
    });
    browser = await chromium.launch({ executablePath: CHROMIUM, args: QUIET });
  });
  after(async () => {
    await browser?.close();
    await sandbox?.close();
  });

  test('a click is answered; polling handshake first, then websocket', async (t) => {
    const { page, log, frames, problems } = await visit(browser, `http://localhost:${port}`);
    t.after(() => page.close());
    await hello(page);
    await until(10_000, 'an answer', async () => (await answers(page).count()) > 0);
    await until(10_000, 'the upgrade', () => log.some(({ transport }) => transport === 'websocket'));
    t.diagnostic(JSON.stringify(log));
    assert.deepEqual([log[0].transport, log[0].sid, log[0].status], ['polling', null, 200], 'first the polling handshake');
    assert.equal(log.find(({ transport }) => transport === 'websocket').status, 101);
    for (const { status } of log) assert.ok(status === 200 || status === 101, JSON.stringify(log));

    // The next answers come over the websocket, and the page says so.
    const before = await answers(page).count();
    await hello(page);
    await until(10_000, 'an answer over websocket', () => frames.some((frame) => frame.includes('s:message')));
    await until(10_000, 'it is shown', async () => (await answers(page).count()) > before);
    const shown = await newest(page);
    assert.match(shown, /websocket$/, 'the page names the transport');
    assert.match(shown, /worker #\d, process \d+/, 'and the worker');
    // The newest lines are highlighted for a second.
    await page.waitForTimeout(1300);
    await page.screenshot({ path: path.join(out, `demo-${kind}.png`) });
    assert.deepEqual(problems, []);
  });

  test('with websockets blocked on the way it stays on polling, and works', async (t) => {
    const proxy = await startBlockingProxy(port);
    t.after(() => proxy.close());
    const { page, log, problems } = await visit(browser, proxy.url);
    t.after(() => page.close());
    await hello(page);
    await until(10_000, 'an answer', async () => (await answers(page).count()) > 0);
    await until(10_000, 'an attempt to upgrade', () => proxy.blocked() > 0);
    const sids = () => [...new Set(log.map((entry) => entry.sid).filter(Boolean))];
    await until(5000, 'the first request with a sid', () => sids().length > 0);
    const first = sids();

    for (let click = 0; click < 5; click++) {
      const before = await answers(page).count();
      await hello(page);
      await until(10_000, 'another answer', async () => (await answers(page).count()) > before);
    }
    t.diagnostic(`${log.length} polling requests, ${proxy.blocked()} upgrades blocked`);
    assert.ok(log.every(({ transport, status }) => transport === 'polling' && status === 200), JSON.stringify(log));
    assert.equal(first.length, 1);
    assert.deepEqual(sids(), first, 'one session all along');
    assert.match(await newest(page), /polling$/, 'the page names the transport');
    // The newest lines are highlighted for a second.
    await page.waitForTimeout(1300);
    await page.screenshot({ path: path.join(out, `demo-polling-${kind}.png`) });
    assert.deepEqual(problems, []);
  });

  test('with ?route=direct the page is told a worker, and connects to its own port', async (t) => {
    const seen = new Set();
    for (let tab = 0; tab < 4; tab++) {
      const { page, log, problems } = await visit(browser, `http://localhost:${port}`, '/page?route=direct');
      t.after(() => page.close());
      const asked = [];
      page.on('request', (request) => request.url().endsWith('/.sundew/route') && asked.push(request.url()));
      await hello(page);
      await until(10_000, 'an answer', async () => (await answers(page).count()) > 0);
      await until(10_000, 'the upgrade', () => log.some(({ transport }) => transport === 'websocket'));
      await hello(page);
      await until(10_000, 'an answer over websocket', async () => /websocket$/.test(await newest(page)));
      const [, instance, at] = /worker #(\d), process \d+, at localhost:(\d+)/.exec(await newest(page));
      assert.equal(Number(at), first + Number(instance), 'the port is that worker’s');
      assert.deepEqual([...new Set(log.flatMap((entry) => entry.port ?? []))], [Number(at)], 'nothing went another way');
      for (const { status } of log) assert.ok(status === 200 || status === 101, JSON.stringify(log));
      // Rust writes it into the page, a page of Node's asks.
      assert.equal(asked.length, kind === 'native' ? 0 : 1);
      seen.add(instance);
      if (tab === 0) {
        await page.waitForTimeout(1300);
        await page.screenshot({ path: path.join(out, `demo-direct-${kind}.png`) });
      }
      // The next session of the same page is placed anew.
      await page.getByRole('button', { name: /new session/i }).click();
      await until(10_000, 'it asked', () => asked.length === (kind === 'native' ? 1 : 2));
      await until(10_000, 'another answer', async () => (await answers(page).count()) > 2);
      assert.deepEqual(problems, []);
    }
    assert.ok(seen.size >= 2, `placed by balance: ${[...seen]}`);
  });

  const rendered = kind === 'native' ? false : 'pages of Node.js ask for it';
  test('pages that are rendered at once tell of all workers alike', { skip: rendered }, async (t) => {
    const told = await Promise.all(
      Array.from({ length: 400 }, async () => {
        const answer = await fetch(`http://localhost:${port}/page?route=direct`);
        assert.equal(answer.status, 200);
        return /data-direct="http:\/\/localhost:(\d+)"/.exec(await answer.text())[1];
      }),
    );
    const counts = {};
    for (const one of told) counts[one - first] = (counts[one - first] ?? 0) + 1;
    t.diagnostic(JSON.stringify(counts));
    // Tabs of the tests before count, too.
    for (const count of [0, 1, 2, 3].map((slot) => counts[slot] ?? 0)) assert.ok(Math.abs(count - 100) <= 10, JSON.stringify(counts));
    // Asked at a worker's own port, the answer is the same one.
    assert.match(await (await fetch(`http://localhost:${first + 1}/page?route=direct`)).text(), /data-direct="http:\/\/localhost:\d+"/);
    assert.match(await (await fetch(`http://localhost:${port}/page`)).text(), /data-direct=""/);
  });

  test('ten tabs share the connections of one browser, and each keeps its session', async (t) => {
    const context = await browser.newContext();
    t.after(() => context.close());
    const tabs = await Promise.all(
      Array.from({ length: 10 }, async () => {
        const page = await context.newPage();
        const failed = [];
        page.on('response', (response) => response.status() >= 400 && !response.url().endsWith('favicon.ico') && failed.push(`${response.status()} ${response.url()}`));
        await page.goto(`http://localhost:${port}/page`);
        await hello(page);
        return { page, failed };
      }),
    );
    for (const { page, failed } of tabs) {
      await until(15_000, 'an answer in each tab', async () => (await answers(page).count()) > 0);
      assert.deepEqual(failed, []);
    }
  });
});
