// The same server as @socket.io/sticky's own example runs it: a primary that reads first and hands on, two workers.

const cluster = require('node:cluster');
const http = require('node:http');
const { Server } = require('socket.io');
const { setupPrimary: setupSticky, setupWorker } = require('@socket.io/sticky');
const { createAdapter, setupPrimary: setupAdapter } = require('@socket.io/cluster-adapter');

if (cluster.isPrimary) {
  const server = http.createServer();
  setupSticky(server, { loadBalancingMethod: 'least-connection' });
  setupAdapter();
  cluster.setupPrimary({ serialization: 'advanced' });
  server.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
  for (let worker = 0; worker < Number(process.env.WORKERS); worker++) cluster.fork();
} else {
  const server = http.createServer((request, response) => response.end('echo'));
  const io = new Server(server, { serveClient: false });
  io.adapter(createAdapter());
  setupWorker(io);
  io.on('connection', (socket) => {
    socket.on('echo', (...args) => socket.emit('echo', ...args));
  });
}
