// HTTP/1.1 by hand over one TCP connection: for what no client library would send.

import net from 'node:net';
import { within } from './wait.mjs';

/** One TCP connection. Bytes go out as given; answers are read one by one. */
export class Wire {
  static async open(port, host = '127.0.0.1') {
    const socket = net.connect({ port, host, noDelay: true });
    const wire = new Wire(socket);
    await within(5000, `connect to port ${port}`, new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject)));
    return wire;
  }

  constructor(socket) {
    this.socket = socket;
    this.buffer = Buffer.alloc(0);
    this.ended = false;
    this.wake = () => {};
    socket.on('data', (chunk) => {
      this.buffer = Buffer.concat([this.buffer, chunk]);
      this.wake();
    });
    const end = () => {
      this.ended = true;
      this.wake();
    };
    socket.on('end', end).on('close', end).on('error', end);
  }

  send(bytes) {
    this.socket.write(bytes);
    return this;
  }

  /** A request with a Host header; `body` sets Content-Length. */
  request(method, path, headers = {}, body) {
    const lines = [`${method} ${path} HTTP/1.1`, 'Host: test'];
    if (body !== undefined) lines.push(`Content-Length: ${Buffer.byteLength(body)}`);
    for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
    return this.send(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`), Buffer.from(body ?? '')]));
  }

  /** The next answer: `{ status, headers, body, head }`. */
  async response(ms = 10_000) {
    const deadline = Date.now() + ms;
    const border = await this.#find('\r\n\r\n', deadline);
    const head = this.#take(border + 4).toString('latin1');
    const [first, ...lines] = head.trimEnd().split('\r\n');
    const headers = {};
    for (const line of lines) headers[line.slice(0, line.indexOf(':')).toLowerCase()] = line.slice(line.indexOf(':') + 1).trim();
    const status = Number(first.split(' ')[1]);
    let body = Buffer.alloc(0);
    if (status !== 101 && status !== 204 && status !== 304) {
      if (headers['transfer-encoding']?.includes('chunked')) body = await this.#chunks(deadline);
      else if (headers['content-length'] !== undefined) {
        const length = Number(headers['content-length']);
        await this.#until(() => this.buffer.length >= length, deadline, 'body');
        body = this.#take(length);
      } else {
        await this.#until(() => this.ended, deadline, 'end of the body');
        body = this.#take(this.buffer.length);
      }
    }
    return { status, headers, head, body: body.toString('utf8') };
  }

  /** The payload of the next websocket frame (short, unfragmented, from a server). */
  async frame(ms = 10_000) {
    const deadline = Date.now() + ms;
    await this.#until(() => this.buffer.length >= 2, deadline, 'websocket frame');
    let head = 2;
    let length = this.buffer[1] & 127;
    if (length === 126) {
      await this.#until(() => this.buffer.length >= 4, deadline, 'websocket frame');
      head = 4;
      length = this.buffer.readUInt16BE(2);
    }
    await this.#until(() => this.buffer.length >= head + length, deadline, 'websocket frame');
    const opcode = this.buffer[0] & 15;
    const payload = this.#take(head + length).subarray(head);
    return opcode === 8 ? { close: payload.length >= 2 ? payload.readUInt16BE(0) : 1005 } : payload.toString('utf8');
  }

  /** Sends a short masked text frame. */
  text(payload) {
    const bytes = Buffer.from(payload);
    const mask = Buffer.from([1, 2, 3, 4]);
    const masked = bytes.map((byte, index) => byte ^ mask[index & 3]);
    return this.send(Buffer.concat([Buffer.from([0x81, 0x80 | bytes.length]), mask, masked]));
  }

  /** Waits until the server closes. */
  closed(ms = 10_000) {
    return this.#until(() => this.ended, Date.now() + ms, 'close by the server');
  }

  destroy() {
    this.socket.destroy();
  }

  async #chunks(deadline) {
    const parts = [];
    for (;;) {
      const border = await this.#find('\r\n', deadline);
      const size = parseInt(this.#take(border + 2).toString('latin1'), 16);
      await this.#until(() => this.buffer.length >= size + 2, deadline, 'chunk');
      parts.push(this.#take(size));
      this.#take(2);
      if (size === 0) return Buffer.concat(parts);
    }
  }

  async #find(text, deadline) {
    await this.#until(() => this.buffer.includes(text), deadline, 'answer');
    return this.buffer.indexOf(text);
  }

  async #until(check, deadline, what) {
    while (!check()) {
      if (this.ended) throw new Error(`connection closed while waiting for ${what}; got ${JSON.stringify(this.buffer.toString('latin1').slice(0, 200))}`);
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`${what}: not in time`);
      await within(left, what, new Promise((resolve) => (this.wake = resolve)));
    }
  }

  #take(length) {
    const bytes = this.buffer.subarray(0, length);
    this.buffer = this.buffer.subarray(length);
    return bytes;
  }
}

export const WEBSOCKET = {
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'c3VuZGV3IHN1bmRldyBzdQ==',
};

/** The path of a polling request of this session (of a handshake without one). */
export const polling = (sid) => `/socket.io/?EIO=4&transport=polling${sid ? `&sid=${sid}` : ''}`;
export const websocket = (sid) => `/socket.io/?EIO=4&transport=websocket${sid ? `&sid=${sid}` : ''}`;

/** Opens a polling session on this connection, connects it to `/`, and returns its sid. */
export async function session(wire) {
  const open = await wire.request('GET', polling()).response();
  if (open.status !== 200) throw new Error(`handshake: ${open.status} ${open.body}`);
  const { sid } = JSON.parse(open.body.slice(1));
  const posted = await wire.request('POST', polling(sid), { 'Content-Type': 'text/plain' }, '40').response();
  if (posted.status !== 200) throw new Error(`POST: ${posted.status} ${posted.body}`);
  const connected = await wire.request('GET', polling(sid)).response();
  if (!connected.body.startsWith('40{')) throw new Error(`CONNECT: ${connected.status} ${connected.body}`);
  return sid;
}

/** Emits an event over polling and returns the next polled body. */
export async function emit(wire, sid, packet) {
  const posted = await wire.request('POST', polling(sid), { 'Content-Type': 'text/plain' }, packet).response();
  if (posted.status !== 200) throw new Error(`POST: ${posted.status} ${posted.body}`);
  return (await wire.request('GET', polling(sid)).response()).body;
}
