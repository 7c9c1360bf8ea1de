import { BrokerUnavailable } from '../core/broker.js';
import type { RedisClient, RedisClients } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';

/** How long one replica has to confirm; over it the write counts as not safe. */
const WAIT_MS = 500;

interface Waiter {
  resolve: () => void;
  reject: (error: Error) => void;
}

/**
 * Confirms that a replica has what was written (`DURABILITY=replicated`). A connection of its own writes a marker after
 * the publications and waits for that: the replication stream is one, so the marker is behind them. One wait at a time;
 * all that is asked meanwhile shares the next.
 */
export class RedisReplication {
  private readonly client: RedisClient;
  private waiting: Waiter[] = [];
  private busy = false;

  constructor(
    clients: RedisClients,
    private readonly keys: RedisKeys,
  ) {
    this.client = clients.connect('replication');
  }

  /** Resolves once a replica has everything that was answered before this call. Rejects with `BrokerUnavailable`. */
  confirm(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      if (!this.busy) void this.work();
    });
  }

  private async work(): Promise<void> {
    this.busy = true;
    while (this.waiting.length > 0) {
      const waiters = this.waiting;
      this.waiting = [];
      const failure = await this.waitOnce();
      for (const waiter of waiters) {
        if (failure === null) waiter.resolve();
        else waiter.reject(failure);
      }
    }
    this.busy = false;
  }

  private async waitOnce(): Promise<Error | null> {
    try {
      const marked = this.client.incr(this.keys.replicationMarker);
      const confirmed = this.client.call('WAIT', '1', WAIT_MS);
      const [, replicas] = await Promise.all([marked, confirmed]);
      return Number(replicas) >= 1 ? null : new BrokerUnavailable('no replica confirmed');
    } catch (error) {
      return new BrokerUnavailable(error);
    }
  }
}
