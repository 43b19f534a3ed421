// The clients' addresses behind proxies, with Node.js workers.

import { use } from '../lib/workers.mjs';

use('node');
await import('./proxies.test.mjs');
