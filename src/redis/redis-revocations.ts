import type { Revocation } from '../core/control.js';
import { RevocationStore } from '../core/control.js';
import type { RedisClients } from './redis-clients.js';
import { reach } from './redis-clients.js';
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
    const { commands } = this.clients;
    await reach(commands.zremrangebyscore(this.keys.revocations, '-inf', Date.now()));
    await reach(commands.zadd(this.keys.revocations, revocation.untilMs, JSON.stringify(revocation)));
  }

  async load(): Promise<Revocation[]> {
    const stored = await reach(
      this.clients.commands.zrangebyscore(this.keys.revocations, Date.now(), '+inf'),
    );
    return stored.map((text) => JSON.parse(text) as Revocation);
  }

  watch(onStale: () => void): void {
    this.clients.commands.on('ready', onStale);
    if (this.clients.commands.status === 'ready') onStale();
  }
}
