// The tests of figures.test.mjs with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./figures.test.mjs');
