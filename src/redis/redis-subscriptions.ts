import type { RedisClients } from './redis-clients.js';
import { BrokerUnavailable } from '../core/broker.js';

/** Names in one SUBSCRIBE. */
const BATCH = 512;
/** A released subscription is kept this long: whoever left may be back, and flapping costs Redis nothing. */
const LINGER_MS = 2_000;
const LINGER_SWEEP_MS = 1_000;

interface Subscription {
  state: 'wanted' | 'live';
  /** Settle when it becomes live or the connection is lost. */
  waiting: { resolve: () => void; reject: (error: Error) => void }[];
}

export type BusListener = (bus: string, message: Buffer) => void;

/**
 * The buses this instance listens to, over one connection: asked for in batches, taken up again by {@link restore}
 * after the connection was lost, released after a while.
 */
export class RedisSubscriptions {
  readonly client;
  private readonly buses = new Map<string, Subscription>();
  private readonly released = new Map<string, number>();
  private asking: string[] = [];
  private readonly sweep: NodeJS.Timeout;

  constructor(
    private readonly clients: RedisClients,
    private readonly onMessage: BusListener,
    /** The bus is not listened to any more. */
    private readonly onGone: (bus: string) => void,
  ) {
    this.client = clients.connect('subscriber');
    this.client.on(clients.sharded ? 'smessageBuffer' : 'messageBuffer', (bus: Buffer, message: Buffer) =>
      this.onMessage(bus.toString('latin1'), message),
    );
    this.client.on('close', () => this.lose());
    this.sweep = setInterval(() => this.releaseDue(), LINGER_SWEEP_MS);
  }

  get count(): number {
    return this.buses.size;
  }

  get isReady(): boolean {
    return this.client.status === 'ready';
  }

  /** Resolves once the bus is live. Rejects with `BrokerUnavailable` when the connection is away. */
  add(bus: string): Promise<void> {
    this.released.delete(bus);
    let subscription = this.buses.get(bus);
    if (subscription?.state === 'live') return Promise.resolve();
    if (!this.isReady) return Promise.reject(new BrokerUnavailable());
    if (subscription === undefined) {
      subscription = { state: 'wanted', waiting: [] };
      this.buses.set(bus, subscription);
      if (this.asking.push(bus) === 1) setImmediate(() => this.ask());
    }
    const { waiting } = subscription;
    return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
  }

  /** Keeps the bus for a while, then unsubscribes. */
  release(bus: string): void {
    if (this.buses.has(bus)) this.released.set(bus, performance.now() + LINGER_MS);
  }

  /** Subscribes again to everything that is wanted, on a new connection. */
  async restore(): Promise<void> {
    await this.subscribe([...this.buses.keys()]);
  }

  /** Cuts the connection; it comes back by itself. */
  rebuild(): void {
    this.client.disconnect(true);
  }

  stop(): void {
    clearInterval(this.sweep);
    this.lose();
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
    const { client } = this;
    if (this.clients.sharded) {
      await Promise.all(
        buses.map(async (bus) => {
          await client.ssubscribe(bus);
          this.succeed([bus]);
        }),
      );
      return;
    }
    const batches: string[][] = [];
    for (let start = 0; start < buses.length; start += BATCH) batches.push(buses.slice(start, start + BATCH));
    await Promise.all(
      batches.map(async (batch) => {
        await client.subscribe(...batch);
        this.succeed(batch);
      }),
    );
  }

  private succeed(buses: readonly string[]): void {
    for (const bus of buses) {
      const subscription = this.buses.get(bus);
      if (subscription === undefined) continue;
      subscription.state = 'live';
      for (const waiter of subscription.waiting.splice(0)) waiter.resolve();
    }
  }

  private fail(bus: string, failure: Error): void {
    const subscription = this.buses.get(bus);
    if (subscription === undefined || subscription.state === 'live') return;
    const { waiting } = subscription;
    this.buses.delete(bus);
    this.onGone(bus);
    for (const waiter of waiting) waiter.reject(failure);
  }

  /** The connection is gone: live subscriptions are wanted again, those that somebody waits for have failed. */
  private lose(): void {
    const failure = new BrokerUnavailable();
    for (const [bus, subscription] of this.buses) {
      if (subscription.state === 'wanted' && subscription.waiting.length > 0) this.fail(bus, failure);
      else subscription.state = 'wanted';
    }
  }

  private releaseDue(): void {
    const nowMs = performance.now();
    const due: string[] = [];
    for (const [bus, dueMs] of this.released) if (dueMs <= nowMs) due.push(bus);
    if (due.length === 0) return;
    for (const bus of due) {
      this.released.delete(bus);
      this.buses.delete(bus);
      this.onGone(bus);
    }
    if (!this.isReady) return;
    const done = this.clients.sharded
      ? Promise.all(due.map((bus) => this.client.sunsubscribe(bus)))
      : this.client.unsubscribe(...due);
    // A connection that breaks now has no subscriptions left anyway.
    done.catch(() => this.rebuild());
  }
}
