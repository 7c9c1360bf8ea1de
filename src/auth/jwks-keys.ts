import type { KeyObject } from 'node:crypto';
import { createPublicKey } from 'node:crypto';
import { Logger } from '@nestjs/common';
import { JwksClient } from 'jwks-rsa';
import { readJson } from '../core/answer-body.js';

const FETCH_TIMEOUT_MS = 3_000;
/** A key id that is not known is asked for at most this often, whoever makes key ids up. */
const COOLDOWN_MS = 10_000;
/** Known keys are read again this often, so that one that was taken out is refused. */
const REFRESH_MS = 600_000;
/** Until the first set was read, it is asked for this often. */
const FIRST_RETRY_MS = 1_000;

/**
 * The issuer's signing keys by key id. Read when a token names one that is not known, and now and then; the last good
 * set stays while the issuer is away.
 */
export class JwksKeys {
  private readonly logger = new Logger('Jwks');
  private readonly client: JwksClient;
  private keys = new Map<string, KeyObject>();
  private askedAtMs = -Infinity;
  private reading: Promise<void> | null = null;
  private stopped = false;

  constructor(
    uri: string,
    private readonly nowMs: () => number = () => performance.now(),
  ) {
    this.client = new JwksClient({ jwksUri: uri, cache: false, rateLimit: false, fetcher });
  }

  /** The keys have been read once. */
  get isReady(): boolean {
    return this.keys.size > 0;
  }

  /** The key of this id; null where the issuer has none, or can't be asked now. Never rejects. */
  async find(keyId: string | undefined): Promise<KeyObject | null> {
    const sinceMs = this.nowMs() - this.askedAtMs;
    if (this.known(keyId) === null ? sinceMs > COOLDOWN_MS : sinceMs > REFRESH_MS) this.read();
    if (this.known(keyId) === null && this.reading !== null) await this.reading;
    return this.known(keyId);
  }

  /** Reads the set now, unless that is under way. */
  read(): void {
    if (this.reading !== null || this.stopped) return;
    this.askedAtMs = this.nowMs();
    this.reading = this.readOnce().finally(() => {
      this.reading = null;
      if (!this.isReady && !this.stopped) setTimeout(() => this.read(), FIRST_RETRY_MS).unref();
    });
  }

  stop(): void {
    this.stopped = true;
  }

  /** A token without a key id is for the one key there is. */
  private known(keyId: string | undefined): KeyObject | null {
    if (keyId !== undefined) return this.keys.get(keyId) ?? null;
    const [only] = this.keys.values();
    return this.keys.size === 1 && only !== undefined ? only : null;
  }

  private async readOnce(): Promise<void> {
    try {
      const read = await this.client.getSigningKeys();
      const keys = new Map<string, KeyObject>();
      for (const key of read) keys.set(key.kid, createPublicKey(key.getPublicKey()));
      if (keys.size > 0) this.keys = keys;
    } catch (error) {
      this.logger.warn(`the signing keys were not read, ${this.keys.size} are known: ${String(error)}`);
    }
  }
}

/** The library's own reads whatever comes, however long. What is no key set, it refuses. */
async function fetcher(uri: string): Promise<{ keys: unknown }> {
  const response = await fetch(uri, { redirect: 'error', signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return (await readJson(response)) as { keys: unknown };
}
