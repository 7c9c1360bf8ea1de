-- Publishes one durable event as the Fanfare gateway does: numbers it, stores it and announces it in one atomic step.
-- Any Redis client can run it; redis/README.md shows how.
--
-- KEYS: none, or in a Redis Cluster the one key `<prefix>:{<partition>}:life`.
-- ARGV: prefix, channel (`broadcast`, `room:<name>`, `user:<id>`), event (empty: `chat`), content (JSON text), from (empty:
-- none), message_id (empty: none); then, where they differ from the gateway's defaults, history size, history TTL in
-- seconds, idempotency TTL in seconds, and the publish command (`SPUBLISH` in a Redis Cluster).
-- Answers { id, epoch, duplicate (0 or 1) }, or an error that says what is wrong. `FENCED`: nothing was written, try again.

local PARTITIONS = 256
local MAX_NAME, MAX_EVENT, MAX_MESSAGE_ID, MAX_DEPTH = 128, 64, 64, 63
local META_TTL_MIN_MS, META_TTL_FACTOR = 30 * 24 * 3600 * 1000, 24
local RESERVED = {
  connected = true, user_connected = true, user_disconnected = true, text = true, user_joined = true,
  user_left = true, joined_room = true, left_room = true, presence = true, history = true, pong = true, ack = true,
  error = true, gap = true, reconnect = true,
}

local prefix, channel, event, content = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local from, message_id = ARGV[5] or '', ARGV[6] or ''

local function refuse(text)
  return redis.error_reply('ERR ' .. text)
end

local function is_between(byte, low, high)
  return byte ~= nil and byte >= (low or 0x80) and byte <= (high or 0xBF)
end

-- The code points and UTF-16 units of a text; nil where it is not well-formed UTF-8.
local function measure(text)
  local points, units, at = 0, 0, 1
  while at <= #text do
    local _, last = string.find(text, '^[%z\1-\127]+', at)
    if last then
      points, units, at = points + last - at + 1, units + last - at + 1, last + 1
    else
      local a, b, c, d = string.byte(text, at, at + 3)
      local bytes
      if is_between(a, 0xC2, 0xDF) and is_between(b) then
        bytes = 2
      elseif is_between(a, 0xE0, 0xEF) and is_between(b, a == 0xE0 and 0xA0, a == 0xED and 0x9F) and is_between(c) then
        bytes = 3
      elseif is_between(a, 0xF0, 0xF4) and is_between(b, a == 0xF0 and 0x90, a == 0xF4 and 0x8F) and is_between(c)
        and is_between(d) then
        bytes = 4
      else
        return nil
      end
      points, units, at = points + 1, units + (bytes == 4 and 2 or 1), at + bytes
    end
  end
  return points, units
end

local function is_user_id(text)
  local points = measure(text)
  return points ~= nil and points >= 1 and points <= MAX_NAME and not string.find(text, '[%z\1-\31\127]')
    and not string.find(text, '\194[\128-\159]')
end

-- What cjson lets pass though it is no JSON: control characters, `nan`, `inf`, hexadecimal and sloppy numbers.
local function is_strict(text)
  local is_good = true
  local rest = string.gsub(text, '\\.', '')
  rest = string.gsub(rest, '"([^"]*)"', function(inside)
    if string.find(inside, '[%z\1-\31]') then is_good = false end
    return ' '
  end)
  if not is_good or string.find(rest, '%z') then return false end
  for token in string.gmatch(rest, '[^%[%]{},:%s]+') do
    if token ~= 'true' and token ~= 'false' and token ~= 'null' then
      local after = string.match(token, '^%-?0()') or string.match(token, '^%-?[1-9]%d*()')
      if not after then return false end
      after = string.match(token, '^%.%d+()', after) or after
      after = string.match(token, '^[eE][+-]?%d+()', after) or after
      if after <= #token then return false end
    end
  end
  local depth, deepest = 0, 0
  for bracket in string.gmatch(rest, '[%[%]{}]') do
    depth = depth + ((bracket == '[' or bracket == '{') and 1 or -1)
    deepest = math.max(deepest, depth)
  end
  return deepest <= MAX_DEPTH
end

