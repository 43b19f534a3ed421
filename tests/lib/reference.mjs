// The echo example on Node's own Socket.IO server. A test that fails against it is wrong, not Sundew.

import http from 'node:http';
import { Server } from 'socket.io';

/** Starts it on a port of the kernel's choice. */
export async function startReference() {
  const server = http.createServer((request, response) => {
    response.end(request.url === '/address' ? request.socket.remoteAddress : 'echo');
  });
  const io = new Server(server);
  const serve = (socket) => {
    const to = socket.nsp;
    socket.on('echo', (...args) => socket.emit('echo', ...args));
    socket.on('echo-ack', (...args) => args.pop()(...args));
    socket.on('broadcast', (payload) => to.emit('broadcast', payload));
    socket.on('join', async (room, done) => (await socket.join(room), done?.()));
    socket.on('leave', async (room, done) => (await socket.leave(room), done?.()));
    socket.on('room-broadcast', (room, payload) => to.to(room).emit('broadcast', payload));
    socket.on('ask-me', async (...args) => args.pop()(await socket.timeout(5000).emitWithAck('ask-me', ...args)));
    socket.on('count', async (done) => done((await to.fetchSockets()).length));
    socket.on('broadcast-ack', async (payload, done) => done((await to.timeout(5000).emitWithAck('broadcast-ack', payload)).length));
    socket.on('whoami', (done) =>
      done({
        instance: 0,
        pid: process.pid,
        address: socket.conn.remoteAddress,
        transport: socket.conn.transport.name,
      }),
    );
  };
  io.on('connection', serve);
  io.of('/ws').on('connection', serve);
  io.of('/auth').use((socket, next) => {
    if (socket.handshake.auth.token === 'secret') return next();
    next(Object.assign(new Error('not authorized'), { data: { content: 'token' } }));
  });
  io.of('/auth').on('connection', serve);
  await new Promise((resolve) => server.listen(0, resolve));
  const { port } = server.address();
  return { port, url: `http://127.0.0.1:${port}`, close: () => (io.close(), server.closeAllConnections()) };
}
