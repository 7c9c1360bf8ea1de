import type { EventEnvelope } from '../core/broker.js';

/**
 * What travels on a bus: one event after the other, each with a header line `1 <seq> <id> <epoch> <bytes> <exclude>`, a
 * line feed, and the event's JSON text of so many bytes, without its closing brace. The 1 is the format's version; id 0
 * and epoch `-` are an event that is not numbered.
 */
export interface BusMessage {
  event: EventEnvelope;
  /** The partition's sequence number, 0 for what is not numbered. */
  seq: number;
}

const LINE_FEED = 0x0a;
const SPACE = 0x20;
const ZERO = 0x30;
const TILDE = 0x7e;
const VERSION = 1;
const MAX_DIGITS = 16;
const MAX_EPOCH_BYTES = 64;
/** Longer than the longest exclude: 128 code points of 4 bytes. */
const MAX_EXCLUDE_BYTES = 1_024;
const BODY_START = Buffer.from('{"event":"');

/** Reads what a bus brought in one piece; bodies are not parsed. */
export class BusReader {
  private at = 0;

  constructor(
    private readonly channel: string,
    private readonly bytes: Buffer,
  ) {}

  get isDone(): boolean {
    return this.at === this.bytes.length;
  }

  /** The next event; null where what follows was not written by a gateway. */
  next(): BusMessage | null {
    if (this.readNumber() !== VERSION) return null;
    const seq = this.readNumber();
    const id = this.readNumber();
    const epoch = this.readEpoch();
    const length = this.readNumber();
    const exclude = this.readExclude();
    if (seq < 0 || id < 0 || epoch === null || exclude === null || length < BODY_START.length) return null;
    const body = this.bytes.subarray(this.at, this.at + length);
    if (body.length < length || BODY_START.compare(body, 0, BODY_START.length) !== 0) return null;
    this.at += length;
    const position = id === 0 ? null : { epoch, id };
    return { event: { channel: this.channel, position, exclude, body }, seq };
  }

  /** Digits and the space after them; -1 for anything else. */
  private readNumber(): number {
    const start = this.at;
    let value = 0;
    for (let at = start; at <= start + MAX_DIGITS; at += 1) {
      const byte = this.bytes[at] ?? 0;
      if (byte === SPACE && at > start) {
        this.at = at + 1;
        return value;
      }
      const digit = byte - ZERO;
      if (digit < 0 || digit > 9) return -1;
      value = value * 10 + digit;
    }
    return -1;
  }

  private readEpoch(): string | null {
    const end = this.bytes.indexOf(SPACE, this.at);
    if (end <= this.at || end - this.at > MAX_EPOCH_BYTES) return null;
    for (let at = this.at; at < end; at += 1) {
      const byte = this.bytes[at] ?? 0;
      if (byte <= SPACE || byte > TILDE) return null;
    }
    const epoch = this.bytes.toString('latin1', this.at, end);
    this.at = end + 1;
    return epoch;
  }

  private readExclude(): string | null {
    const end = this.bytes.indexOf(LINE_FEED, this.at);
    if (end === -1 || end - this.at > MAX_EXCLUDE_BYTES) return null;
    const exclude = end === this.at ? '' : this.bytes.toString('utf8', this.at, end);
    this.at = end + 1;
    return exclude;
  }
}
