// The tests of demo.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./demo.test.mjs');
