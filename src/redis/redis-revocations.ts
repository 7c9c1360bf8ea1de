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
    return stored.flatMap((text) => readRevocation(text) ?? []);
  }

  watch(onStale: () => void): void {
    this.clients.commands.on('ready', onStale);
    if (this.clients.commands.status === 'ready') onStale();
  }
}

/** Null for what the gateway did not write: it must not keep the others from being in force. */
function readRevocation(text: string): Revocation | null {
  const value = parseJson(text);
  if (
    typeof value !== 'object' ||
    value === null ||
    !('untilMs' in value) ||
    typeof value.untilMs !== 'number'
  )
    return null;
  const { untilMs } = value;
  if ('jti' in value && typeof value.jti === 'string') return { jti: value.jti, untilMs };
  if (!('sub' in value) || typeof value.sub !== 'string') return null;
  if (!('issuedBeforeS' in value) || typeof value.issuedBeforeS !== 'number') return null;
  return { sub: value.sub, issuedBeforeS: value.issuedBeforeS, untilMs };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not ours; the caller leaves it out.
    return null;
  }
}
