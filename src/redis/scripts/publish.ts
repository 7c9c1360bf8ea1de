import { LIFE_FUNCTIONS, Script } from './script.js';

/**
 * Numbers, stores and announces a batch of publications, each in one atomic step.
 *
 * KEYS, four for each publication: life, meta, log, idempotency (the meta key again where there is none).
 * ARGV: the publish command, history size, log TTL in ms, meta TTL in ms, idempotency TTL in ms; then for each
 * publication its bus, kind (`d` durable, `k` durable with idempotency, `e` ephemeral), exclude and body.
 * Answers for each `<id> <epoch> <duplicate 0|1> <seq>`, `FENCED` (nothing was written) or `ERROR <text>`.
 */
export const publishScript = new Script(`${LIFE_FUNCTIONS}
local announce, size, log_ttl, meta_ttl, idem_ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local lives = {}
local answers = {}

local function publish(k, a)
  local bus, kind, exclude, body = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  if kind == 'e' then
    redis.call(announce, bus, '1 0 0 - ' .. exclude .. '\\n' .. body)
    return '0 - 0 0'
  end
  if kind == 'k' then
    local first = redis.call('GET', KEYS[k + 3])
    if first then return first .. ' 1 0' end
  end
  local life = lives[KEYS[k]]
  if not life then
    local name, fence, seq = read_life(KEYS[k])
    if fence ~= replid then return 'FENCED' end
    life = { name = name, seq = seq }
    lives[KEYS[k]] = life
  end
  local seq = life.seq + 1
  local id, epoch = read_meta(KEYS[k + 1], life.name)
  if not id then return 'ERROR ' .. epoch end
  if id == 0 then
    epoch = life.name .. '.' .. seq
    redis.call('DEL', KEYS[k + 2])
  end
  id = id + 1
  local added = redis.pcall('XADD', KEYS[k + 2], 'MAXLEN', '~', size, id .. '-0', 'x', exclude, 'b', body, 't', now)
  if type(added) == 'table' and added.err then return 'ERROR ' .. added.err end
  redis.call('PEXPIRE', KEYS[k + 2], log_ttl)
  redis.call('SET', KEYS[k + 1], id .. ' ' .. epoch, 'PX', meta_ttl)
  life.seq = seq
  redis.call('SET', KEYS[k], life.name .. ' ' .. replid .. ' ' .. seq)
  redis.call(announce, bus, '1 ' .. seq .. ' ' .. id .. ' ' .. epoch .. ' ' .. exclude .. '\\n' .. body)
  if kind == 'k' then redis.call('SET', KEYS[k + 3], id .. ' ' .. epoch, 'PX', idem_ttl) end
  return id .. ' ' .. epoch .. ' 0 ' .. seq
end

for i = 0, #KEYS / 4 - 1 do
  answers[i + 1] = publish(i * 4 + 1, i * 4 + 6)
end
return answers
`);
