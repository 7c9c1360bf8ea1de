import { number, text, type Client, type Message } from './client.js';

/** What a publish carries as its `content`: who sent it, and which of its messages in that channel it is. */
export interface Mark {
  readonly publisher: string;
  readonly counter: number;
}

interface Read extends Mark {
  readonly id: number;
  readonly epoch: string;
}

interface Attempt extends Mark {
  readonly channel: string;
  acknowledged: boolean;
}

export interface Verdict {
  /** Acknowledged, but not read by somebody who claims continuity. */
  readonly lost: string[];
  /** Read twice by the same reader. */
  readonly doubled: string[];
  /** Out of the order of the ids or of their publisher, or in another order than another reader's. */
  readonly misordered: string[];
  /** Read, but never sent. */
  readonly ghosts: string[];
  /** Read on a channel without the right to it. */
  readonly leaks: string[];
}

interface Reader {
  readonly name: string;
  readonly channel: string;
  readonly reads: Read[];
  /** The publisher whose messages this reader does not get: its own, in broadcast. */
  readonly except: string | undefined;
  readonly isEntitled: boolean;
  epoch: string;
  /** False from the moment it was told of a gap. */
  claimsContinuity: boolean;
}

/** The history of a run: what was sent, acknowledged and read, and what is wrong with it. */
export class Checker {
  #attempts = new Map<string, Attempt>();
  #readers: Reader[] = [];
  #counters = new Map<string, number>();

  /** The next content for this publisher and channel; from now on it counts as sent. */
  attempt(publisher: string, channel: string): Mark {
    const series = `${publisher} ${channel}`;
    const counter = (this.#counters.get(series) ?? 0) + 1;
    this.#counters.set(series, counter);
    this.#attempts.set(key(channel, { publisher, counter }), {
      publisher,
      counter,
      channel,
      acknowledged: false,
    });
    return { publisher, counter };
  }

  acknowledged(channel: string, mark: Mark): void {
    const attempt = this.#attempts.get(key(channel, mark));
    if (attempt === undefined) throw new Error(`${key(channel, mark)} was never sent`);
    attempt.acknowledged = true;
  }

  /**
   * Follows what `client` reads of `channel` (`broadcast`, `room:x` or `user:y`) from now on. A reader that
   * is not entitled must read nothing.
   */
  follow(
    client: Client,
    channel: string,
    { except, epoch = '', isEntitled = true }: { except?: string; epoch?: string; isEntitled?: boolean } = {},
  ): void {
    const reader = this.reader(client.userId, channel, { except, epoch, isEntitled });
    client.watch((message) => {
      if (message.event === 'gap' && channelOf(message, client.userId) === channel) {
        reader.claimsContinuity = false;
        reader.epoch = text(message, 'epoch');
      } else if (message.event === 'chat' && channelOf(message, client.userId) === channel) {
        reader.reads.push({ ...markOf(message), id: number(message, 'id'), epoch: reader.epoch });
      }
    });
  }

  /** A reader whose log is written by hand. */
  reader(
    name: string,
    channel: string,
    {
      except,
      epoch = '',
      isEntitled = true,
    }: { except?: string | undefined; epoch?: string; isEntitled?: boolean } = {},
  ): Reader {
    const reader: Reader = { name, channel, reads: [], except, epoch, isEntitled, claimsContinuity: true };
    this.#readers.push(reader);
    return reader;
  }

  /** How many messages all readers together have read. */
  get deliveries(): number {
    return this.#readers.reduce((sum, reader) => sum + reader.reads.length, 0);
  }

  verdict(): Verdict {
    const verdict: Verdict = { lost: [], doubled: [], misordered: [], ghosts: [], leaks: [] };
    for (const reader of this.#readers) this.#judge(reader, verdict);
    this.#compare(verdict.misordered);
    return verdict;
  }

  #judge(reader: Reader, verdict: Verdict): void {
    const where = `${reader.name} on ${reader.channel}`;
    if (!reader.isEntitled) {
      verdict.leaks.push(...reader.reads.map((read) => `${where} read ${key(reader.channel, read)}`));
      return;
    }
    const seen = new Set<string>();
    const ids = new Set<string>();
    const lastCounter = new Map<string, number>();
    let last: Read | undefined;
    for (const read of reader.reads) {
      const name = key(reader.channel, read);
      if (!this.#attempts.has(name)) verdict.ghosts.push(`${where} read ${name}, which nobody sent`);
      if (seen.has(name) || ids.has(`${read.epoch} ${read.id}`)) {
        verdict.doubled.push(`${where} read ${name} as ${read.id} twice`);
      }
      seen.add(name);
      ids.add(`${read.epoch} ${read.id}`);
      if (last !== undefined && last.epoch === read.epoch && read.id < last.id) {
        verdict.misordered.push(`${where} read ${read.id} after ${last.id}`);
      }
      const before = lastCounter.get(read.publisher) ?? 0;
      if (read.counter < before) {
        verdict.misordered.push(`${where} read ${name} after number ${before} of that publisher`);
      }
      lastCounter.set(read.publisher, Math.max(before, read.counter));
      last = read;
    }
    if (!reader.claimsContinuity) return;
    for (const [name, attempt] of this.#attempts) {
      const isOurs = attempt.channel === reader.channel && attempt.publisher !== reader.except;
      if (isOurs && attempt.acknowledged && !seen.has(name)) verdict.lost.push(`${where} never read ${name}`);
    }
  }

  /** Every reader of a channel sees the same event under the same id. */
  #compare(misordered: string[]): void {
    const events = new Map<string, string>();
    for (const reader of this.#readers) {
      for (const read of reader.reads) {
        const position = `${reader.channel} ${read.epoch} ${read.id}`;
        const name = key(reader.channel, read);
        const other = events.get(position) ?? name;
        events.set(position, other);
        if (other !== name) misordered.push(`${reader.name} read ${name} as ${read.id}, others ${other}`);
      }
    }
  }
}

function key(channel: string, { publisher, counter }: Mark): string {
  return `${channel}/${publisher}#${counter}`;
}

function channelOf(message: Message, userId: string): string {
  if (typeof message['room'] === 'string') return `room:${message['room']}`;
  return message['direct'] === true ? `user:${userId}` : 'broadcast';
}

function markOf(message: Message): Mark {
  const content = message['content'];
  if (typeof content === 'object' && content !== null && 'publisher' in content && 'counter' in content) {
    const { publisher, counter } = content;
    if (typeof publisher === 'string' && typeof counter === 'number') return { publisher, counter };
  }
  throw new Error(`${JSON.stringify(message)} carries no publisher and counter`);
}
