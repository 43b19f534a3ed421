// The tests of handoff.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./handoff.test.mjs');
