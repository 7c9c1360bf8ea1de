import { Injectable, Logger } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import { BrokerUnavailable } from '../core/broker.js';
import { monotonicMs } from '../core/clock.js';
import type { Connection } from '../core/connection.js';
import type { ClusterTotals, PresenceEntry, PresencePage, PresenceScope } from '../core/presence-store.js';
import { PresenceStore } from '../core/presence-store.js';

/** What could not be written is tried again this often. */
const RETRY_MS = 1_000;
const GRACE_SWEEPS = 20;
const MIN_GRACE_SWEEP_MS = 10;

interface Local {
  scope: PresenceScope;
  userId: string;
  name: string | undefined;
  connections: number;
  /** Monotonic ms until which a user whose connection was lost still counts as present. */
  graceUntilMs: number;
}

/**
 * Who is where through this instance. Counts connections by scope and user, writes every change to the store in order,
 * and gives a user whose connection was lost a while to come back before the others are told.
 */
@Injectable()
export class PresenceService {
  private readonly logger = new Logger('Presence');
  /** By scope and user. */
  private readonly locals = new Map<PresenceScope, Map<string, Local>>();
  /** Those without a connection that are still in their grace. */
  private readonly leaving = new Set<Local>();
  /** Changes of this turn, in order. */
  private queue: PresenceEntry[] = [];
  /** What the store does not know yet, because it was away. */
  private readonly unwritten = new Map<string, PresenceEntry>();
  private readonly graceMs: number;
  private timers: NodeJS.Timeout[] = [];
  /** The last write; never rejects. */
  private settled: Promise<void> = Promise.resolve();

  constructor(
    private readonly store: PresenceStore,
    settings: Settings,
  ) {
    this.graceMs = settings.PRESENCE_GRACE_MS;
  }

  start(): void {
    this.store.start((reaped) => this.enterAll(reaped));
    const graceSweepMs = Math.max(MIN_GRACE_SWEEP_MS, this.graceMs / GRACE_SWEEPS);
    this.timers = [
      setInterval(() => this.endGraces(), graceSweepMs),
      setInterval(() => this.retry(), RETRY_MS),
    ];
  }

  enter(scope: PresenceScope, { identity }: Connection): void {
    let users = this.locals.get(scope);
    if (users === undefined) this.locals.set(scope, (users = new Map()));
    let local = users.get(identity.userId);
    if (local === undefined) {
      local = { scope, userId: identity.userId, name: identity.name, connections: 0, graceUntilMs: 0 };
      users.set(identity.userId, local);
    }
    this.leaving.delete(local);
    local.connections += 1;
    local.name = identity.name ?? local.name;
    this.change(entryOf(local, true));
  }

  /** One connection of the user less; `lost` ones get their grace, the others leave at once. */
  leave(scope: PresenceScope, userId: string, lost: boolean): void {
    const local = this.locals.get(scope)?.get(userId);
    if (local === undefined) return;
    local.connections -= 1;
    const nowMs = monotonicMs();
    if (lost) local.graceUntilMs = nowMs + this.graceMs;
    if (local.connections > 0 || local.graceUntilMs > nowMs) {
      this.change(entryOf(local, true));
      if (local.connections === 0) this.leaving.add(local);
    } else {
      this.remove(local);
    }
  }

  /** A page of the room's members over all instances. Rejects with `BrokerUnavailable`. */
  async page(room: string, limit: number, cursor: string | undefined): Promise<PresencePage> {
    this.flush();
    return this.store.page(room, limit, cursor);
  }

  /** Null while the store is away. */
  async totals(): Promise<ClusterTotals | null> {
    try {
      return await this.store.totals();
    } catch (error) {
      this.logger.debug(`no totals: ${String(error)}`);
      return null;
    }
  }

  /**
   * The instance ends: nothing is written any more after what waits. Users whose connections were closed are in their
   * grace, and the store ends it after the instance has gone; without a grace they are out already.
   */
  async release(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    this.timers = [];
    this.flush();
    await this.settled;
  }

  private remove(local: Local): void {
    this.leaving.delete(local);
    const users = this.locals.get(local.scope);
    users?.delete(local.userId);
    if (users?.size === 0) this.locals.delete(local.scope);
    this.change({ ...entryOf(local, true), connections: null });
  }

  private endGraces(): void {
    const nowMs = monotonicMs();
    for (const local of this.leaving) if (local.graceUntilMs <= nowMs) this.remove(local);
  }

  private change(entry: PresenceEntry): void {
    // Newer than what could not be written.
    if (this.unwritten.size > 0) this.unwritten.delete(keyOf(entry.scope, entry.userId));
    if (this.queue.push(entry) === 1) setImmediate(() => this.flush());
  }

  private flush(): void {
    if (this.queue.length === 0) return;
    const entries = this.queue;
    this.queue = [];
    this.write(entries);
  }

  private write(entries: readonly PresenceEntry[]): void {
    this.settled = this.store.write(entries).then(
      () => this.forgetWritten(entries),
      (error: unknown) => {
        if (!(error instanceof BrokerUnavailable)) this.logger.error(error);
        for (const entry of entries) this.keepUnwritten(entry);
      },
    );
  }

  private forgetWritten(entries: readonly PresenceEntry[]): void {
    if (this.unwritten.size === 0) return;
    for (const entry of entries) {
      const key = keyOf(entry.scope, entry.userId);
      if (this.unwritten.get(key) === entry) this.unwritten.delete(key);
    }
  }

  /** Only the newest state of an entry is worth writing later. */
  private keepUnwritten(entry: PresenceEntry): void {
    const key = keyOf(entry.scope, entry.userId);
    const local = this.locals.get(entry.scope)?.get(entry.userId);
    this.unwritten.set(
      key,
      local === undefined ? { ...entry, connections: null } : entryOf(local, entry.announce),
    );
  }

  private retry(): void {
    if (this.unwritten.size > 0) this.write([...this.unwritten.values()]);
  }

  private enterAll(reaped: boolean): void {
    const entries = [...this.locals.values()]
      .flatMap((users) => [...users.values()])
      .map((local) => entryOf(local, reaped));
    if (entries.length > 0) this.write(entries);
  }
}

function keyOf(scope: PresenceScope, userId: string): string {
  return `${scope} ${userId}`;
}

function entryOf({ scope, userId, name, connections }: Local, announce: boolean): PresenceEntry {
  return { scope, userId, name, connections, announce };
}
