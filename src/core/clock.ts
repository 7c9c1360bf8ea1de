/**
 * Whole milliseconds of the monotonic clock, for what is kept of each connection: below 2^31, which are 24 days of
 * uptime, V8 keeps them in place, and any other number in an object of its own.
 */
export function monotonicMs(): number {
  return Math.floor(performance.now());
}
