// The echo example on Node's own Socket.IO server. A test that fails against it is wrong, not Sundew.

import http from 'node:http';
import { Server } from 'socket.io';
import events from '../apps/events.cjs';

/** Starts it on a port of the kernel's choice. */
export async function startReference(options = {}) {
  const server = http.createServer(events.answer);
  const io = new Server(server, options);
  events.serve(io);
  await new Promise((resolve) => server.listen(0, resolve));
  const { port } = server.address();
  return { port, url: `http://127.0.0.1:${port}`, close: () => (io.close(), server.closeAllConnections()) };
}
