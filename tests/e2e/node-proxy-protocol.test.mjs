// The tests of proxy-protocol.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./proxy-protocol.test.mjs');
