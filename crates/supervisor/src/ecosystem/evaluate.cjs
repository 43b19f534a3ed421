// Evaluates an ecosystem file and writes what it exports to descriptor 3: one line, `+` and JSON, or `-` and JSON of what
// went wrong. Runs as `node -e THIS -- FILE COMMAND...`. The file's own output is not on that descriptor.
'use strict';

const { writeSync } = require('node:fs');
const { spawnSync } = require('node:child_process');
const { fileURLToPath, pathToFileURL } = require('node:url');

const ANSWER = 3;
const [, file, ...command] = process.argv;
// Files look at the command line for `--env` and the like.
process.argv = [process.execPath, ...command];

function answer(line) {
  const bytes = Buffer.from(line + '\n');
  for (let at = 0; at < bytes.length; ) at += writeSync(ANSWER, bytes, at);
  process.exit(0);
}

const path = (where) => (where.startsWith('file:') ? fileURLToPath(where) : where);

// A syntax error has its place above its message, and the mark under the line is its column.
function above(text) {
  const [head, , mark = ''] = text.split('\n');
  const place = /^(.+):(\d+)$/.exec(head);
  if (!place || !mark.includes('^')) return undefined;
  return { file: path(place[1]), line: Number(place[2]), column: mark.indexOf('^') + 1 };
}

// The first line of the stack that is not node's own.
function below(stack) {
  for (const line of stack.split('\n')) {
    const place = /^\s+at (?:.* \(|async )?((?:file:\/\/)?\/[^()]*):(\d+):(\d+)\)?$/.exec(line);
    if (place) return { file: path(place[1]), line: Number(place[2]), column: Number(place[3]) };
  }
  return undefined;
}

function failed(error) {
  if (!(error instanceof Error)) {
    answer('-' + JSON.stringify({ message: `it threw ${String(error)}` }));
    return;
  }
  const stack = String(error.stack);
  let place = above(stack) ?? below(stack);
  if (!place && error instanceof SyntaxError) {
    // Of a module, node tells the place only when it prints the error itself. None of it has run: it is read first.
    const source = `import ${JSON.stringify(pathToFileURL(file).href)}`;
    const asked = spawnSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8', timeout: 10_000 });
    place = above(asked.stderr ?? '');
  }
  answer('-' + JSON.stringify({ message: `${error.name}: ${error.message}`, ...place }));
}

process.on('uncaughtException', failed);
process.on('unhandledRejection', failed);

async function evaluate() {
  const module = await import(pathToFileURL(file).href);
  let value = module.default === undefined ? { ...module } : module.default;
  if (value?.__esModule && value.default !== undefined) value = value.default;
  value = await value;
  if (typeof value === 'function') {
    answer('-' + JSON.stringify({ message: 'it exports a function', hint: 'export what the function returns: an object with `apps`' }));
    return;
  }
  let text;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    answer('-' + JSON.stringify({ message: `what it exports cannot be written as JSON: ${error.message.split('\n')[0]}` }));
    return;
  }
  if (text === undefined) answer('-' + JSON.stringify({ message: 'it exports nothing' }));
  else answer('+' + text);
}

evaluate().catch(failed);
