// The official client, with deadlines.

import http from 'node:http';
import { io } from 'socket.io-client';
import { once, until, within } from './wait.mjs';

/** The three ways a client may be configured to travel. */
export const MODES = {
  'polling only': { transports: ['polling'] },
  'websocket only': { transports: ['websocket'] },
  default: {},
};

/** A client that does not reconnect unless told to and shares nothing with others. */
export function open(url, options = {}) {
  return io(url, { forceNew: true, reconnection: false, timeout: 20_000, ...options });
}

/** Opens a client and waits for its CONNECT to be answered. */
export async function connect(url, options = {}, ms = 15_000) {
  const socket = open(url, options);
  try {
    await within(
      ms,
      `connect to ${url}`,
      new Promise((resolve, reject) => {
        socket.once('connect', resolve);
        socket.once('connect_error', reject);
        socket.once('disconnect', (reason) => reject(new Error(`disconnected before connected: ${reason}`)));
      }),
    );
  } catch (error) {
    socket.close();
    throw error;
  }
  socket.off('connect_error');
  socket.off('disconnect');
  return socket;
}

/** The transport in use: "polling" or "websocket". */
export const transport = (socket) => socket.io.engine?.transport?.name;

/** Waits for the upgrade to websocket. */
export const upgraded = (socket, ms = 15_000) => until(ms, 'upgrade to websocket', () => transport(socket) === 'websocket', 5);

/** Emits and waits for the acknowledgement. */
export const ask = (socket, event, ...args) => socket.timeout(15_000).emitWithAck(event, ...args);

/** Emits `event` and waits for `reply`. */
export async function exchange(socket, event, reply, ...args) {
  const answer = once(socket, reply, 15_000);
  socket.emit(event, ...args);
  return answer;
}

/** A keep-alive agent that knows how many connections it opened and which sessions went over each. */
export class SharedAgent extends http.Agent {
  constructor(options = {}) {
    super({ keepAlive: true, maxFreeSockets: 1024, ...options });
    this.opened = 0;
    this.requests = 0;
    this.shared = 0;
  }

  addRequest(request, options, ...rest) {
    this.requests++;
    request.once('socket', (socket) => {
      const sid = /[?&]sid=([^&]+)/.exec(request.path)?.[1];
      socket.sids ??= new Set();
      if (!sid || socket.sids.has(sid)) return;
      socket.sids.add(sid);
      if (socket.sids.size === 2) this.shared++;
    });
    super.addRequest(request, options, ...rest);
  }

  createConnection(...args) {
    this.opened++;
    return super.createConnection(...args);
  }
}

/** An agent that opens a connection for each request. */
export class FreshAgent extends SharedAgent {
  constructor(options = {}) {
    super({ ...options, keepAlive: false });
  }
}

/**
 * Whether closing its engine cuts it off. A client that is closed while it opens does not try again by itself; one that is
 * closed while it upgrades buffers what it still receives after its own end, and asks for it again: neither is a cut.
 */
export const cuttable = (socket) => socket.connected && !socket.io.engine.upgrading;
