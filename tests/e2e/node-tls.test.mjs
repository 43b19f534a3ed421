// The tests of tls.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./tls.test.mjs');
