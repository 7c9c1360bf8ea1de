import type { OnApplicationBootstrap, OnApplicationShutdown } from '@nestjs/common';
import { Injectable, Logger } from '@nestjs/common';
import type { Revocation } from '../core/control.js';
import { RevocationStore } from '../core/control.js';
import type { Identity } from '../core/identity.js';

/** Revocations are few and bus messages can be lost: how often the stored ones are read again. */
const RELOAD_MS = 30_000;
const RETRY_MS = 500;

/** The revocations in force, in memory: looking one up costs a handshake nothing. */
@Injectable()
export class RevocationsService implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly logger = new Logger('Revocations');
  private readonly byToken = new Map<string, number>();
  private readonly bySubject = new Map<string, { issuedBeforeS: number; untilMs: number }>();
  private loaded = false;
  private onLoaded: () => void = () => undefined;
  private timers: NodeJS.Timeout[] = [];

  constructor(private readonly store: RevocationStore) {}

  /** False until the stored ones were read: no token can be trusted before. */
  get isLoaded(): boolean {
    return this.loaded;
  }

  /** Called after stored revocations were read, which may concern open connections. */
  watch(onLoaded: () => void): void {
    this.onLoaded = onLoaded;
  }

  onApplicationBootstrap(): void {
    this.store.watch(() => this.load());
    this.load();
    this.timers = [setInterval(() => this.load(), RELOAD_MS)];
  }

  onApplicationShutdown(): void {
    for (const timer of this.timers) clearInterval(timer);
    this.timers = [];
  }

  /** Puts it into force here. */
  note(revocation: Revocation): void {
    const { untilMs } = revocation;
    if ('jti' in revocation) {
      // The longest wins: none is taken back.
      this.byToken.set(revocation.jti, Math.max(untilMs, this.byToken.get(revocation.jti) ?? 0));
      return;
    }
    const { sub, issuedBeforeS } = revocation;
    const known = this.bySubject.get(sub);
    this.bySubject.set(sub, {
      issuedBeforeS: Math.max(issuedBeforeS, known?.issuedBeforeS ?? 0),
      untilMs: Math.max(untilMs, known?.untilMs ?? 0),
    });
  }

  isRevoked({ userId, token }: Identity): boolean {
    if (token === undefined) return false;
    const nowMs = Date.now();
    if (token.id !== undefined && (this.byToken.get(token.id) ?? 0) > nowMs) return true;
    const subject = this.bySubject.get(userId);
    if (subject === undefined || subject.untilMs <= nowMs) return false;
    return token.issuedAtS === undefined || token.issuedAtS < subject.issuedBeforeS;
  }

  private load(): void {
    this.store.load().then(
      (revocations) => {
        this.forgetOld();
        for (const revocation of revocations) this.note(revocation);
        this.loaded = true;
        this.onLoaded();
      },
      (error: unknown) => {
        this.logger.debug(`revocations were not read: ${String(error)}`);
        if (!this.loaded && this.timers.length > 0) setTimeout(() => this.load(), RETRY_MS).unref();
      },
    );
  }

  private forgetOld(): void {
    const nowMs = Date.now();
    for (const [jti, untilMs] of this.byToken) if (untilMs <= nowMs) this.byToken.delete(jti);
    for (const [sub, { untilMs }] of this.bySubject) if (untilMs <= nowMs) this.bySubject.delete(sub);
  }
}
