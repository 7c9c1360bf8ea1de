import { LIFE_FUNCTIONS, Script } from './script.js';

/**
 * Heads of channels. KEYS, two for each: life, meta. Answers for each `<id> <epoch>`, `FENCED` or
 * `ERROR <text>`. Writes nothing, so
 * asking for a channel that was never written leaves no key behind.
 */
export const headsScript = new Script(`${LIFE_FUNCTIONS}
local answers = {}
for i = 1, #KEYS, 2 do
  local life, fence = read_life(KEYS[i])
  if fence ~= replid then
    answers[#answers + 1] = 'FENCED'
  else
    local id, epoch = read_meta(KEYS[i + 1], life)
    answers[#answers + 1] = id and (id .. ' ' .. epoch) or ('ERROR ' .. epoch)
  end
end
return answers
`);

/**
 * Stored events of one channel after an id, oldest first, as many as fit the limits (at least one).
 *
 * KEYS: life, meta, log. ARGV: the id, the most events, the most bytes, the history size, the log TTL in ms.
 * Answers `FENCED`, or the head `<id> <epoch>`, the oldest id still kept (head + 1 where there is none), and then for
 * each event its id, exclude and body.
 */
export const historyScript = new Script(`${LIFE_FUNCTIONS}
local life, fence = read_life(KEYS[1])
if fence ~= replid then return { 'FENCED' } end
local id, epoch = read_meta(KEYS[2], life)
if not id then return { 'ERROR ' .. epoch } end
local after, limit, max_bytes, size, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local answer = { id .. ' ' .. epoch, id + 1 }
if id == 0 then return answer end
local now = redis.call('TIME')
local since = now[1] * 1000 + math.floor(now[2] / 1000) - ttl

local function fields(entry)
  local exclude, body, at = '', '', 0
  local values = entry[2]
  for i = 1, #values, 2 do
    if values[i] == 'x' then exclude = values[i + 1]
    elseif values[i] == 'b' then body = values[i + 1]
    elseif values[i] == 't' then at = tonumber(values[i + 1]) end
  end
  return exclude, body, at
end

-- Kept: among the newest, and young enough. Old entries that were not trimmed yet do not count.
local oldest = math.max(1, id - size + 1)
local from, count = oldest, 1
while from <= id do
  local page = redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', count)
  local found = nil
  for _, entry in ipairs(page) do
    local _, _, at = fields(entry)
    if at > since then found = tonumber(string.match(entry[1], '^%d+')) break end
    from = tonumber(string.match(entry[1], '^%d+')) + 1
  end
  if found then oldest = found break end
  if #page < count then oldest = id + 1 break end
  -- Usually the first one is young enough.
  count = 64
end
answer[2] = oldest
if after + 1 < oldest or after >= id then return answer end

local bytes = 0
for _, entry in ipairs(redis.call('XRANGE', KEYS[3], after + 1, '+', 'COUNT', limit)) do
  local exclude, body = fields(entry)
  bytes = bytes + #body
  if bytes > max_bytes and #answer > 2 then break end
  answer[#answer + 1] = string.match(entry[1], '^%d+')
  answer[#answer + 1] = exclude
  answer[#answer + 1] = body
end
return answer
`);

/**
 * The newest stored events before an id, oldest first, as many as fit the limits (at least one).
 *
 * KEYS: life, meta, log. ARGV: the id (empty: up to the head), the most events, the most bytes, the history size, the
 * log TTL in ms. Answers `FENCED`, or the epoch, `1` where older ones are stored, and for each event id, exclude, body.
 */
export const beforeScript = new Script(`${LIFE_FUNCTIONS}
local life, fence = read_life(KEYS[1])
if fence ~= replid then return { 'FENCED' } end
local head, epoch = read_meta(KEYS[2], life)
if not head then return { 'ERROR ' .. epoch } end
local limit, max_bytes, size, ttl = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local last = head
if ARGV[1] ~= '' then last = math.min(last, tonumber(ARGV[1]) - 1) end
local oldest = math.max(1, head - size + 1)
if head == 0 or last < oldest then return { epoch, '0' } end
local now = redis.call('TIME')
local since = now[1] * 1000 + math.floor(now[2] / 1000) - ttl
local found, bytes, more = {}, 0, '0'
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[3], last, oldest, 'COUNT', limit + 1)) do
  local exclude, body, at = '', '', 0
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'x' then exclude = entry[2][i + 1]
    elseif entry[2][i] == 'b' then body = entry[2][i + 1]
    elseif entry[2][i] == 't' then at = tonumber(entry[2][i + 1]) end
  end
  if at <= since then break end
  bytes = bytes + #body
  if #found == limit or (bytes > max_bytes and #found > 0) then more = '1' break end
  found[#found + 1] = { string.match(entry[1], '^%d+'), exclude, body }
end
local answer = { epoch, more }
for i = #found, 1, -1 do
  for _, field in ipairs(found[i]) do answer[#answer + 1] = field end
end
return answer
`);
