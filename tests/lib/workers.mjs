// What the workers of a test are: the native echo example, or the same program for Node.js. A test file that is about
// both is written once; its `node-` twin chooses Node.js and imports it.

import path from 'node:path';
import { bin, root } from './paths.mjs';

export const echo = path.join(bin, 'echo');
export const nodeEcho = path.join(root, 'tests/apps/echo.cjs');

const KINDS = {
  native: {
    /** What /proc calls a worker. */
    program: 'echo',
    script: echo,
    /** How to run one without a supervisor. */
    alone: [echo, []],
    demo: 'examples/chat/pm2.json',
    // Programs of a test's own, under one name, so that one can take another's place.
    file: 'worker',
    mode: 0o755,
    serves: `#!/bin/sh\nexec ${echo}\n`,
    ends: (text, code) => `#!/bin/sh\necho "${text}" >&2\nexit ${code}\n`,
    idles: '#!/bin/sh\nexec sleep 600\n',
  },
  node: {
    program: 'node',
    script: nodeEcho,
    // Another version of Node.js than the one that runs the tests.
    interpreter: process.env.SUNDEW_TEST_NODE ?? process.execPath,
    alone: [process.execPath, [nodeEcho]],
    demo: 'examples/node-chat/pm2.json',
    file: 'worker.cjs',
    mode: 0o644,
    serves: `require(${JSON.stringify(nodeEcho)});\n`,
    ends: (text, code) => `console.error(${JSON.stringify(text)});\nprocess.exit(${code});\n`,
    idles: 'setInterval(() => {}, 1000);\n',
  },
};

/** The chosen kind; native unless a test file says otherwise before it imports anything else. */
export let worker = KINDS.native;
/** The words that tell its tests from another kind's. */
export let kind = 'native';

export function use(name) {
  worker = KINDS[name];
  kind = name;
}

/** The settings of an app unless a test says otherwise: the echo example, four workers, short delays. */
export const app = (settings = {}) => ({
  name: 'echo',
  script: worker.script,
  interpreter: worker.interpreter,
  instances: 4,
  exec_mode: 'cluster',
  restart_delay: 100,
  ...settings,
  sundew: { drainTimeout: 2000, ...settings.sundew },
});

/** Writes a worker's program into a sandbox, by default one that serves. */
export const program = (sandbox, content = worker.serves) => sandbox.file(worker.file, content, worker.mode);
