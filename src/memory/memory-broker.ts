import { randomBytes } from 'node:crypto';
import type {
  BrokerHealth,
  BrokerSink,
  EventEnvelope,
  History,
  HistoryPage,
  PageLimits,
  Publication,
  Published,
} from '../core/broker.js';
import { Broker } from '../core/broker.js';
import type { ChannelRules } from '../core/channel-rules.js';
import { continues } from '../core/position.js';
import type { Position } from '../protocol/messages.js';

export interface MemoryBrokerOptions {
  historySize: number;
  historyTtlMs: number;
  idempotencyTtlMs: number;
}

interface Stored {
  event: EventEnvelope;
  storedMs: number;
}

interface Log {
  position: Position;
  /** Ids without a hole, the newest last. */
  stored: Stored[];
}

/** Channels whose numbering is kept without events; the oldest is forgotten, and its next event has a new epoch. */
const MAX_LOGS = 100_000;
const SWEEP_MS = 10_000;

/** The embedded default: everything the Redis broker promises, within one process and for as long as it lives. */
export class MemoryBroker extends Broker {
  private readonly life = `m${Date.now().toString(36)}${randomBytes(3).toString('hex')}`;
  private births = 0;
  private readonly logs = new Map<string, Log>();
  private readonly firsts = new Map<string, { position: Position; untilMs: number }>();
  private readonly subscribed = new Set<string>();
  private sink: BrokerSink | null = null;
  private readonly sweep: NodeJS.Timeout;

  constructor(
    private readonly rules: ChannelRules,
    private readonly options: MemoryBrokerOptions,
    private readonly nowMs: () => number = () => performance.now(),
  ) {
    super();
    this.sweep = setInterval(() => this.expire(), SWEEP_MS);
    this.sweep.unref();
  }

  start(sink: BrokerSink): void {
    this.sink = sink;
  }

  isDurable(channel: string): boolean {
    return this.rules.isDurable(channel);
  }

  async publish({ channel, body, exclude = '', idempotency }: Publication): Promise<Published> {
    const bytes = Buffer.from(body, 'utf8');
    if (!this.isDurable(channel)) {
      this.announce({ channel, position: null, exclude, body: bytes });
      return { position: null, duplicate: false };
    }
    const key =
      idempotency === undefined ? null : JSON.stringify([channel, idempotency.scope, idempotency.key]);
    const first = key === null ? undefined : this.firsts.get(key);
    if (first !== undefined && first.untilMs > this.nowMs())
      return { position: first.position, duplicate: true };
    const log = this.logs.get(channel) ?? this.bear(channel);
    const position = { epoch: log.position.epoch, id: log.position.id + 1 };
    log.position = position;
    // The one written last is forgotten last.
    this.logs.delete(channel);
    this.logs.set(channel, log);
    const event: EventEnvelope = { channel, position, exclude, body: bytes };
    log.stored.push({ event, storedMs: this.nowMs() });
    // Trimmed in steps: the readers leave out what is too old or too many.
    if (log.stored.length > 2 * this.options.historySize)
      log.stored = log.stored.slice(-this.options.historySize);
    if (key !== null)
      this.firsts.set(key, { position, untilMs: this.nowMs() + this.options.idempotencyTtlMs });
    this.announce(event);
    return { position, duplicate: false };
  }

  /** Delivers what is not stored: events of ephemeral channels, presence notices. */
  announce(event: EventEnvelope): void {
    if (event.position === null || this.subscribed.has(event.channel)) this.sink?.onEvent(event);
  }

  async subscribe(channel: string): Promise<void> {
    this.subscribed.add(channel);
  }

  unsubscribe(channel: string): void {
    this.subscribed.delete(channel);
  }

  async head(channel: string): Promise<Position> {
    return this.logs.get(channel)?.position ?? { epoch: `${this.life}.0`, id: 0 };
  }

  async history(channel: string, after: Position, limit: number): Promise<History> {
    const head = await this.head(channel);
    const kept = this.kept(this.logs.get(channel));
    const oldestId = kept[0]?.event.position?.id ?? head.id + 1;
    if (!continues(after, head.epoch) || after.id > head.id || after.id + 1 < oldestId)
      return { kind: 'lost', head, oldestId };
    const start = after.id + 1 - oldestId;
    return { kind: 'events', events: kept.slice(start, start + limit).map(({ event }) => event), head };
  }

  async before(channel: string, id: number | null, limits: PageLimits): Promise<HistoryPage> {
    const { epoch } = await this.head(channel);
    const older = this.kept(this.logs.get(channel)).filter(
      ({ event }) => id === null || (event.position?.id ?? 0) < id,
    );
    const events: EventEnvelope[] = [];
    let bytes = 0;
    for (const { event } of older.toReversed()) {
      bytes += event.body.length;
      if (events.length === limits.events || (bytes > limits.bytes && events.length > 0)) break;
      events.unshift(event);
    }
    return { events, more: events.length < older.length, epoch };
  }

  health(): BrokerHealth {
    return { up: this.sink !== null };
  }

  async stop(): Promise<void> {
    clearInterval(this.sweep);
    this.sink = null;
  }

  private bear(channel: string): Log {
    this.births += 1;
    const log: Log = { position: { epoch: `${this.life}.${this.births}`, id: 0 }, stored: [] };
    this.logs.set(channel, log);
    if (this.logs.size > MAX_LOGS) {
      const [oldest] = this.logs.keys();
      if (oldest !== undefined) this.logs.delete(oldest);
    }
    return log;
  }

  private kept(log: Log | undefined): Stored[] {
    if (log === undefined) return [];
    const sinceMs = this.nowMs() - this.options.historyTtlMs;
    const newest = log.stored.slice(-this.options.historySize);
    const young = newest.findIndex(({ storedMs }) => storedMs > sinceMs);
    return young === -1 ? [] : newest.slice(young);
  }

  private expire(): void {
    const nowMs = this.nowMs();
    for (const log of this.logs.values()) if (log.stored.length > 0) log.stored = this.kept(log);
    for (const [key, { untilMs }] of this.firsts) if (untilMs <= nowMs) this.firsts.delete(key);
  }
}
