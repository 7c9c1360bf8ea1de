import { createHash } from 'node:crypto';

/** A Lua script and the name Redis knows it by; loaded on every new connection, called by `EVALSHA` only. */
export class Script {
  readonly sha: string;

  constructor(readonly source: string) {
    this.sha = createHash('sha1').update(source).digest('hex');
  }
}

/** Readers of what the numbering is kept in; they write nothing. */
export const READ_FUNCTIONS = `
local function read_life(key)
  local value = redis.call('GET', key)
  if not value then return nil end
  local life, fence, seq = string.match(value, '^(%S+) (%S+) (%d+)$')
  if not life then return nil end
  return life, fence, tonumber(seq)
end
-- The id and epoch of a channel; id 0 and birth 0 where it was never written in this life.
-- nil and the reason where something else lies under the key.
local function read_meta(key, life)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' and value.err then return nil, value.err end
  if value then
    local id, epoch = string.match(value, '^(%d+) (%S+)$')
    if id and string.sub(epoch, 1, #life + 1) == life .. '.' then return tonumber(id), epoch end
  end
  return 0, life .. '.0'
end
`;

/**
 * Reads `<life> <fence> <seq>` of a partition and says whether the fence is the replication id of the primary that
 * runs the script: only then are the numbers below it the ones that were given out. The script asks itself, since a
 * connection can outlive the promotion of the server it leads to.
 */
export const LIFE_FUNCTIONS = `
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
${READ_FUNCTIONS}`;
