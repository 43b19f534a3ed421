'use strict';

// Loaded into every Node.js worker with `node --require`, before the program itself.
//
// What lives here: what a supervisor cannot see from outside and a program should not have to know.
// - Requests reach a worker over "legs", Unix socket pairs shared by many clients. Each request carries its client's
//   address in a header; here it becomes `socket.remoteAddress` of that request, and the header disappears.
// - What a server speaks, and whether a program waits for `sticky:connection` messages, is said to the supervisor.
// - Connections come over a pipe of their own, past the messages of `cluster`: eight bytes and a descriptor each. Where that pipe
//   cannot be opened, they come as those messages.
// - Connections that were handed over are counted, and let go of a few at a time when a reload asks for it.
//
// What may not: anything the program could notice. No 'message' listener, nothing that keeps the process alive, no
// global name, no error: whatever goes wrong here, the program runs on. Nothing here runs for a websocket message.

(() => {
  // A worker thread, a grandchild, a program started by hand: none of our business.
  if (!process.connected || typeof process.send !== 'function') return;
  const cluster = require('cluster');
  if (!cluster.isWorker) return;

  const fs = require('fs');
  const http = require('http');
  const net = require('net');

  const PEER_HEADER = 'x-sundew-peer';
  const COMMAND = 'NODE_SUNDEW';
  /** At most one report of closed connections in this time. */
  const REPORT_EVERY_MS = 100;
  const BATCH = 50;
  const PAUSE_MS = 100;

  /** On a leg's socket: the client whose request it carries, as "1.2.3.4:5", "[::1]:5" or "1.2.3.4:5; tls". */
  const PEER = Symbol('sundew.peer');

  const quietly = (task) => {
    try {
      return task();
    } catch {
      return undefined;
    }
  };

  // With a callback an error goes there; without one it would be thrown at the program.
  const tell = (message) => {
    if (process.connected) process.send({ cmd: COMMAND, ...message }, undefined, undefined, () => {});
  };

  // Taken now: a program under test may put clocks of its own in their place.
  const { setTimeout } = globalThis;
  const after = (ms, task) => setTimeout(() => quietly(task), ms).unref();

  // ---- Programs this one starts: they inherit execArgv, and have no use for this file.

  // Resolved as `--require` does it: the path may lead through links.
  const isThisFile = (file) => file !== undefined && quietly(() => require.resolve(file)) === __filename;

  const withoutThisFile = (args) => {
    for (let at = args.length - 1; at >= 0; at--) {
      const [option, file] = args[at].split(/=(.*)/s);
      if (option !== '--require' && option !== '-r') continue;
      if (isThisFile(file)) args.splice(at, 1);
      else if (file === undefined && isThisFile(args[at + 1])) args.splice(at, 2);
    }
  };

  // ---- Which connection is which: the message that brings a handle says so.

  /** @type {WeakMap<object, 'leg' | 'client' | 'secure'>} */
  const kinds = new WeakMap();

  const onInternal = (message, handle) => {
    if (message?.cmd === 'NODE_HANDLE') {
      if (handle && message.sundew) kinds.set(handle, arrived(handle, message.sundew));
    } else if (message?.cmd === COMMAND && message.act === 'letgo') {
      letGo(message.batch, message.pause);
    }
  };

  // Where a proxy stands between, a client's connection comes with the client's address instead of that word. TLS on top
  // of it asks the same handle.
  const arrived = (handle, kind) => {
    if (kind === 'leg' || kind === 'client') return kind;
    handle.getpeername = (out) => {
      Object.assign(out, { address: address(kind), port: port(kind), family: family(kind) });
      return 0;
    };
    return isSecure(kind) ? 'secure' : 'client';
  };

  /** What comes over the pipe is announced while its handle is being delivered. */
  let arriving;

  const kindOf = (handle) => {
    const kind = handle && kinds.get(handle);
    if (kind !== undefined) kinds.delete(handle);
    return kind;
  };

  const onConnection = (socket) => {
    const kind = arriving ?? kindOf(socket?._handle);
    arriving = undefined;
    if (kind === undefined) return;
    if (kind === 'leg') return void makeLeg(socket);
    if (kind === 'secure') Object.defineProperty(socket, 'encrypted', { configurable: true, value: true });
    hold(socket);
  };

  // Handed-over connections of a program that passes them on by hand (`httpServer.emit('connection', socket)`) come
  // this way too, whatever class of server it is and whenever it was made.
  const watchConnections = () => {
    const { emit } = net.Server.prototype;
    const watched = function (type, first) {
      if (type === 'connection') quietly(() => onConnection(first));
      else if (type === 'secureConnection') quietly(() => onTop(first?._parent, first));
      // Of HTTP/2, with the socket behind a proxy that shows its properties.
      else if (type === 'session') quietly(() => onTop(first?.socket?._parent, first));
      return Reflect.apply(emit, this, arguments);
    };
    define(net.Server.prototype, 'emit', watched);
  };

  const define = (object, name, value) => {
    // Looks like what it stands for.
    Object.defineProperty(value, 'name', { value: name, configurable: true });
    Object.defineProperty(object, name, { value, writable: true, enumerable: false, configurable: true });
  };

  // ---- Legs: the client's address, request by request.

  const address = (peer) => {
    if (!peer) return undefined;
    const host = peer.slice(0, peer.lastIndexOf(':'));
    return host[0] === '[' ? host.slice(1, -1) : host;
  };
  const port = (peer) => (peer ? parseInt(peer.slice(peer.lastIndexOf(':') + 1), 10) : undefined);
  /** It came by TLS, which ends at the supervisor. */
  const isSecure = (peer) => peer.endsWith('; tls');
  const family = (peer) => (peer ? (peer[0] === '[' ? 'IPv6' : 'IPv4') : undefined);

  const getter = (read) => ({
    configurable: true,
    get() {
      return read(this);
    },
  });

  const legProperties = {
    [PEER]: { value: '', writable: true },
    remoteAddress: getter((socket) => address(socket[PEER])),
    remotePort: getter((socket) => port(socket[PEER])),
    remoteFamily: getter((socket) => family(socket[PEER])),
    // What programs ask to know whether a request came by https, as of a TLS socket.
    encrypted: getter((socket) => (isSecure(socket[PEER]) ? true : undefined)),
    // The port the client knows; a socket pair has none.
    localPort: getter((socket) => socket.server?.address?.()?.port),
  };

  const makeLeg = (socket) => Object.defineProperties(socket, legProperties);

  /** Takes the address out of a request's flat list of headers; returns how many of its entries are left. */
  const takePeer = (socket, headers, count) => {
    let peer;
    // From the end: taking one out does not move those still to be looked at.
    for (let at = count - 2; at >= 0; at -= 2) {
      const name = headers[at];
      if (name.length !== PEER_HEADER.length || name.toLowerCase() !== PEER_HEADER) continue;
      peer = headers[at + 1];
      headers.splice(at, 2);
      count -= 2;
    }
    socket[PEER] = peer ?? '';
    return count;
  };

  // The one place every request passes before anything is made of its headers: `headers`, `headersDistinct` and
  // `rawHeaders` never know of it, whatever event or hook the request is announced by.
  const watchRequests = () => {
    const { prototype } = http.IncomingMessage;
    const { _addHeaderLines: addHeaderLines } = prototype;
    const watched = function (headers, count) {
      const { socket } = this;
      if (socket && socket[PEER] !== undefined && !this.complete && headers) {
        quietly(() => {
          count = takePeer(socket, headers, count);
        });
      }
      return addHeaderLines.call(this, headers, count);
    };
    define(prototype, '_addHeaderLines', watched);
  };

  // ---- Connections of clients.

  /** Each connection that was handed over, and what ends it: itself, or the TLS socket or HTTP/2 session on top of it. */
  const held = new Map();
  let closed = 0;
  let reporting = false;

  const hold = (socket) => {
    held.set(socket, socket);
    socket.on('close', onHeldClose);
  };

  // One function for all of them.
  function onHeldClose() {
    if (!held.delete(this)) return;
    closed++;
    if (reporting) return;
    reporting = true;
    after(REPORT_EVERY_MS, reportClosed);
  }

  const reportClosed = () => {
    reporting = false;
    tell({ act: 'closed', total: closed });
  };

  const onTop = (raw, top) => {
    if (held.has(raw)) held.set(raw, top);
  };

  /** Ends what clients hold open, so that they come back to another worker. */
  const letGo = (batch, pause) => {
    const size = batch > 0 ? batch : BATCH;
    const left = [...held.keys()];
    const next = () => {
      for (const raw of left.splice(0, size)) {
        const top = held.get(raw);
        if (top) quietly(() => end(top));
      }
      if (left.length > 0) after(pause >= 0 ? pause : PAUSE_MS, next);
    };
    next();
  };

  const end = (socket) => {
    // A session of HTTP/2: takes no new requests, and ends after those under way.
    if (typeof socket.destroySoon !== 'function') return socket.close();
    const response = socket._httpMessage;
    // An answer under way is finished first. A poll is not: it waits for what no longer comes, and is asked again.
    if (response && !response.finished && !/[?&]transport=polling(&|$)/.test(response.req?.url)) {
      return response.once('close', () => socket.destroySoon());
    }
    return socket.destroySoon();
  };

  // ---- The pipe.

  /** By number: each server that asked to listen, and the handle that Node's cluster gave it in place of a real one. */
  const servers = new Map();
  let lastServer = 0;
  let piped = false;

  // Until the answer has come, and once it is closed, a server has another handle or none.
  const isOpen = ({ server, handle }) => server._handle === handle;

  const openPipe = () => {
    const [fd, batch] = (process.env.SUNDEW_HANDOVER ?? '').split(':').map(Number);
    delete process.env.SUNDEW_HANDOVER;
    if (!(fd > 2)) return;

    const { Pipe, constants } = bindingOf('pipe_wrap');
    const pipe = new Pipe(constants.IPC);
    if (typeof pipe.useUserBuffer !== 'function' || pipe.open(fd) !== 0) return;
    const { writeSync } = fs;
    // As long as a message: a read that fills it is followed by the next one at once.
    const message = Buffer.alloc(8);
    /** The number of what came last, and of what was confirmed last. */
    let last = 0;
    let confirmed = 0;
    let waiting = false;
    let unsent = [];

    const say = (number, verdict) => {
      const word = Buffer.alloc(8);
      word.writeUInt32LE(number, 0);
      word[4] = verdict;
      unsent.push(word);
      flush();
    };
    const flush = () => {
      while (unsent.length > 0) {
        try {
          writeSync(fd, unsent[0]);
        } catch (error) {
          // It is read soon, or never again.
          if (error.code === 'EAGAIN') after(1, flush);
          return;
        }
        unsent.shift();
      }
    };
    const confirm = () => {
      waiting = false;
      if (confirmed !== last) say((confirmed = last), 0);
    };
    const take = () => {
      last = (last + 1) >>> 0;
      if (((last - confirmed) >>> 0) >= batch) return confirm();
      if (waiting) return undefined;
      waiting = true;
      return after(1, confirm);
    };
    const refuse = (handle) => {
      // Those before it first.
      confirm();
      confirmed = last = (last + 1) >>> 0;
      say(last, 1);
      if (handle) handle.close();
    };

    pipe.useUserBuffer(message);
    pipe.onread = () => {
      const handle = pipe.pendingHandle;
      pipe.pendingHandle = null;
      const number = message.readUInt32LE(0);
      // Nothing was read: there is no more for now, or the supervisor is gone, which Node's own channel tells.
      if (number === 0) return;
      message.writeUInt32LE(0, 0);
      const known = servers.get(number);
      const { server } = known ?? {};
      // As Node's cluster decides it. Without a handle the process has no descriptor left for it.
      const full = server?.maxConnections != null && server._connections >= server.maxConnections;
      if (!handle || !known || full || !isOpen(known)) {
        quietly(() => refuse(handle));
        return;
      }
      quietly(take);
      arriving = message[4] === 1 ? 'leg' : 'client';
      try {
        // What a listener throws is the program's own affair.
        known.handle.onconnection(0, handle);
      } finally {
        arriving = undefined;
      }
    };
    pipe.readStart();
    pipe.unref();
    piped = true;
  };

  // Deprecated, and the only way to a pipe that brings descriptors. Said to nobody: it is not the program's doing.
  const bindingOf = (name) => {
    const before = Object.getOwnPropertyDescriptor(process, 'noDeprecation');
    process.noDeprecation = true;
    try {
      return process.binding(name);
    } finally {
      if (before) Object.defineProperty(process, 'noDeprecation', before);
      else delete process.noDeprecation;
    }
  };

  // ---- What the supervisor is told.

  const watchServers = () => {
    const { _getServer: getServer } = cluster;
    cluster._getServer = function (server, options, done) {
      const told = quietly(() => announce(server, done));
      if (told) arguments[2] = told;
      return Reflect.apply(getServer, this, arguments);
    };
  };

  /** Tells of a server. With the pipe: what is to be called when the supervisor has answered. */
  const announce = (server, done) => {
    const isHttp = server instanceof http.Server;
    if (!piped || typeof done !== 'function') return tell({ act: 'serves', http: isHttp });
    for (const [number, known] of servers) if (!isOpen(known)) servers.delete(number);
    const number = ++lastServer;
    tell({ act: 'serves', http: isHttp, server: number });
    return function (error, handle) {
      if (!error && handle) servers.set(number, { server, handle });
      return Reflect.apply(done, this, arguments);
    };
  };

  // A program written for sticky sessions does not listen: it waits for connections in messages.
  const watchSticky = () => {
    let told = false;
    process.on('newListener', (type, listener) => {
      if (type !== 'message' || told) return;
      quietly(() => {
        if (!Function.prototype.toString.call(listener).includes('sticky:connection')) return;
        told = true;
        tell({ act: 'sticky' });
      });
    });
  };

  quietly(() => withoutThisFile(process.execArgv));
  quietly(() => process.prependListener('internalMessage', (message, handle) => quietly(() => onInternal(message, handle))));
  quietly(openPipe);
  quietly(watchConnections);
  quietly(watchRequests);
  quietly(watchServers);
  quietly(watchSticky);
})();
