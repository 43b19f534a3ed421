// The tests of kill-worker.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./kill-worker.test.mjs');
