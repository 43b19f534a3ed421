// The echo example as a Node program: ordinary Socket.IO code, alone or in a cluster.
//
// ECHO_ID=N: session ids of N characters, made asynchronously. ECHO_EIO3: old clients too.

const cluster = require('node:cluster');
const { randomBytes } = require('node:crypto');
const http = require('node:http');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/cluster-adapter');
const { answer, serve } = require('./events.cjs');

const server = http.createServer(answer);
const io = new Server(server, { allowEIO3: process.env.ECHO_EIO3 !== undefined });
if (cluster.isWorker) io.adapter(createAdapter());
if (process.env.ECHO_ID) {
  io.engine.generateId = async () => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    return randomBytes(Number(process.env.ECHO_ID)).toString('hex').slice(0, Number(process.env.ECHO_ID));
  };
}
serve(io);

const port = process.env.PORT || 8080;
server.listen(port, () => console.log(`listening on port ${port}`));
