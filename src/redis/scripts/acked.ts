import { LIFE_FUNCTIONS, Script } from './script.js';

/**
 * Remembers a user's position in a channel. KEYS: life, meta, the position. ARGV: id, `=` and the epoch (empty: the present one),
 * TTL in ms. Answers `taken`, `other_epoch`, `ahead`, `FENCED` or `ERROR <text>`. In one epoch the highest id wins.
 */
export const rememberScript = new Script(`${LIFE_FUNCTIONS}
local life, fence = read_life(KEYS[1])
if fence ~= replid then return 'FENCED' end
local head, epoch = read_meta(KEYS[2], life)
if not head then return 'ERROR ' .. epoch end
local id = tonumber(ARGV[1])
local unborn = life .. '.0'
if ARGV[2] ~= '' and ARGV[2] ~= '=' .. epoch and ARGV[2] ~= '=' .. unborn then return 'other_epoch' end
if id > head then return 'ahead' end
local known = redis.call('GET', KEYS[3])
if known then
  local known_id, known_epoch = string.match(known, '^(%d+) (%S+)$')
  if known_epoch == epoch and tonumber(known_id) > id then id = tonumber(known_id) end
end
redis.call('SET', KEYS[3], string.format('%d', id) .. ' ' .. epoch, 'PX', ARGV[3])
return 'taken'
`);
