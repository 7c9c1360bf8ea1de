import { Script } from './script.js';

/**
 * Presence of a partition. For a scope (`cluster` or `room:x`) with the base key `<tag>:presence:<scope>`:
 * `:members` (sorted set, all scores 0: users in the order of their ids), `:holds` (hash: user to number of leases that
 * hold it), `:live` (hash: user to open connections), `:connections` (their sum, of a room), `:names`. For the partition: `<tag>:presence:counts` (hash:
 * connections, users) and `<tag>:rooms` (sorted set, all scores 0: rooms with an open connection). A lease's entries:
 * `<tag>:entries:<lease>` (hash: `<scope> <user>` to open connections).
 */
const PRESENCE_FUNCTIONS = `
local function add(key, field, by)
  if by ~= 0 and redis.call('HINCRBY', key, field, by) == 0 then redis.call('HDEL', key, field) end
end

local function notify(tag, scope, user, present, announce)
  local body, bus
  if scope == 'cluster' then
    body = '{"event":"user_' .. (present and 'connected' or 'disconnected') .. '","user_id":' .. cjson.encode(user)
    bus = tag .. ':notices'
  else
    body = '{"event":"user_' .. (present and 'joined' or 'left') .. '","user_id":' .. cjson.encode(user)
      .. ',"room":' .. cjson.encode(string.sub(scope, 6))
    bus = tag .. ':' .. scope .. ':bus'
  end
  local exclude = scope == 'cluster' and ('user:' .. user) or ''
  redis.call(announce, bus, '1 0 0 - ' .. #body .. ' ' .. exclude .. '\\n' .. body)
end

-- Counts that follow the number of open connections of a user in a scope.
local function live(tag, scope, user, by)
  if by == 0 then return end
  local key = tag .. ':presence:' .. scope .. ':live'
  local now = redis.call('HINCRBY', key, user, by)
  if now == 0 then redis.call('HDEL', key, user) end
  if scope == 'cluster' then
    local counts = tag .. ':presence:counts'
    add(counts, 'connections', by)
    if now == 0 then add(counts, 'users', -1) elseif now == by then add(counts, 'users', 1) end
  elseif now == 0 and redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', tag .. ':rooms', string.sub(scope, 6))
  elseif now == by then
    redis.call('ZADD', tag .. ':rooms', 0, string.sub(scope, 6))
  end
  if scope ~= 'cluster' then
    local total = tag .. ':presence:' .. scope .. ':connections'
    if redis.call('INCRBY', total, by) == 0 then redis.call('DEL', total) end
  end
end

-- Keeps a change for the backend, in the step that makes it.
local function record(webhooks, type, name)
  if webhooks ~= '' then redis.call('XADD', webhooks, 'MAXLEN', '~', 100000, '*', 'type', type, 'name', name) end
end

local function enter(entries, tag, scope, user, name, connections, announce, max, webhooks)
  local field = scope .. ' ' .. user
  local old = redis.call('HGET', entries, field)
  redis.call('HSET', entries, field, connections)
  live(tag, scope, user, connections - tonumber(old or 0))
  local base = tag .. ':presence:' .. scope
  if name ~= '' then redis.call('HSET', base .. ':names', user, name) end
  if old or redis.call('HINCRBY', base .. ':holds', user, 1) ~= 1 then return end
  redis.call('ZADD', base .. ':members', 0, user)
  if scope == 'cluster' then record(webhooks, 'user.connected', user)
  elseif redis.call('ZCARD', base .. ':members') == 1 then record(webhooks, 'room.occupied', string.sub(scope, 6)) end
  if announce ~= '' and (scope == 'cluster' or redis.call('ZCARD', base .. ':members') <= max) then
    notify(tag, scope, user, true, announce)
  end
end

local function leave(entries, tag, scope, user, announce, max, webhooks)
  local field = scope .. ' ' .. user
  local old = redis.call('HGET', entries, field)
  if not old then return end
  redis.call('HDEL', entries, field)
  live(tag, scope, user, -tonumber(old))
  local base = tag .. ':presence:' .. scope
  if redis.call('HINCRBY', base .. ':holds', user, -1) > 0 then return end
  redis.call('HDEL', base .. ':holds', user)
  redis.call('HDEL', base .. ':names', user)
  local members = redis.call('ZCARD', base .. ':members')
  redis.call('ZREM', base .. ':members', user)
  if scope == 'cluster' then record(webhooks, 'user.disconnected', user)
  elseif members == 1 then record(webhooks, 'room.vacated', string.sub(scope, 6)) end
  if announce ~= '' and (scope == 'cluster' or members <= max) then notify(tag, scope, user, false, announce) end
end
`;

/**
 * Writes entries of a lease, in order. KEYS: for each the entries of the lease in its partition; all of one slot in a
 * cluster. ARGV: the publish command, members up to which a room is told, the webhook stream (empty: none), and a JSON
 * array with five values for each: scope, user, name (empty: none), open connections (-1: gone), and 1 where others are
 * told, else 0. One argument, because each costs more than what is in it.
 */
export const presenceWriteScript = new Script(`${PRESENCE_FUNCTIONS}
local announce, max, webhooks = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local rows = cjson.decode(ARGV[4])
for i = 1, #KEYS do
  local a = 5 * i - 4
  local scope, user, name, connections = rows[a], rows[a + 1], rows[a + 2], rows[a + 3]
  local tag = string.match(KEYS[i], '^[^}]+}')
  local told = rows[a + 4] == 1 and announce or ''
  if connections < 0 then
    leave(KEYS[i], tag, scope, user, told, max, webhooks)
  else
    enter(KEYS[i], tag, scope, user, name, connections, told, max, webhooks)
  end
end
return #KEYS
`);

/**
 * Takes out up to 200 entries of a dead lease. KEYS: its entries. ARGV: tag, the publish command for users, the one for
 * rooms, members up to which a room is told, the webhook stream. Answers how many were taken; run it until that is 0.
 */
export const presenceReapScript = new Script(`${PRESENCE_FUNCTIONS}
local taken = 0
for _, field in ipairs(redis.call('HRANDFIELD', KEYS[1], 200)) do
  local scope, user = string.match(field, '^(%S+) (.*)$')
  leave(KEYS[1], ARGV[1], scope, user, scope == 'cluster' and ARGV[2] or ARGV[3], tonumber(ARGV[4]), ARGV[5])
  taken = taken + 1
end
return taken
`);

/**
 * One page of a room. KEYS: the base key of the scope. ARGV: the user to go on after (empty: from the start), the most
 * members. Answers the count, then user, open connections and name (empty: none) of each.
 */
export const presencePageScript = new Script(`
local base = KEYS[1]
local answer = { redis.call('ZCARD', base .. ':members') }
local from = ARGV[1] == '' and '-' or ('(' .. ARGV[1])
for _, user in ipairs(redis.call('ZRANGEBYLEX', base .. ':members', from, '+', 'LIMIT', 0, ARGV[2])) do
  answer[#answer + 1] = user
  answer[#answer + 1] = redis.call('HGET', base .. ':live', user) or '0'
  answer[#answer + 1] = redis.call('HGET', base .. ':names', user) or ''
end
return answer
`);
