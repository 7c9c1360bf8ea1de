import type { EventEnvelope } from '../core/broker.js';

/**
 * What travels on a bus: one header line `1 <seq> <id> <epoch> <exclude>`, a line feed, and the event's JSON text
 * without its closing brace. The 1 is the format's version; id 0 and epoch `-` are an event that is not numbered.
 */
export interface BusMessage {
  event: EventEnvelope;
  /** The partition's sequence number, 0 for what is not numbered. */
  seq: number;
}

const LINE_FEED = 0x0a;
const HEADER = /^1 (\d{1,16}) (\d{1,16}) (\S{1,64})(?: (.*))?$/su;
/** Longer than the longest header: an exclude of 128 code points of 4 bytes. */
const MAX_HEADER_BYTES = 1_024;
const BODY_START = Buffer.from('{"event":"');

/** Reads a bus message; null for what the gateway did not write. The body is not parsed. */
export function readBusMessage(channel: string, message: Buffer): BusMessage | null {
  const end = message.indexOf(LINE_FEED);
  if (end === -1 || end > MAX_HEADER_BYTES) return null;
  const match = HEADER.exec(message.toString('utf8', 0, end));
  if (match === null) return null;
  const body = message.subarray(end + 1);
  if (body.length < BODY_START.length || BODY_START.compare(body, 0, BODY_START.length) !== 0) return null;
  const [, seq = '', id = '', epoch = '', exclude = ''] = match;
  const position = id === '0' ? null : { epoch, id: Number(id) };
  return { event: { channel, position, exclude, body }, seq: Number(seq) };
}
