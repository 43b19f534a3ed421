// The chat the way it is often run behind nginx: the processes share port 8080, and each also has a Socket.IO port of
// its own, 3131 and up, so that nginx can keep a client at one of them (nginx.conf, ip_hash).

const http = require('http');
const path = require('path');
const express = require('express');
const { Server } = require('socket.io');

const instance = parseInt(process.env.NODE_APP_INSTANCE || '0');
const port = process.env.PORT || 8080;
const ownPort = parseInt(process.env.SOCKET_PORT || '3131') + instance;

const app = express();
const server = http.createServer(app);

app.get('/', (req, res) => res.redirect('/page'));
app.get('/page', (req, res) => res.sendFile(path.join(__dirname, '../node-chat/page.html')));

const serve = (io) => {
  for (const name of ['/', '/ws']) {
    io.of(name).on('connection', (socket) => {
      socket.on('b:message', () => socket.emit('s:message', { instance, pid: process.pid }));
    });
  }
};

serve(new Server(server));
serve(new Server(ownPort));
server.listen(port, () => console.log(`http://localhost:${port}/page, Socket.IO on ${ownPort}`));
