// A page with a button, and a Socket.IO server that says which process answered.
// Alone: npm start. As a cluster: pm2.json. Then open http://localhost:8080/page.

const cluster = require('cluster');
const http = require('http');
const path = require('path');
const express = require('express');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/cluster-adapter');

const app = express();
const server = http.createServer(app);
// With ?route=direct the page is of this port and connects to a worker's own: another origin, as browsers see it. Outside of
// a demo, name the page's: cors: { origin: 'https://app.example' }.
const io = new Server(server, { cors: { origin: '*' } });

// In a cluster a broadcast has to reach the clients of the other processes too.
if (cluster.isWorker) io.adapter(createAdapter());

app.get('/', (req, res) => res.redirect('/page'));
app.get('/page', (req, res) => res.sendFile(path.join(__dirname, 'page.html')));

for (const name of ['/', '/ws']) {
  const namespace = io.of(name);
  namespace.on('connection', (socket) => {
    console.log(`${socket.id} connected to ${name} from ${socket.handshake.address}`);
    socket.on('b:message', () => {
      socket.emit('s:message', { instance: Number(process.env.NODE_APP_INSTANCE || 0), pid: process.pid });
    });
    socket.on('b:everyone', (message) => namespace.emit('s:everyone', message));
    socket.on('disconnect', (reason) => console.log(`${socket.id} disconnected from ${name}: ${reason}`));
  });
}

const port = process.env.PORT || 8080;
server.listen(port, () => console.log(`http://localhost:${port}/page`));
