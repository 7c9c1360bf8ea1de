import { Injectable, Logger } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import { readJson } from '../core/answer-body.js';
import type { Action } from '../core/identity.js';

const TIMEOUT_MS = 2_000;
/** Answers without a `ttl_s` are kept this long, and none longer than the most. */
const DEFAULT_TTL_MS = 5_000;
const MAX_TTL_MS = 300_000;
const MAX_ANSWERS = 10_000;

interface Decision {
  allow: boolean;
  untilMs: number;
}

/** Asks the backend where a token says nothing (`AUTHORIZE_URL`). No answer is a no. */
@Injectable()
export class AuthorizeHook {
  private readonly logger = new Logger('AuthorizeHook');
  private readonly decisions = new Map<string, Decision>();
  private readonly asking = new Map<string, Promise<boolean>>();

  constructor(private readonly settings: Settings) {}

  /** Whether there is somebody to ask. */
  get isSet(): boolean {
    return this.settings.AUTHORIZE_URL !== undefined;
  }

  /** A kept answer at once, else a promise of one. Never rejects. */
  allows(user: string, action: Action, channel: string): boolean | Promise<boolean> {
    const key = JSON.stringify([user, action, channel]);
    const known = this.decisions.get(key);
    if (known !== undefined && known.untilMs > performance.now()) return known.allow;
    let asked = this.asking.get(key);
    if (asked === undefined) {
      asked = this.ask(key, { user, action, channel }).finally(() => this.asking.delete(key));
      this.asking.set(key, asked);
    }
    return asked;
  }

  private async ask(key: string, question: object): Promise<boolean> {
    try {
      const response = await fetch(this.settings.AUTHORIZE_URL ?? '', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(question),
        redirect: 'error',
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      const answer: unknown = response.ok ? await readJson(response) : null;
      if (!isAnswer(answer)) throw new Error(`no decision in the answer (HTTP ${response.status})`);
      this.keep(key, answer);
      return answer.allow;
    } catch (error) {
      this.logger.warn(
        `refused, since nobody could be asked: ${error instanceof Error ? error.message : String(error)}`,
      );
      return false;
    }
  }

  private keep(key: string, { allow, ttl_s: ttlS }: { allow: boolean; ttl_s?: number }): void {
    const ttlMs = ttlS === undefined ? DEFAULT_TTL_MS : Math.min(MAX_TTL_MS, Math.max(0, ttlS * 1000));
    this.decisions.delete(key);
    this.decisions.set(key, { allow, untilMs: performance.now() + ttlMs });
    if (this.decisions.size <= MAX_ANSWERS) return;
    const [oldest] = this.decisions.keys();
    if (oldest !== undefined) this.decisions.delete(oldest);
  }
}

function isAnswer(value: unknown): value is { allow: boolean; ttl_s?: number } {
  if (typeof value !== 'object' || value === null || !('allow' in value) || typeof value.allow !== 'boolean')
    return false;
  return !('ttl_s' in value) || (typeof value.ttl_s === 'number' && Number.isFinite(value.ttl_s));
}
