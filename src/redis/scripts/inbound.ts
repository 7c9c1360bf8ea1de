import { Script } from './script.js';

/**
 * Appends to the inbound stream unless it is full; it is never trimmed. KEYS: the stream. ARGV: the most entries, then
 * field and value in turn. Answers the number of entries, or -1 where nothing was appended.
 */
export const inboundScript = new Script(`
local length = redis.call('XLEN', KEYS[1])
if length >= tonumber(ARGV[1]) then return -1 end
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
return length + 1
`);
