// The real nginx and HAProxy, with the configurations that `sundew nginx` and `sundew haproxy` print.

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { until } from './wait.mjs';

const find = (name) => ['/usr/sbin', '/usr/local/sbin', '/usr/bin'].map((folder) => path.join(folder, name)).find(fs.existsSync);
export const NGINX = find('nginx');
export const HAPROXY = find('haproxy');

/** Runs a proxy, once its own check has accepted the configuration. It ends with `close`. */
async function run(cluster, program, check, args, port) {
  execFileSync(program, check, { stdio: 'pipe' });
  const proxy = cluster.spawn(program, args);
  await until(10_000, `${path.basename(program)} on ${port}`, async () => {
    if (proxy.exitCode !== null) throw new Error(proxy.output);
    return (await fetch(`http://127.0.0.1:${port}/`)).status < 500;
  });
  return {
    url: `http://127.0.0.1:${port}`,
    pid: proxy.pid,
    output: () => proxy.output,
    close: async () => {
      proxy.kill();
      await proxy.ended;
    },
  };
}

/** The configuration is used as it is printed, but for what keeps nginx in the foreground and out of the system's folders. */
export async function startNginx(cluster, port, args = []) {
  const { stdout } = await cluster.ok('nginx', cluster.config, '--listen', String(port), ...args);
  const config = cluster.file('nginx.conf', stdout.replace(/# (?=(pid|\w+_temp_path) )/g, ''));
  const own = ['-p', cluster.dir, '-c', config];
  return run(cluster, NGINX, ['-t', ...own], [...own, '-g', 'daemon off;'], port);
}

export async function startHaproxy(cluster, port) {
  const { stdout } = await cluster.ok('haproxy', cluster.config, '--listen', String(port));
  const config = cluster.file('haproxy.cfg', stdout);
  return run(cluster, HAPROXY, ['-c', '-f', config], ['-db', '-f', config], port);
}
