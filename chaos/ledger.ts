/**
 * The history of a run. It asks more than test/support/checker.ts does: after a `gap` a reader still has to read
 * everything on both sides of it, so a loss beside a told gap is found too, and an event that one reader got has to
 * reach all of them. Numbers instead of objects, since a run has a million deliveries.
 */
export interface Content {
  readonly publisher: string;
  readonly counter: number;
  /** The index of the attempt. */
  readonly n: number;
  readonly pad: string;
}

export interface Attempt {
  readonly channel: string;
  readonly publisher: string;
  readonly counter: number;
  readonly startedMs: number;
  tries: number;
  /** The id of its ack; 0 until then. */
  id: number;
  acknowledgedMs: number;
  reads: number;
}

/** Where a reader claims to have read all: the ids above `from` up to `to` of one life. */
interface Span {
  readonly life: string;
  readonly from: number;
  to: number;
}

interface Gap {
  readonly oldLife: string;
  readonly newLife: string;
  readonly after: number;
  readonly next: number;
}

export interface Judgement {
  published: number;
  acknowledged: number;
  deliveries: number;
  lost: string[];
  doubled: string[];
  misordered: string[];
  ghosts: string[];
  gaps: number;
}

export class Reader {
  readonly lives: string[] = [];
  /** Triples: index into `lives`, id, attempt. */
  readonly reads: number[] = [];
  readonly spans: Span[] = [];
  readonly gaps: Gap[] = [];
  life = '';
  lastId = 0;
  /** Went for good: claims nothing beyond what it has read. */
  hasEnded = false;

  constructor(
    readonly name: string,
    readonly channel: string,
  ) {}

  get count(): number {
    return this.reads.length / 3;
  }

  /** The reader claims to read everything after `id`. */
  begin(epoch: string, id: number): void {
    this.#enter(lifeOf(epoch), id);
  }

  gap(after: number, next: number, epoch: string): void {
    const span = this.spans.at(-1);
    this.gaps.push({ oldLife: this.life, newLife: lifeOf(epoch), after, next });
    if (span !== undefined) span.to = Math.min(span.to, Math.max(after, this.lastId));
    this.#enter(lifeOf(epoch), next - 1);
  }

  read(id: number, attempt: number): void {
    this.reads.push(this.lives.length - 1, id, attempt);
    this.lastId = id;
  }

  end(): void {
    this.hasEnded = true;
    const span = this.spans.at(-1);
    if (span !== undefined) span.to = this.lastId;
  }

  #enter(life: string, from: number): void {
    this.life = life;
    this.lastId = from;
    this.lives.push(life);
    this.spans.push({ life, from, to: Infinity });
  }
}

export class Ledger {
  readonly attempts: Attempt[] = [];
  readonly readers: Reader[] = [];
  /** Failures that no figure shows: a hole without a word, a frame that is no event of ours. */
  readonly dishonest: string[] = [];
  acknowledged = 0;
  /** The longest time between a publish and its answer, whatever the answer. */
  slowestAnswerMs = 0;
  errors = new Map<string, number>();
  #counters = new Map<string, number>();

