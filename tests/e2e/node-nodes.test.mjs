// As nodes.test.mjs, with Node workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./nodes.test.mjs');
