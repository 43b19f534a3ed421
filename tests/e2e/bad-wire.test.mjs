// What no client library sends: every broken or hostile request gets its own answer, and the sessions beside it go on.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ask, connect, upgraded } from '../lib/client.mjs';
import { Cluster } from '../lib/cluster.mjs';
import { openFiles } from '../lib/proc.mjs';
import { sleep } from '../lib/wait.mjs';
import { WEBSOCKET, Wire, emit, polling, session, websocket } from '../lib/wire.mjs';

const UNKNOWN = { code: 1, message: 'Session ID unknown' };

describe('bad input on the wire', () => {
  let cluster;
  let bystander;
  let lost;
  const wires = [];
  const open = async () => {
    const wire = await Wire.open(cluster.port);
    wires.push(wire);
    return wire;
  };

  before(async () => {
    cluster = await Cluster.start();
    bystander = await connect(cluster.url);
    await upgraded(bystander);
    bystander.on('disconnect', (reason) => (lost = reason));
  });
  after(async () => {
    wires.forEach((wire) => wire.destroy());
    bystander?.close();
    await cluster?.close();
  });

  test('a head over 16 KiB: 431', async () => {
    const wire = await open();
    wire.request('GET', '/', { Big: 'x'.repeat(17 * 1024) });
    const answer = await wire.response();
    assert.equal(answer.status, 431);
    assert.match(answer.headers['content-type'], /json/);
    JSON.parse(answer.body);
    await wire.closed();
  });

  test('a head over 16 KiB that never ends: 431', async () => {
    const wire = await open();
    wire.send('GET / HTTP/1.1\r\nHost: test\r\nBig: ');
    for (let kib = 0; kib < 17; kib++) wire.send('x'.repeat(1024));
    assert.equal((await wire.response()).status, 431);
    await wire.closed();
  });

  test('a head of just under 16 KiB is served', async () => {
    const wire = await open();
    const answer = await wire.request('GET', '/', { Big: 'x'.repeat(15 * 1024) }).response();
    assert.equal(answer.status, 200);
  });

  test('a head that is not complete in 10 s: 408', async (t) => {
    const silent = await open();
    const slow = await open();
    const started = Date.now();
    silent.send('GET / HTTP/1.1\r\nHost: te');
    // One that keeps sending a little does not get more time.
    const drip = setInterval(() => slow.send('x'), 500);
    slow.send('GET / HTTP/1.1\r\nDrip: ');
    t.after(() => clearInterval(drip));
    const answers = await Promise.all([silent.response(20_000), slow.response(20_000)]);
    clearInterval(drip);
    const took = Date.now() - started;
    for (const answer of answers) assert.equal(answer.status, 408);
    assert.ok(took > 8000 && took < 16_000, `after ${took} ms`);
    await silent.closed();
  });

  const BROKEN = {
    'both Content-Length and Transfer-Encoding':
      'POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'two different Content-Lengths': 'POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde',
    'a Content-Length that is no number': 'POST / HTTP/1.1\r\nHost: test\r\nContent-Length: +4\r\n\r\nabcd',
    'a folded header': 'GET / HTTP/1.1\r\nHost: test\r\nA: b\r\n c\r\n\r\n',
    'a space before the colon': 'GET / HTTP/1.1\r\nHost: test\r\nContent-Length : 4\r\n\r\nabcd',
    'two Host headers': 'GET / HTTP/1.1\r\nHost: test\r\nHost: other\r\n\r\n',
    'garbage': '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is not HTTP\r\n\r\n',
    'garbage without an end': 'NOT HTTP AT ALL\r\nreally\r\n\r\n',
  };
  for (const [what, bytes] of Object.entries(BROKEN)) {
    test(`${what}: 400`, async () => {
      const wire = await open();
      const answer = await wire.send(Buffer.from(bytes, 'latin1')).response();
      assert.equal(answer.status, 400);
      assert.match(answer.headers['content-type'], /json/);
      JSON.parse(answer.body);
      await wire.closed();
    });
  }

  test('an unknown sid: 400 code 1, and no leg is opened for it', async () => {
    const supervisor = cluster.supervisor();
    const workers = (await cluster.workers()).map(({ pid }) => pid);
    const files = () => [openFiles(supervisor), ...workers.map(openFiles)];
    const wire = await open();
    await sleep(300);
    const before = files();
    for (const sid of ['AAAAAAAAAAAAAAAAAAAA', 'short', 'x'.repeat(500), '%00%ff', '']) {
      const answer = await wire.request('GET', `/socket.io/?EIO=4&transport=polling&sid=${sid}`).response();
      // An empty sid is no sid: a handshake, as in Node.
      if (sid === '') continue;
      assert.equal(answer.status, 400, `sid ${sid.slice(0, 30)}`);
      assert.match(answer.headers['content-type'], /application\/json/);
      assert.deepEqual(JSON.parse(answer.body), UNKNOWN);
      assert.deepEqual(files(), before, 'no file descriptor was opened');
    }
    const posted = await wire.request('POST', polling('AAAAAAAAAAAAAAAAAAAA'), {}, '40').response();
    assert.equal(posted.status, 400);
    assert.deepEqual(JSON.parse(posted.body), UNKNOWN);
    const upgrade = await (await open()).request('GET', websocket('AAAAAAAAAAAAAAAAAAAA'), WEBSOCKET).response();
    assert.equal(upgrade.status, 400);
  });

  test('the Engine.IO errors are what Node answers', async () => {
    const cases = [
      ['GET', '/socket.io/?EIO=4&transport=smoke', 400, { code: 0, message: 'Transport unknown' }],
      ['POST', '/socket.io/?EIO=4&transport=polling', 400, { code: 2, message: 'Bad handshake method' }],
      ['GET', '/socket.io/?EIO=4&transport=websocket', 400, { code: 3, message: 'Bad request' }],
      ['GET', '/socket.io/?EIO=3&transport=polling', 400, { code: 5, message: 'Unsupported protocol version' }],
    ];
    for (const [method, path, status, body] of cases) {
      const wire = await open();
      const answer = await wire.request(method, path, {}, method === 'POST' ? '' : undefined).response();
      assert.equal(answer.status, status, path);
      assert.deepEqual(JSON.parse(answer.body), body);
    }
  });

  test('a body over the limit: 413, and the session lives', async () => {
    const wire = await open();
    const sid = await session(wire);
    const posting = await open();
    const answer = await posting.request('POST', polling(sid), {}, Buffer.alloc(1_000_001, 'x')).response();
    assert.equal(answer.status, 413);
    assert.match(await emit(wire, sid, '42["echo","alive"]'), /42\["echo","alive"\]/);

    // Chunked, without a length to refuse in advance.
    const chunked = await open();
    chunked.send(`POST ${polling(sid)} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n`);
    for (let part = 0; part < 11; part++) chunked.send(`186a0\r\n${'x'.repeat(100_000)}\r\n`);
    chunked.send('0\r\n\r\n');
    assert.equal((await chunked.response()).status, 413);
    assert.match(await emit(wire, sid, '42["echo","still alive"]'), /42\["echo","still alive"\]/);
  });

  test('a body of exactly the limit is taken', async () => {
    const wire = await open();
    const sid = await session(wire);
    const packet = `42["echo","${'x'.repeat(1_000_000 - 13)}"]`;
    assert.equal(packet.length, 1_000_000);
    const posted = await wire.request('POST', polling(sid), {}, packet).response();
    assert.equal(posted.status, 200);
    const polled = await wire.request('GET', polling(sid)).response();
    assert.equal(polled.body.length, packet.length);
  });

  test('a websocket message over the limit: close 1009', async () => {
    const wire = await open();
    assert.equal((await wire.request('GET', websocket(), WEBSOCKET).response()).status, 101);
    assert.match(await wire.frame(), /^0\{/);
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(1_000_001n);
    wire.send(Buffer.concat([Buffer.from([0x81, 0xff]), length, Buffer.alloc(4), Buffer.alloc(2000, 'x')]));
    assert.deepEqual(await wire.frame(), { close: 1009 });
  });

  test('an unmasked websocket frame closes the connection', async () => {
    const wire = await open();
    assert.equal((await wire.request('GET', websocket(), WEBSOCKET).response()).status, 101);
    await wire.frame();
    wire.send(Buffer.from([0x81, 2, 0x34, 0x30]));
    await wire.closed();
  });

  test('heads in 1-byte segments: polling, then the upgrade', async () => {
    const wire = await open();
    const drip = async (bytes) => {
      for (const byte of Buffer.from(bytes)) {
        wire.send(Buffer.from([byte]));
        await new Promise(setImmediate);
      }
    };
    await drip(`GET ${polling()} HTTP/1.1\r\nHost: test\r\n\r\n`);
    const { sid } = JSON.parse((await wire.response()).body.slice(1));
    await drip(`POST ${polling(sid)} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n40`);
    assert.equal((await wire.response()).body, 'ok');
    await drip(`GET ${polling(sid)} HTTP/1.1\r\nHost: test\r\n\r\n`);
    assert.match((await wire.response()).body, /^40\{/);
    const headers = Object.entries(WEBSOCKET).map(([name, value]) => `${name}: ${value}\r\n`);
    await drip(`GET ${websocket(sid)} HTTP/1.1\r\nHost: test\r\n${headers.join('')}\r\n`);
    assert.equal((await wire.response()).status, 101);
    wire.text('2probe');
    assert.equal(await wire.frame(), '3probe');
    wire.text('5').text('42["echo","one byte at a time"]');
    assert.equal(await wire.frame(), '42["echo","one byte at a time"]');
  });

  test('a pipelined second request is answered, in order', async () => {
    const wire = await open();
    const sid = await session(wire);
    const get = (path) => `GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`;
    wire.send(get(polling('unknownunknownunknow')) + get('/address') + get(polling('AAAAAAAAAAAAAAAAAAAA')) + get('/'));
    assert.equal((await wire.response()).status, 400);
    assert.match((await wire.response()).body, /127\.0\.0\.1/);
    assert.equal((await wire.response()).status, 400);
    assert.equal((await wire.response()).status, 200);

    // A body, then a request glued to it.
    const packet = '42["echo","glued"]';
    wire.send(`POST ${polling(sid)} HTTP/1.1\r\nHost: test\r\nContent-Length: ${packet.length}\r\n\r\n${packet}${get(polling(sid))}`);
    assert.equal((await wire.response()).body, 'ok');
    assert.equal((await wire.response()).body, packet);

    // An upgrade behind a request in the same segment.
    const headers = Object.entries(WEBSOCKET).map(([name, value]) => `${name}: ${value}\r\n`);
    wire.send(`${get('/')}GET ${websocket()} HTTP/1.1\r\nHost: test\r\n${headers.join('')}\r\n`);
    assert.equal((await wire.response()).status, 200);
    assert.equal((await wire.response()).status, 101);
    assert.match(await wire.frame(), /^0\{/);
  });

  test('one keep-alive connection polls two sessions and upgrades a third', async () => {
    const wire = await open();
    const first = await session(wire);
    const second = await session(wire);
    const third = await session(wire);
    const worker = async (sid) => /"instance":"?(\d)/.exec(await emit(wire, sid, '420["whoami"]'))[1];
    const instances = [await worker(first), await worker(second), await worker(third)];
    assert.ok(new Set(instances).size > 1, `the sessions are on different workers: ${instances}`);
    for (const sid of [first, second, first, second]) {
      assert.match(await emit(wire, sid, '42["echo","mine"]'), /42\["echo","mine"\]/);
      assert.equal(await worker(sid), instances[sid === first ? 0 : 1]);
    }
    assert.equal((await wire.request('GET', websocket(third), WEBSOCKET).response()).status, 101);
    wire.text('2probe');
    assert.equal(await wire.frame(), '3probe');
    wire.text('5').text('420["whoami"]');
    assert.equal(/"instance":"?(\d)/.exec(await wire.frame())[1], instances[2]);

    // The two others go on over another connection.
    const other = await open();
    assert.match(await emit(other, first, '42["echo","still here"]'), /still here/);
    assert.match(await emit(other, second, '42["echo","me too"]'), /me too/);
  });

  test('a client that goes away in the middle of a body disturbs nobody', async () => {
    const wire = await open();
    const sid = await session(wire);
    const cut = await open();
    cut.send(`POST ${polling(sid)} HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n42["ec`);
    await sleep(100);
    cut.destroy();
    await sleep(100);
    // As in Node, a request cut off in its body ends that session, and only that.
    const answer = await wire.request('GET', polling(sid)).response();
    assert.ok(answer.status === 400 || answer.status === 200, `${answer.status}`);
    assert.equal((await (await open()).request('GET', '/').response()).status, 200);
  });

  test('nobody else noticed any of it', async () => {
    assert.equal(lost, undefined);
    assert.equal(await ask(bystander, 'echo-ack', 1), 1);
    const restarts = (await cluster.workers()).map((worker) => worker.restarts);
    assert.deepEqual(restarts, [0, 0, 0, 0]);
  });
});
