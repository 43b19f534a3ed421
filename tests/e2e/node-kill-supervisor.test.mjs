// The tests of kill-supervisor.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./kill-supervisor.test.mjs');
