// What a TCP proxy says before the first byte of its client: PROXY protocol headers, by hand.

const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');

/** Version 2, by default a connection of this client over TCP and IPv4. */
export function proxy2(client, { port = 4711, command = 1, family = 0x11, tlvs = Buffer.alloc(0) } = {}) {
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(port, 0);
  ports.writeUInt16BE(80, 2);
  const addresses = family === 0x11 ? Buffer.from([...client.split('.').map(Number), 10, 0, 0, 1]) : Buffer.alloc(0);
  const body = Buffer.concat([addresses, family === 0x11 ? ports : Buffer.alloc(0), tlvs]);
  const head = Buffer.from([0x20 | command, family, body.length >> 8, body.length & 255]);
  return Buffer.concat([SIGNATURE, head, body]);
}

/** Version 1. */
export const proxy1 = (client, port = 4711) => Buffer.from(`PROXY ${client.includes(':') ? 'TCP6' : 'TCP4'} ${client} ${client.includes(':') ? '::1' : '10.0.0.1'} ${port} 80\r\n`);
