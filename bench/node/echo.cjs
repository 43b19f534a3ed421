// The server that is measured. It listens where its environment says:
//   PORT    shared by the workers of a cluster (or its own, when it runs alone)
//   DIRECT  plus its instance number: a port of this process only, past any cluster. What is asked there has no front.

const http = require('node:http');
const { Server } = require('socket.io');

function serve(options) {
  const server = http.createServer((request, response) => response.end('echo'));
  new Server(server, { serveClient: false }).on('connection', (socket) => {
    socket.on('echo', (...args) => socket.emit('echo', ...args));
    socket.on('echo-ack', (...args) => args.pop()(...args));
    socket.on('broadcast', (...args) => socket.nsp.emit('broadcast', ...args));
  });
  server.listen({ host: '127.0.0.1', ...options });
}

const { PORT, DIRECT, NODE_APP_INSTANCE } = process.env;
if (PORT) serve({ port: Number(PORT) });
if (DIRECT) serve({ port: Number(DIRECT) + Number(NODE_APP_INSTANCE ?? 0), exclusive: true });