-- A string as JSON.stringify writes it.
local ESCAPES = { ['"'] = '\\"', ['\\'] = '\\\\', ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t' }
local function quote(text)
  return '"' .. string.gsub(text, '[%z\1-\31"\\]', function(character)
    return ESCAPES[character] or string.format('\\u%04x', string.byte(character))
  end) .. '"'
end

-- CRC16/XMODEM, the one Redis Cluster uses.
local function crc16(text)
  local crc = 0
  for at = 1, #text do
    crc = bit.bxor(crc, bit.lshift(string.byte(text, at), 8))
    for _ = 1, 8 do
      local carry = bit.band(crc, 0x8000) ~= 0
      crc = bit.band(bit.lshift(crc, 1), 0xFFFF)
      if carry then crc = bit.bxor(crc, 0x1021) end
    end
  end
  return crc
end

local DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
local function base64url(hex)
  local characters = {}
  for at = 1, #hex, 6 do
    local group = string.sub(hex, at, at + 5)
    local value = tonumber(group .. string.rep('0', 6 - #group), 16)
    for place = 1, #group / 2 + 1 do
      local digit = math.floor(value / 64 ^ (4 - place)) % 64
      characters[#characters + 1] = string.sub(DIGITS, digit + 1, digit + 1)
    end
  end
  return table.concat(characters)
end

local function setting(index, default)
  local text = ARGV[index] or ''
  if text == '' then return default end
  local value = string.match(text, '^%d+$') and tonumber(text)
  return value and value > 0 and value <= 31536000 and value or nil
end

if #ARGV < 4 then return refuse('needs at least prefix, channel, event and content') end
if #prefix > 64 or not string.find(prefix, '^[A-Za-z0-9._-]+$') then
  return refuse('prefix: must be 1 to 64 of A-Z a-z 0-9 . _ -')
end
local room, user = string.match(channel, '^room:(.*)$'), string.match(channel, '^user:(.*)$')
if room then
  if #room > MAX_NAME or not string.find(room, '^[A-Za-z0-9._:@/-]+$') then
    return refuse('channel: a room name is 1 to 128 of A-Z a-z 0-9 . _ : @ / -')
  end
elseif user then
  if not is_user_id(user) then
    return refuse('channel: a user id is 1 to 128 characters in UTF-8, none of them a control character')
  end
elseif channel ~= 'broadcast' then
  return refuse('channel: must be broadcast, room:<name> or user:<id>')
end
if event == '' then event = 'chat' end
if #event > MAX_EVENT or not string.find(event, '^[A-Za-z0-9._:-]+$') or RESERVED[event] then
  return refuse('event: must be 1 to 64 of A-Z a-z 0-9 . _ : - and not a name the gateway uses')
end
if not pcall(cjson.decode, content) or not measure(content) or not is_strict(content) then
  return refuse('content: must be one JSON value in UTF-8, at most 63 levels deep')
end
if from ~= '' and not is_user_id(from) then
  return refuse('from: must be 1 to 128 characters in UTF-8, none of them a control character')
end
local _, units = measure(message_id)
if not units or units > MAX_MESSAGE_ID then return refuse('message_id: must be at most 64 characters in UTF-8') end
local size, history_ttl, idempotency_ttl = setting(7, 1000), setting(8, 3600), setting(9, 300)
if not size or not history_ttl or not idempotency_ttl then
  return refuse('history size, history TTL and idempotency TTL: must be whole numbers from 1')
end
local announce = string.upper(ARGV[10] or '')
if announce == '' then announce = 'PUBLISH' end
if announce ~= 'PUBLISH' and announce ~= 'SPUBLISH' then
  return refuse('publish command: must be PUBLISH or SPUBLISH')
end

local tag = prefix .. ':{' .. crc16(channel) % PARTITIONS .. '}'
local life_key = tag .. ':life'
if #KEYS > 1 or (KEYS[1] and KEYS[1] ~= life_key) then return refuse('key: the key of this channel is ' .. life_key) end
local base = tag .. ':' .. (user and ('user:' .. string.gsub(user, '[^A-Za-z0-9._@-]', function(byte)
  return string.format('%%%02X', string.byte(byte))
end)) or channel)
local meta_key, log_key = base .. ':meta', base .. ':log'
-- The scope is the one of the HTTP API: an event published there and here is one.
local idempotency_key = message_id ~= ''
  and base .. ':idem:' .. base64url(redis.sha1hex('[' .. quote('api ' .. from) .. ',' .. quote(message_id) .. ']'))

if idempotency_key then
  local first = redis.call('GET', idempotency_key)
  if first then
    local id, epoch = string.match(first, '^(%d+) (%S+)$')
    return { tonumber(id), epoch, 1 }
  end
end

-- Only the primary that the gateways have settled on may number: after a restart or a failover they do so first.
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local life, fence, seq = string.match(redis.call('GET', life_key) or '', '^(%S+) (%S+) (%d+)$')
if not life or fence ~= replid then
  return redis.error_reply('FENCED the gateways have not settled the numbering yet: nothing was written, try again')
end
seq = tonumber(seq) + 1
local id, epoch = string.match(redis.call('GET', meta_key) or '', '^(%d+) (%S+)$')
if not id or string.sub(epoch, 1, #life + 1) ~= life .. '.' then id = '0' end
id = tonumber(id)
if id == 0 then
  epoch = life .. '.' .. seq
  redis.call('DEL', log_key)
end
id = id + 1

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local body = '{"event":' .. quote(event)
if from ~= '' then body = body .. ',"from":' .. quote(from) end
if room then body = body .. ',"room":' .. quote(room) end
if user then body = body .. ',"direct":true' end
body = body .. ',"content":' .. content .. ',"ts":' .. now
if message_id ~= '' then body = body .. ',"message_id":' .. quote(message_id) end

local added = redis.pcall('XADD', log_key, 'MAXLEN', '~', size, id .. '-0', 'x', '', 'b', body, 't', now)
if type(added) == 'table' and added.err then return redis.error_reply(added.err) end
redis.call('PEXPIRE', log_key, history_ttl * 1000)
redis.call('SET', meta_key, id .. ' ' .. epoch, 'PX', math.max(META_TTL_MIN_MS, META_TTL_FACTOR * history_ttl * 1000))
redis.call('SET', life_key, life .. ' ' .. replid .. ' ' .. seq)
redis.call(announce, base .. ':bus', '1 ' .. seq .. ' ' .. id .. ' ' .. epoch .. ' ' .. #body .. ' \n' .. body)
if idempotency_key then redis.call('SET', idempotency_key, id .. ' ' .. epoch, 'PX', idempotency_ttl * 1000) end
return { id, epoch, 0 }
