// What the echo example answers, on Node's own Socket.IO server: shared by the reference server and the Node workers.

const instance = Number(process.env.NODE_APP_INSTANCE ?? 0);

function serve(socket) {
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
  socket.on('everywhere', async (done) => done(await to.serverSideEmitWithAck('who')));
  socket.on('all-join', (room) => to.socketsJoin(room));
  socket.on('all-leave', (room) => to.socketsLeave(room));
  socket.on('others-out', () => to.except(socket.id).disconnectSockets());
  socket.on('rooms', (done) => done([...socket.rooms]));
  if (process.env.ECHO_REASONS) {
    socket.on('disconnect', (reason) => to.to('watchers').emit('left', socket.id, reason));
    socket.on('go', (close) => socket.disconnect(close));
  }
  // Blocks the event loop, as a heavy computation does.
  socket.on('block', (ms) => {
    const end = Date.now() + ms;
    while (Date.now() < end);
  });
  socket.on('whoami', (done) =>
    done({
      instance,
      pid: process.pid,
      address: socket.conn.remoteAddress,
      handshake: socket.handshake.address,
      transport: socket.conn.transport.name,
    }),
  );
}

/** Serves the namespaces of the echo example. */
exports.serve = (io) => {
  io.on('who', (done) => done({ instance, blob: Buffer.from([instance, 255]) }));
  io.on('connection', serve);
  io.of('/ws').on('connection', serve);
  io.of('/auth').use((socket, next) => {
    if (socket.handshake.auth.token === 'secret') return next();
    next(Object.assign(new Error('not authorized'), { data: { content: 'token' } }));
  });
  io.of('/auth').on('connection', serve);
};

/** Answers ordinary requests as the echo example does. */
exports.answer = (request, response) => {
  response.end(request.url === '/address' ? request.socket.remoteAddress : 'echo');
};
