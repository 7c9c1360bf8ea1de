import { BrokerUnavailable } from '../core/broker.js';
import type { Revocation } from '../core/control.js';
import { RevocationStore } from '../core/control.js';
import type { RedisClients } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';

/** Revocations in one sorted set, scored by the time (wall-clock ms) until which they are in force. */
export class RedisRevocations extends RevocationStore {
  constructor(
    private readonly clients: RedisClients,
    private readonly keys: RedisKeys,
  ) {
    super();
  }

  async add(revocation: Revocation): Promise<void> {
    try {
      const { commands } = this.clients;
      await commands.zremrangebyscore(this.keys.revocations, '-inf', Date.now());
      await commands.zadd(this.keys.revocations, revocation.untilMs, JSON.stringify(revocation));
    } catch (error) {
      throw new BrokerUnavailable(error);
    }
  }

  async load(): Promise<Revocation[]> {
    try {
      const stored = await this.clients.commands.zrangebyscore(this.keys.revocations, Date.now(), '+inf');
      return stored.map((text) => JSON.parse(text) as Revocation);
    } catch (error) {
      throw new BrokerUnavailable(error);
    }
  }

  watch(onStale: () => void): void {
    this.clients.commands.on('ready', onStale);
    if (this.clients.commands.status === 'ready') onStale();
  }
}
