import type { Claim, ControlAnswer, ControlCommand, Revocation } from '../core/control.js';
import { ControlBus, IdempotencyStore, RevocationStore } from '../core/control.js';

/** The one instance there is asks itself. */
export class MemoryControl extends ControlBus {
  private carryOut: ((command: ControlCommand) => Promise<ControlAnswer>) | null = null;

  start(carryOut: (command: ControlCommand) => Promise<ControlAnswer>): void {
    this.carryOut = carryOut;
  }

  async ask(command: ControlCommand): Promise<ControlAnswer[]> {
    return this.carryOut === null ? [] : [await this.carryOut(command)];
  }
}

/** Nothing outlives the process; the auth module keeps what is in force. */
export class MemoryRevocations extends RevocationStore {
  async add(_revocation: Revocation): Promise<void> {
    // The instance that makes it has it already, and there is no other.
  }

  async load(): Promise<Revocation[]> {
    return [];
  }

  watch(_onStale: () => void): void {
    // Never away.
  }
}

/** Answers kept; the oldest is forgotten. */
const MAX_ANSWERS = 10_000;

export class MemoryIdempotency extends IdempotencyStore {
  private readonly answers = new Map<
    string,
    { fingerprint: string; answer: string | null; untilMs: number }
  >();

  constructor(
    private readonly ttlMs: number,
    private readonly nowMs: () => number = () => performance.now(),
  ) {
    super();
  }

  async claim(key: string, fingerprint: string): Promise<Claim> {
    const found = this.answers.get(key);
    if (found === undefined || found.untilMs <= this.nowMs()) {
      this.keep(key, fingerprint, null);
      return { kind: 'first' };
    }
    if (found.fingerprint !== fingerprint) return { kind: 'conflict' };
    return found.answer === null ? { kind: 'pending' } : { kind: 'done', answer: found.answer };
  }

  async finish(key: string, fingerprint: string, answer: string): Promise<void> {
    this.keep(key, fingerprint, answer);
  }

  async abandon(key: string): Promise<void> {
    this.answers.delete(key);
  }

  private keep(key: string, fingerprint: string, answer: string | null): void {
    this.answers.delete(key);
    this.answers.set(key, { fingerprint, answer, untilMs: this.nowMs() + this.ttlMs });
    if (this.answers.size <= MAX_ANSWERS) return;
    const [oldest] = this.answers.keys();
    if (oldest !== undefined) this.answers.delete(oldest);
  }
}
