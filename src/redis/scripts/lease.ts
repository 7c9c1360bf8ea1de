import { Script } from './script.js';

/** A lease is a member of the sorted set `instances`, its score the Redis time in ms at which it ends. */
const NOW = `
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
`;

/** KEYS: instances. ARGV: lease, its length in ms. Answers 1 where the lease was still in the set, else 0. */
export const renewScript = new Script(`${NOW}
local known = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return known
`);

/** The leases that have ended. KEYS: instances. */
export const endedScript = new Script(`${NOW}
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
`);

/** How many leases hold. KEYS: instances. */
export const countLeasesScript = new Script(`${NOW}
return redis.call('ZCOUNT', KEYS[1], now, '+inf')
`);
