import { READ_FUNCTIONS, Script } from './script.js';

/**
 * Numbers, stores and announces a batch of publications in one atomic step. What several of them have in common is
 * read and written once: the life of a partition, the numbering of a channel, and its bus, which carries them together.
 *
 * KEYS: the start of the keys of its channel, for each publication; all of one slot in a cluster.
 * ARGV: the publish command, history size, log TTL in ms, meta TTL in ms, idempotency TTL in ms; then for each
 * publication its kind (`e` ephemeral, `d` durable, `k<digest>` durable with an idempotency key), exclude and body.
 * Answers for each `<id> <epoch> <duplicate 0|1> <seq>`, `FENCED` (nothing was written) or `ERROR <text>`.
 */
export const publishScript = new Script(`${READ_FUNCTIONS}
local call = redis.call
local announce, size, log_ttl, meta_ttl, idem_ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local replid, now
local lives, channels, answers = {}, {}, {}

-- The script asks for the fence itself: a connection can outlive the promotion of the server it leads to.
local function life_of(tag)
  if lives[tag] then return lives[tag] end
  if not replid then
    replid = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  local name, fence, seq = read_life(tag .. ':life')
  lives[tag] = { tag = tag, name = name, fenced = fence ~= replid, seq = seq }
  return lives[tag]
end

local function read_numbering(channel)
  local life = life_of(string.match(channel.base, '^[^}]+}'))
  channel.life = life
  if not life.fenced then channel.id, channel.epoch = read_meta(channel.base .. ':meta', life.name) end
end

local function collect(channel, seq, id, epoch, exclude, body)
  local records = channel.records
  records[#records + 1] = '1 ' .. seq .. ' ' .. id .. ' ' .. epoch .. ' ' .. #body .. ' ' .. exclude .. '\\n' .. body
end

local function publish(base, kind, exclude, body)
  local channel = channels[base]
  if not channel then
    channel = { base = base, records = {} }
    channels[base] = channel
    channels[#channels + 1] = channel
  end
  if kind == 'e' then
    collect(channel, 0, 0, '-', exclude, body)
    return '0 - 0 0'
  end
  local idempotency = kind ~= 'd' and base .. ':idem:' .. string.sub(kind, 2)
  if idempotency then
    local first = call('GET', idempotency)
    if first then return first .. ' 1 0' end
  end
  if not channel.life then read_numbering(channel) end
  local life = channel.life
  if life.fenced then return 'FENCED' end
  -- Where there is no id, the reason stands in the place of the epoch.
  if not channel.id then return 'ERROR ' .. channel.epoch end
  local seq, id = life.seq + 1, channel.id + 1
  if id == 1 then
    channel.epoch = life.name .. '.' .. seq
    call('DEL', base .. ':log')
  end
  local added = redis.pcall('XADD', base .. ':log', 'MAXLEN', '~', size, id .. '-0', 'x', exclude, 'b', body, 't', now)
  if type(added) == 'table' and added.err then return 'ERROR ' .. added.err end
  life.seq, life.written = seq, true
  channel.id, channel.written = id, true
  collect(channel, seq, id, channel.epoch, exclude, body)
  local answer = id .. ' ' .. channel.epoch
  if idempotency then call('SET', idempotency, answer, 'PX', idem_ttl) end
  return answer .. ' 0 ' .. seq
end

for i = 1, #KEYS do
  local a = 3 * i + 3
  answers[i] = publish(KEYS[i], ARGV[a], ARGV[a + 1], ARGV[a + 2])
end
for _, life in pairs(lives) do
  if life.written then call('SET', life.tag .. ':life', life.name .. ' ' .. replid .. ' ' .. life.seq) end
end
for _, channel in ipairs(channels) do
  if channel.written then
    call('PEXPIRE', channel.base .. ':log', log_ttl)
    call('SET', channel.base .. ':meta', channel.id .. ' ' .. channel.epoch, 'PX', meta_ttl)
  end
  if #channel.records > 0 then call(announce, channel.base .. ':bus', table.concat(channel.records)) end
end
return answers
`);