  attempt(publisher: string, channel: string, bytes: number): { attempt: Attempt; content: Content } {
    const series = `${publisher} ${channel}`;
    const counter = (this.#counters.get(series) ?? 0) + 1;
    this.#counters.set(series, counter);
    const attempt: Attempt = {
      channel,
      publisher,
      counter,
      startedMs: performance.now(),
      tries: 0,
      id: 0,
      acknowledgedMs: 0,
      reads: 0,
    };
    const n = this.attempts.push(attempt) - 1;
    return { attempt, content: { publisher, counter, n, pad: 'x'.repeat(Math.max(0, bytes - 130)) } };
  }

  acknowledge(attempt: Attempt, id: number): void {
    if (attempt.id !== 0) return;
    attempt.id = id;
    attempt.acknowledgedMs = performance.now();
    this.acknowledged += 1;
  }

  failed(code: string): void {
    this.errors.set(code, (this.errors.get(code) ?? 0) + 1);
  }

  reader(name: string, channel: string): Reader {
    const reader = new Reader(name, channel);
    this.readers.push(reader);
    return reader;
  }

  get deliveries(): number {
    return this.readers.reduce((sum, reader) => sum + reader.count, 0);
  }

  get gaps(): number {
    return this.readers.reduce((sum, reader) => sum + reader.gaps.length, 0);
  }

  /** Marks answered by an ack at the n-th try or later, and those never acknowledged. */
  triedMoreThan(tries: number): number {
    return this.attempts.filter((attempt) => attempt.tries > tries || attempt.id === 0).length;
  }

  /** Acknowledged events that some reader of their channel never got, told or not. */
  acknowledgedUnread(): number {
    const readers = new Map<string, Reader[]>();
    for (const reader of this.readers) {
      const list = readers.get(reader.channel);
      if (list === undefined) readers.set(reader.channel, [reader]);
      else list.push(reader);
    }
    const read = new Map(
      this.readers.map((reader) => [
        reader,
        new Set(reader.reads.filter((_value, index) => index % 3 === 2)),
      ]),
    );
    let unread = 0;
    for (const [n, attempt] of this.attempts.entries()) {
      if (attempt.id === 0) continue;
      const isMissed = (readers.get(attempt.channel) ?? []).some(
        (reader) => reader.name !== attempt.publisher && read.get(reader)?.has(n) !== true,
      );
      if (isMissed) unread += 1;
    }
    return unread;
  }

  /** Readers without any gap on channels in which something was acknowledged between two times. */
  untold(fromMs: number, toMs: number): string[] {
    const channels = new Set(
      this.attempts
        .filter(({ acknowledgedMs }) => acknowledgedMs > fromMs && acknowledgedMs < toMs)
        .map(({ channel }) => channel),
    );
    return this.readers
      .filter(({ channel, gaps }) => channels.has(channel) && gaps.length === 0)
      .map(({ name, channel }) => `${name} on ${channel}`);
  }

  /** Readers that have not read the last acknowledged event of their channel yet. */
  behind(): number {
    const heads = new Map<string, { n: number; id: number; life: string }>();
    for (const reader of this.readers) {
      for (let row = Math.max(0, reader.reads.length - 3); row < reader.reads.length; row += 3) {
        const life = reader.lives[reader.reads[row] ?? 0] ?? '';
        const id = reader.reads[row + 1] ?? 0;
        const head = heads.get(reader.channel);
        if (head === undefined || life > head.life || (life === head.life && id > head.id))
          heads.set(reader.channel, { n: reader.reads[row + 2] ?? -1, id, life });
      }
    }
    let behind = 0;
    for (const reader of this.readers) {
      const head = heads.get(reader.channel);
      if (head === undefined || reader.hasEnded) continue;
      const isOwn = reader.channel === 'broadcast' && this.attempts[head.n]?.publisher === reader.name;
      if (!isOwn && (reader.life < head.life || (reader.life === head.life && reader.lastId < head.id)))
        behind += 1;
    }
    return behind;
  }

  judge(): Judgement {
    const judgement: Judgement = {
      published: this.attempts.length,
      acknowledged: this.acknowledged,
      deliveries: this.deliveries,
      lost: [...this.dishonest],
      doubled: [],
      misordered: [],
      ghosts: [],
      gaps: this.gaps,
    };
    /** By channel and life, the attempt behind each id. */
    const events = new Map<string, Map<number, number>>();
    for (const reader of this.readers) this.#judgeOrder(reader, events, judgement);
    const unread = new Map<string, Attempt[]>();
    for (const attempt of this.attempts) {
      if (attempt.id === 0 || attempt.reads > 0) continue;
      const list = unread.get(attempt.channel);
      if (list === undefined) unread.set(attempt.channel, [attempt]);
      else list.push(attempt);
    }
    for (const reader of this.readers)
      this.#judgeLoss(reader, events, unread.get(reader.channel) ?? [], judgement);
    return judgement;
  }

  #judgeOrder(reader: Reader, events: Map<string, Map<number, number>>, judgement: Judgement): void {
    const where = `${reader.name} on ${reader.channel}`;
    const seen = new Set<string>();
    const counters = new Map<string, number>();
    let lastLife = '';
    let lastId = -1;
    for (let row = 0; row < reader.reads.length; row += 3) {
      const life = reader.lives[reader.reads[row] ?? 0] ?? '';
      const id = reader.reads[row + 1] ?? 0;
      const n = reader.reads[row + 2] ?? -1;
      const attempt = this.attempts[n];
      if (attempt === undefined || attempt.channel !== reader.channel) {
        judgement.ghosts.push(`${where} read ${life} ${id}, which nobody sent there`);
        continue;
      }
      attempt.reads += 1;
      if (seen.has(`${life} ${id}`) || seen.has(`${life} #${n}`))
        judgement.doubled.push(`${where}: ${life} ${id} (#${n})`);
      seen.add(`${life} ${id}`).add(`${life} #${n}`);
      if (life === lastLife && id < lastId) judgement.misordered.push(`${where}: ${id} after ${lastId}`);
      [lastLife, lastId] = [life, id];
      const key = `${reader.channel} ${life}`;
      let numbered = events.get(key);
      if (numbered === undefined) events.set(key, (numbered = new Map<number, number>()));
      const other = numbered.get(id);
      if (other === undefined) numbered.set(id, n);
      else if (other !== n)
        judgement.misordered.push(`${where}: ${life} ${id} is #${n}, for others #${other}`);
      // What was repeated has no place in its publisher's order.
      if (attempt.tries > 1) continue;
      const before = counters.get(attempt.publisher) ?? 0;
      if (attempt.counter < before)
        judgement.misordered.push(`${where}: ${attempt.publisher} ${attempt.counter} after ${before}`);
      counters.set(attempt.publisher, Math.max(before, attempt.counter));
    }
  }

