import type { Claim } from '../core/control.js';
import { IdempotencyStore } from '../core/control.js';
import type { RedisClients } from './redis-clients.js';
import { reach } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';
import { claimScript } from './scripts/claim.js';

/** A caller that has not answered by then has died; the next one with the key acts. */
const PENDING_MS = 10_000;

/** Answers of the HTTP API by idempotency key: `<fingerprint> <answer>`, the answer empty while somebody is acting. */
export class RedisIdempotency extends IdempotencyStore {
  constructor(
    private readonly clients: RedisClients,
    private readonly keys: RedisKeys,
    private readonly ttlMs: number,
  ) {
    super();
  }

  async claim(key: string, fingerprint: string): Promise<Claim> {
    const { commands } = this.clients;
    const found = await this.clients.run(
      commands,
      claimScript,
      [this.keys.answer(key)],
      [fingerprint, PENDING_MS],
    );
    if (typeof found !== 'string') return { kind: 'first' };
    const text = found;
    const end = text.indexOf(' ');
    if (text.slice(0, end) !== fingerprint) return { kind: 'conflict' };
    const answer = text.slice(end + 1);
    return answer === '' ? { kind: 'pending' } : { kind: 'done', answer };
  }

  async finish(key: string, fingerprint: string, answer: string): Promise<void> {
    await reach(
      this.clients.commands.set(this.keys.answer(key), `${fingerprint} ${answer}`, 'PX', this.ttlMs),
    );
  }

  async abandon(key: string): Promise<void> {
    await reach(this.clients.commands.del(this.keys.answer(key)));
  }
}
