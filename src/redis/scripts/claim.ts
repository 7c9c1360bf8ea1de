import { Script } from './script.js';

/** Takes an idempotency key, or answers what is under it. KEYS: answer. ARGV: fingerprint, ms until it is given up. */
export const claimScript = new Script(`
local found = redis.call('GET', KEYS[1])
if found then return found end
redis.call('SET', KEYS[1], ARGV[1] .. ' ', 'PX', ARGV[2])
return nil
`);