  #judgeLoss(
    reader: Reader,
    events: Map<string, Map<number, number>>,
    unread: readonly Attempt[],
    judgement: Judgement,
  ): void {
    const where = `${reader.name} on ${reader.channel}`;
    const seen = new Set<string>();
    for (let row = 0; row < reader.reads.length; row += 3)
      seen.add(`${reader.lives[reader.reads[row] ?? 0] ?? ''} ${reader.reads[row + 1] ?? 0}`);
    const isOwn = (publisher: string | undefined): boolean =>
      reader.channel === 'broadcast' && publisher === reader.name;
    for (const { life, from, to } of reader.spans) {
      for (const [id, n] of events.get(`${reader.channel} ${life}`) ?? []) {
        if (id <= from || id > to || seen.has(`${life} ${id}`) || isOwn(this.attempts[n]?.publisher))
          continue;
        judgement.lost.push(`${where}: ${life} ${id} (#${n}), which others read`);
      }
    }
    const first = reader.spans[0];
    if (first === undefined) return;
    for (const attempt of unread) {
      if (isOwn(attempt.publisher)) continue;
      // Nobody read it, so its life is not known: any gap that may stand for it counts.
      const isTold =
        reader.gaps.some(({ oldLife, newLife, after, next }) =>
          oldLife === newLife
            ? attempt.id > after && attempt.id < next
            : // `after` is of the old life, `next` of the new one.
              attempt.id > after || attempt.id < next,
        ) ||
        (reader.hasEnded && attempt.id > reader.lastId) ||
        (reader.spans.length === 1 && attempt.id <= first.from);
      if (!isTold)
        judgement.lost.push(`${where}: acknowledged ${attempt.id} of ${attempt.publisher}, read by nobody`);
    }
  }
}

/** Epochs are `<life>.<birth>`; a reader may hold birth 0 of a channel that was born after it came. */
export function lifeOf(epoch: string): string {
  const dot = epoch.indexOf('.');
  return dot === -1 ? epoch : epoch.slice(0, dot);
}
