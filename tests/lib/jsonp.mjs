// A browser with a page of another origin than the server's, and the client of Socket.IO 2 or 3: what JSONP is for.

import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { root } from './cluster.mjs';

export const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(fs.existsSync);

/** The page, and what it has fetched: `[type of resource, url]`. */
export async function jsonpPage(t, version = 2) {
  const client = fs.readFileSync(path.join(root, `tests/node_modules/socket.io-client-${version}/dist/socket.io.js`));
  const site = http.createServer((request, response) => {
    const script = request.url === '/client.js';
    response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
    response.end(script ? client : '<script src="/client.js"></script>');
  });
  await new Promise((resolve) => site.listen(0, resolve));
  t.after(() => (site.close(), site.closeAllConnections()));
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu'] });
  t.after(() => browser.close());
  const page = await browser.newPage();
  const fetched = [];
  page.on('response', (answer) => fetched.push([answer.request().resourceType(), answer.url()]));
  await page.goto(`http://localhost:${site.address().port}/`);
  return { page, fetched };
}
