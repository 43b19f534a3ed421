// Waiting, always with a deadline: a test that hangs says what it was waiting for.

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The promise's result, or an error that names `what` after `ms`. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Calls `check` until it returns something truthy; errors of `check` count as "not yet". */
export async function until(ms, what, check, every = 50) {
  const deadline = Date.now() + ms;
  let last;
  for (;;) {
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms (last: ${last?.message ?? JSON.stringify(last)})`);
    await sleep(every);
  }
}

/** Resolves with the arguments of the next `event`. */
export function once(emitter, event, ms = 10_000) {
  return within(ms, `event "${event}"`, new Promise((resolve) => emitter.once(event, (...args) => resolve(args))));
}

/** Runs `task(0..count)` with at most `width` at a time. */
export async function pool(count, width, task) {
  let next = 0;
  const lane = async () => {
    while (next < count) await task(next++);
  };
  await Promise.all(Array.from({ length: Math.min(width, count) }, lane));
}
