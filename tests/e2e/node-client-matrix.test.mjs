// The tests of client-matrix.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./client-matrix.test.mjs');
