// Where things are.

import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));
/** Where `cargo build --release` puts its programs. */
export const bin = process.env.SUNDEW_BIN ?? path.join(root, 'target/release');
/** Where screenshots go. */
export const out = process.env.SUNDEW_E2E_OUT ?? path.join(root, 'target/e2e');
/** Where the packages of tests/apps/requirements.txt are. */
export const python = process.env.SUNDEW_TEST_PYTHON ?? path.join(root, 'target/python');
