// The tests of routing-ways.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./routing-ways.test.mjs');
