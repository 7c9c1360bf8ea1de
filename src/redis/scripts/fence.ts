import { LIFE_FUNCTIONS, Script } from './script.js';

/**
 * Settles one fenced partition: the same life goes on where nothing that was given out is missing, else a new one
 * begins.
 *
 * KEYS: life. ARGV: the fence that was read before the instances were asked (empty: there was none), `1` where all
 * instances answered, the newest life that one of them has seen (empty: none) and its highest seq there, the name of
 * a new life. Answers `ok` (not fenced), `kept`, `new`, or `raced` (another instance settled it: ask again).
 */
export const settleScript = new Script(`${LIFE_FUNCTIONS}
local life, fence, seq = read_life(KEYS[1])
if fence == replid then return 'ok' end
if (fence or '') ~= ARGV[1] then return 'raced' end
local seen_life, seen_seq = ARGV[3], tonumber(ARGV[4])
if life and ARGV[2] == '1' and (seen_life < life or (seen_life == life and seen_seq <= seq)) then
  redis.call('SET', KEYS[1], life .. ' ' .. replid .. ' ' .. seq)
  return 'kept'
end
redis.call('SET', KEYS[1], ARGV[5] .. ' ' .. replid .. ' 0')
return 'new'
`);

/** Frees a lock only for its holder. KEYS: lock. ARGV: holder. */
export const unlockScript = new Script(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
`);
