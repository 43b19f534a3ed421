// Many clients at once: who got in, who was upgraded, what went wrong.

import { ask, open, transport } from './client.mjs';
import { pool, until, within } from './wait.mjs';

/** Status and body of the failed request behind a client's error, as text. */
export function cause(error) {
  const request = error?.context ?? error?.description?.context ?? error?.description;
  const body = request?.responseText;
  return [error?.message ?? error, request?.status, typeof body === 'string' ? body.slice(0, 100) : undefined]
    .filter((part) => part !== undefined && part !== '')
    .join(' ');
}

/** The answer to a request whose session is not known to the worker it reached. */
export const isUnknownSession = (text) => /"code":1\b/.test(text);

export class Crowd {
  /**
   * `options` are the client's. Errors and disconnects nobody asked for are collected, never thrown.
   * `whoami` asks a worker who it is, and returns at least its `instance`.
   */
  constructor(url, options = {}, whoami = (socket) => ask(socket, 'whoami')) {
    this.url = url;
    this.options = options;
    this.whoami = whoami;
    this.members = [];
    this.errors = [];
    this.disconnects = [];
    this.latencies = [];
    this.unknown = 0;
  }

  /** Adds `count` clients, `width` at a time; each connects, upgrades (unless told not to) and gets one answer. */
  async add(count, { width = 25, upgrade = true, ms = 20_000 } = {}) {
    const added = [];
    await pool(count, width, async () => {
      const member = await this.#join(upgrade, ms);
      if (member) added.push(member);
    });
    return added;
  }

  async #join(upgrade, ms) {
    const started = performance.now();
    const socket = open(this.url, { timeout: ms, ...this.options });
    const member = { socket, errors: [], closing: false };
    socket.on('connect_error', (error) => this.#fail(member, `connect_error: ${cause(error)}`));
    socket.on('disconnect', (reason, details) => {
      if (member.closing) return;
      this.disconnects.push({ member, reason });
      this.#fail(member, `disconnect: ${reason} ${cause(details)}`);
    });
    try {
      await within(
        ms,
        'connect',
        new Promise((resolve, reject) => {
          socket.once('connect', resolve);
          socket.once('connect_error', reject);
          socket.once('disconnect', (reason) => reject(new Error(reason)));
        }),
      );
      if (upgrade) {
        socket.io.engine.once('upgradeError', (error) => this.#fail(member, `upgrade: ${cause(error)}`));
        await until(ms, 'upgrade', () => {
          if (!socket.connected) throw new Error('disconnected');
          return transport(socket) === 'websocket';
        }, 10);
      }
      member.who = await this.whoami(socket);
      this.latencies.push(performance.now() - started);
    } catch (error) {
      if (member.errors.length === 0) this.#fail(member, error.message);
      member.closing = true;
      socket.close();
      return undefined;
    }
    this.members.push(member);
    return member;
  }

  /** Counts in `unknown` the clients, not the answers: one client often hears it twice. */
  #fail(member, text) {
    if (isUnknownSession(text) && !member.errors.some(isUnknownSession)) this.unknown++;
    member.errors.push(text);
    this.errors.push(text);
  }

  get upgraded() {
    return this.members.filter(({ socket }) => transport(socket) === 'websocket').length;
  }

  /** Everyone's answer to "who serves you", asked now. */
  async census() {
    await pool(this.members.length, 50, async (index) => {
      const member = this.members[index];
      // What a socket without a connection is asked waits for one, and would only look slow.
      if (!member.socket.connected) throw new Error(`a client is not connected: ${member.errors.join('; ')}`);
      member.who = await this.whoami(member.socket).catch((error) => {
        throw new Error(`${error.message} (${[transport(member.socket), ...member.errors].join('; ')})`);
      });
    });
    const counts = {};
    for (const { who } of this.members) counts[who.instance] = (counts[who.instance] ?? 0) + 1;
    return counts;
  }

  /** The members whose worker is `instance` (as of the last census, or their join). */
  on(instance) {
    return this.members.filter(({ who }) => Number(who.instance) === Number(instance));
  }

  /** Takes members out and closes them. */
  leave(members) {
    const gone = new Set(members);
    this.members = this.members.filter((member) => !gone.has(member));
    for (const member of gone) {
      member.closing = true;
      member.socket.close();
    }
  }

  close() {
    this.leave(this.members);
  }

  /** Median and largest time from the first request to the first answer, for the log. */
  get latency() {
    const sorted = this.latencies.toSorted?.((a, b) => a - b) ?? [...this.latencies].sort((a, b) => a - b);
    const at = (share) => Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0);
    return { median: at(0.5), p99: at(0.99), max: at(1) };
  }

  /** The errors, counted by text: what an assertion shows. */
  get failures() {
    const counts = {};
    for (const text of this.errors) counts[text] = (counts[text] ?? 0) + 1;
    return counts;
  }
}
