// The tests of reload.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./reload.test.mjs');
