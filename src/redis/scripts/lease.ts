import { Script } from './script.js';

/**
 * A lease is a member of two sorted sets, its score the Redis time in ms at which it ends: `instances`, the roster of
 * those that run, and `leases`, those with presence entries. An instance that ends is off the roster at once, and its
 * entries stay for the grace.
 */
const NOW = `
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
`;

/** KEYS: instances, leases. ARGV: lease, its length in ms. Answers 1 where the lease was still there, else 0. */
export const renewScript = new Script(`${NOW}
local known = redis.call('ZSCORE', KEYS[2], ARGV[1]) and 1 or 0
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
return known
`);

/** The instance ends. KEYS: instances, leases. ARGV: lease, grace in ms. */
export const handBackScript = new Script(`${NOW}
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
return 0
`);

/** The leases that have ended. KEYS: leases. */
export const endedScript = new Script(`${NOW}
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
`);

/** The leases that hold. KEYS: instances. */
export const leasesScript = new Script(`${NOW}
return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')
`);

/** How many leases hold. KEYS: instances. */
export const countLeasesScript = new Script(`${NOW}
return redis.call('ZCOUNT', KEYS[1], now, '+inf')
`);
