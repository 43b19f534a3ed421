// The tests of load.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./load.test.mjs');
