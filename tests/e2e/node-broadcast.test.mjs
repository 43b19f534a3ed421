// The tests of broadcast.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./broadcast.test.mjs');
