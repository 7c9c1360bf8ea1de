import { BrokerUnavailable } from '../core/broker.js';
import { Pacer } from '../core/pacer.js';
import { addTo, inBatches } from './batches.js';
import type { RedisClients } from './redis-clients.js';
import type { RedisLines } from './redis-lines.js';

/** Names in one SUBSCRIBE or UNSUBSCRIBE. */
const BATCH = 512;
/** In a storm of connects Redis is asked no more often: who connects waits up to 5 ms, and shares the call with others. */
const CALLS_PER_SECOND = 200;
const CALLS_BURST = 10;
/** A released subscription is kept this long: whoever left may be back, and flapping costs Redis nothing. */
const LINGER_MS = 2_000;
const LINGER_SWEEP_MS = 1_000;

/** What a bus carries the events of. */
export interface Source {
  readonly channel: string;
  readonly partition: number;
}

/** All that is kept of a bus, and of its source beside it: there is one for each user who is connected. */
interface Subscription {
  /** Null for a bus of the instance's own. */
  readonly channel: string | null;
  readonly partition: number;
  /** The line it is live on; null: wanted, and asked for when there is a line again. */
  line: string | null;
  /** Settle when it becomes live or the line is lost; null where nobody waits. */
  waiting: { resolve: () => void; reject: (error: Error) => void }[] | null;
}

/**
 * The buses this instance listens to: asked for in batches, taken up again by {@link restore} after a line was lost or
 * led elsewhere, released after a while.
 */
export class RedisSubscriptions {
  private readonly buses = new Map<string, Subscription>();
  private readonly released = new Map<string, number>();
  private asking: string[] = [];
  private readonly pacer = new Pacer(CALLS_PER_SECOND, CALLS_BURST, () => this.ask());
  private readonly sweep: NodeJS.Timeout;

  constructor(
    private readonly clients: RedisClients,
    private readonly lines: RedisLines,
  ) {
    this.sweep = setInterval(() => this.releaseDue(), LINGER_SWEEP_MS);
  }

  /** Resolves once the bus is live. Rejects with `BrokerUnavailable` when its line is away. */
  add(bus: string, source: Source | null = null): Promise<void> {
    if (this.released.size > 0) this.released.delete(bus);
    let subscription = this.buses.get(bus);
    if (subscription !== undefined && subscription.line !== null) return Promise.resolve();
    if (!this.lines.isReady) return Promise.reject(new BrokerUnavailable());
    if (subscription === undefined) {
      const { channel, partition } = source ?? { channel: null, partition: 0 };
      subscription = { channel, partition, line: null, waiting: null };
      this.buses.set(bus, subscription);
    }
    const waiting = (subscription.waiting ??= []);
    const added = new Promise<void>((resolve, reject) => waiting.push({ resolve, reject }));
    if (waiting.length === 1) {
      this.asking.push(bus);
      this.pacer.ask();
    }
    return added;
  }

  /** Those of the buses that are live, or wanted again when their line is back. */
  get sources(): Source[] {
    return [...this.buses.values()].filter(hasSource);
  }

  /** Null for a bus of the instance's own, and for one that is not listened to. */
  sourceOf(bus: string): Source | null {
    const subscription = this.buses.get(bus);
    return subscription !== undefined && hasSource(subscription) ? subscription : null;
  }

  /** Keeps the bus for a while, then unsubscribes. */
  release(bus: string): void {
    if (this.buses.has(bus)) this.released.set(bus, performance.now() + LINGER_MS);
  }

  /** Subscribes to everything that is wanted and not live on the line it now belongs to. */
  async restore(): Promise<void> {
    const wanted = [...this.buses].filter(
      ([bus, { line }]) => line === null || line !== this.lines.lineOf(bus),
    );
    await this.subscribe(wanted.map(([bus]) => bus));
  }

  /** A line is gone: what was live on it is wanted again, and who waits has failed. */
  lose(line: string): void {
    const failure = new BrokerUnavailable();
    for (const [bus, subscription] of this.buses) {
      if (subscription.line === line) subscription.line = null;
      else if (
        subscription.line === null &&
        subscription.waiting !== null &&
        this.lines.lineOf(bus) === line
      ) {
        this.fail(bus, failure);
      }
    }
  }

  stop(): void {
    clearInterval(this.sweep);
    this.pacer.stop();
    const failure = new BrokerUnavailable();
    for (const bus of this.buses.keys()) this.fail(bus, failure);
  }

  private ask(): void {
    const buses = this.asking;
    this.asking = [];
    this.subscribe(buses).catch((error: unknown) => {
      const failure = new BrokerUnavailable(error);
      for (const bus of buses) this.fail(bus, failure);
    });
  }

  private async subscribe(buses: readonly string[]): Promise<void> {
    const byLine = new Map<string, string[]>();
    for (const bus of buses) {
      const line = this.lines.lineOf(bus);
      if (line === null) throw new BrokerUnavailable('no owner of the slot');
      addTo(byLine, line, bus);
    }
    await Promise.all([...byLine].map(([line, group]) => this.subscribeOn(line, group)));
  }

  private async subscribeOn(line: string, buses: readonly string[]): Promise<void> {
    const client = this.lines.get(line);
    if (client === undefined) throw new BrokerUnavailable('no line');
    await Promise.all(
      this.batches(buses).map(async (batch) => {
        await (this.clients.sharded ? client.ssubscribe(...batch) : client.subscribe(...batch));
        this.succeed(line, batch);
      }),
    );
  }

  private succeed(line: string, buses: readonly string[]): void {
    for (const bus of buses) {
      const subscription = this.buses.get(bus);
      if (subscription === undefined) continue;
      subscription.line = line;
      for (const waiter of subscription.waiting ?? []) waiter.resolve();
      subscription.waiting = null;
    }
  }

  private fail(bus: string, failure: Error): void {
    const subscription = this.buses.get(bus);
    if (!subscription?.waiting) return;
    this.buses.delete(bus);
    for (const waiter of subscription.waiting) waiter.reject(failure);
    subscription.waiting = null;
  }

  private releaseDue(): void {
    const nowMs = performance.now();
    const byLine = new Map<string, string[]>();
    for (const [bus, dueMs] of this.released) {
      if (dueMs > nowMs) continue;
      const line = this.buses.get(bus)?.line ?? null;
      this.released.delete(bus);
      this.buses.delete(bus);
      if (line !== null) addTo(byLine, line, bus);
    }
    for (const [line, buses] of byLine) this.unsubscribe(line, buses);
  }

  private unsubscribe(line: string, buses: readonly string[]): void {
    const client = this.lines.get(line);
    if (client?.status !== 'ready') return;
    const done = this.batches(buses).map((batch) =>
      this.clients.sharded ? client.sunsubscribe(...batch) : client.unsubscribe(...batch),
    );
    // What can't be unsubscribed must not stay subscribed: a new line starts with nothing.
    Promise.all(done).catch(() => this.lines.rebuild(line));
  }

  /** Sharded, one call holds buses of one slot only. */
  private batches(buses: readonly string[]): string[][] {
    return inBatches(buses, this.clients.sharded ? 1 : BATCH);
  }
}

function hasSource(subscription: Subscription): subscription is Subscription & Source {
  return subscription.channel !== null;
}
