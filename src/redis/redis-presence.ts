import { randomBytes } from 'node:crypto';
import { Logger } from '@nestjs/common';
import { BrokerUnavailable } from '../core/broker.js';
import type {
  ClusterTotals,
  PresenceEntry,
  PresencePage,
  RoomCounts,
  RoomsPage,
} from '../core/presence-store.js';
import { PresenceStore } from '../core/presence-store.js';
import { roomChannel, userChannel } from '../protocol/names.js';
import type { RedisClient, RedisClients } from './redis-clients.js';
import { reach } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';
import { PARTITIONS, partitionOf } from './redis-keys.js';
import { unlockScript } from './scripts/fence.js';
import { countLeasesScript, endedScript, handBackScript, renewScript } from './scripts/lease.js';
import { presencePageScript, presenceReapScript, presenceWriteScript } from './scripts/presence.js';

const LEASE_MS = 10_000;
const RENEW_MS = 3_000;
const REAP_LOCK_MS = 30_000;
/** One script call writes at most so many entries: it blocks Redis while it runs. */
const BATCH_ENTRIES = 64;
/** How long it is remembered that a lease was reaped, for the instance that only was frozen. */
const REAPED_TTL_S = 3_600;
const SCRIPTS = [
  presenceWriteScript,
  presenceReapScript,
  presencePageScript,
  renewScript,
  endedScript,
  countLeasesScript,
  handBackScript,
  unlockScript,
];

export interface RedisPresenceOptions {
  instance: string;
  announceUsers: boolean;
  announceMembersMax: number;
  /** How long users count as present after their instance has ended. */
  graceMs: number;
  /** Keep changes for the backend. */
  webhooks: boolean;
}

/** Entries of one script call, and the lease's key in the partition of each. */
interface Batch {
  partition: number;
  entries: PresenceEntry[];
  keys: string[];
}

/**
 * Presence over Redis. What an instance writes belongs to its lease; the others take out the entries of a lease that
 * has ended, entry by entry, so that each user who is gone is announced once, whoever dies meanwhile.
 */
export class RedisPresence extends PresenceStore {
  private readonly logger = new Logger('RedisPresence');
  private readonly commands: RedisClient;
  private lease: string;
  private leases = 0;
  private timer: NodeJS.Timeout | null = null;
  private working = false;
  /** Monotonic ms since which the lease has been renewed without a pause; Infinity: not now. */
  private steadySinceMs = Infinity;
  private renewedAtMs = -Infinity;
  private onLost: (reaped: boolean) => void = () => undefined;

  constructor(
    private readonly clients: RedisClients,
    private readonly keys: RedisKeys,
    private readonly options: RedisPresenceOptions,
  ) {
    super();
    this.commands = clients.connect('presence');
    this.lease = `${options.instance}/0`;
  }

  start(onLost: (reaped: boolean) => void): void {
    this.onLost = onLost;
    this.commands.on('ready', () => void this.tick());
    this.commands.on('close', () => {
      this.steadySinceMs = Infinity;
    });
    this.timer = setInterval(() => void this.tick(), RENEW_MS);
    if (this.commands.status === 'ready') void this.tick();
  }

  async write(entries: readonly PresenceEntry[]): Promise<void> {
    await Promise.all(this.batches(entries).map((batch) => this.writeBatch(batch)));
  }

  async page(room: string, limit: number, cursor: string | undefined): Promise<PresencePage> {
    const scope = roomChannel(room);
    const base = `${this.keys.tag(partitionOf(scope))}:presence:${scope}`;
    const after = cursor === undefined ? '' : Buffer.from(cursor, 'base64url').toString('utf8');
    const answer = await this.clients.run(this.commands, presencePageScript, [base], [after, limit + 1]);
    if (!Array.isArray(answer)) throw new BrokerUnavailable();
    const [count, ...fields] = answer.map((field) => String(field));
    const members: PresencePage['members'] = [];
    for (let at = 0; at + 2 < fields.length; at += 3) {
      const [user_id = '', connections = '0', name = ''] = fields.slice(at, at + 3);
      members.push({ user_id, ...(name === '' ? {} : { name }), connections: Number(connections) });
    }
    const page = members.slice(0, limit);
    const last = members.length > limit ? page.at(-1) : undefined;
    return {
      count: Number(count),
      members: page,
      ...(last === undefined ? {} : { cursor: Buffer.from(last.user_id, 'utf8').toString('base64url') }),
    };
  }

  /** Partition by partition, in each by name; the cursor names both. One that we did not make is at the end. */
  async rooms(limit: number, cursor: string | undefined): Promise<RoomsPage> {
    const [from = '0', after = ''] =
      cursor === undefined ? [] : Buffer.from(cursor, 'base64url').toString('utf8').split(' ');
    const found: { room: string; partition: number }[] = [];
    const start = /^\d{1,3}$/.test(from) ? Number(from) : PARTITIONS;
    for (let partition = start; partition < PARTITIONS && found.length <= limit; partition += 1) {
      const range = partition === start && after !== '' ? `(${after}` : '-';
      const key = `${this.keys.tag(partition)}:rooms`;
      const rooms = await reach(
        this.commands.zrangebylex(key, range, '+', 'LIMIT', 0, limit + 1 - found.length),
      );
      found.push(...rooms.map((room) => ({ room, partition })));
    }
    const page = found.slice(0, limit);
    const counts = await Promise.all(page.map(({ room }) => this.counts(room)));
    const last = found.length > limit ? page.at(-1) : undefined;
    return {
      rooms: page.map(({ room }, index) => ({ room, members: counts[index]?.members ?? 0 })),
      ...(last === undefined
        ? {}
        : { cursor: Buffer.from(`${last.partition} ${last.room}`).toString('base64url') }),
    };
  }

  async counts(room: string): Promise<RoomCounts> {
    const scope = roomChannel(room);
    const base = `${this.keys.tag(partitionOf(scope))}:presence:${scope}`;
    const [members, connections] = await reach(
      Promise.all([this.commands.zcard(`${base}:members`), this.commands.get(`${base}:connections`)]),
    );
    return { members, connections: Number(connections ?? 0) };
  }

  async totals(): Promise<ClusterTotals> {
    const partitions = Array.from({ length: PARTITIONS }, (_, partition) => this.keys.tag(partition));
    const [counts, rooms, instances] = await Promise.all([
      Promise.all(
        partitions.map((tag) => this.commands.hmget(`${tag}:presence:counts`, 'connections', 'users')),
      ),
      Promise.all(partitions.map((tag) => this.commands.zcard(`${tag}:rooms`))),
      this.clients.run(this.commands, countLeasesScript, [this.keys.instances], []),
    ]);
    const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
    return {
      connections: sum(counts.map(([connections]) => Number(connections ?? 0))),
      users: sum(counts.map(([, users]) => Number(users ?? 0))),
      rooms: sum(rooms),
      instances: Number(instances),
    };
  }

  async stop(): Promise<void> {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    if (this.commands.status !== 'ready') return;
    try {
      await this.clients.run(
        this.commands,
        handBackScript,
        [this.keys.instances, this.keys.leases],
        [this.lease, this.options.graceMs],
      );
    } catch (error) {
      // The lease ends by itself.
      this.logger.warn(`the lease was not handed back: ${String(error)}`);
    }
  }

  /** In a cluster a call stays in one slot, so batches are by partition; the entries of a user and scope keep their order. */
  private batches(entries: readonly PresenceEntry[]): Batch[] {
    const batches: Batch[] = [];
    const open = new Map<number, Batch>();
    for (const entry of entries) {
      const { scope, userId } = entry;
      const partition = partitionOf(scope === 'cluster' ? userChannel(userId) : scope);
      const group = this.clients.sharded ? partition : 0;
      let batch = open.get(group);
      if (batch === undefined || batch.entries.length >= BATCH_ENTRIES) {
        batch = { partition, entries: [], keys: [] };
        open.set(group, batch);
        batches.push(batch);
      }
      batch.entries.push(entry);
      batch.keys.push(this.entriesKey(partition, this.lease));
    }
    return batches;
  }

  private async writeBatch({ partition, entries, keys }: Batch): Promise<void> {
    const { announceMembersMax, announceUsers } = this.options;
    const rows: (string | number)[] = [];
    for (const { scope, userId, name, connections, announce } of entries) {
      const isTold = announce && (scope !== 'cluster' || announceUsers);
      // Redis can't read half of a surrogate pair.
      rows.push(scope, userId, name?.toWellFormed() ?? '', connections ?? -1, isTold ? 1 : 0);
    }
    await this.clients.run(this.commands, presenceWriteScript, keys, [
      this.clients.announce,
      announceMembersMax,
      this.webhooksOf(partition),
      JSON.stringify(rows),
    ]);
  }

  private webhooksOf(partition: number): string {
    return this.options.webhooks ? this.keys.webhooks(partition, this.clients.sharded) : '';
  }

  private entriesKey(partition: number, lease: string): string {
    return `${this.keys.tag(partition)}:entries:${lease}`;
  }

  private async tick(): Promise<void> {
    if (this.working) return;
    this.working = true;
    try {
      await this.renew();
      await this.reapEnded();
    } catch (error) {
      this.steadySinceMs = Infinity;
      this.logger.warn(
        `the lease was not renewed: ${error instanceof Error ? error.message : String(error)}`,
      );
    } finally {
      this.working = false;
    }
  }

  private async renew(): Promise<void> {
    if (this.steadySinceMs === Infinity) await this.clients.loadScripts(this.commands, SCRIPTS);
    const first = this.renewedAtMs === -Infinity;
    const known = await this.clients.run(
      this.commands,
      renewScript,
      [this.keys.instances, this.keys.leases],
      [this.lease, LEASE_MS],
    );
    const nowMs = performance.now();
    // A pause of our own may have let other leases end that are only late: see them renew before judging them.
    if (this.steadySinceMs === Infinity || nowMs - this.renewedAtMs > 2 * RENEW_MS)
      this.steadySinceMs = nowMs;
    this.renewedAtMs = nowMs;
    if (first || known === 1) {
      if (first) this.onLost(false);
      return;
    }
    const reaped = (await this.commands.get(this.keys.reaped(this.lease))) !== null;
    // The old lease is left to end: whatever is still written under it is reaped with it.
    const old = this.lease;
    this.leases += 1;
    this.lease = `${this.options.instance}/${this.leases}`;
    await this.clients.run(
      this.commands,
      renewScript,
      [this.keys.instances, this.keys.leases],
      [this.lease, LEASE_MS],
    );
    await this.commands.zrem(this.keys.instances, old);
    this.logger.warn(
      `the lease was ${reaped ? 'reaped' : 'lost'}: entering everybody again as ${this.lease}`,
    );
    this.onLost(reaped);
  }

  private async reapEnded(): Promise<void> {
    if (performance.now() - this.steadySinceMs < LEASE_MS) return;
    const ended = await this.clients.run(this.commands, endedScript, [this.keys.leases], []);
    if (!Array.isArray(ended)) return;
    for (const lease of ended.map(String)) if (lease !== this.lease) await this.reap(lease);
  }

  private async reap(lease: string): Promise<void> {
    const lock = `${this.keys.reaped(lease)}:lock`;
    const holder = `${this.lease} ${randomBytes(4).toString('hex')}`;
    if ((await this.commands.set(lock, holder, 'PX', REAP_LOCK_MS, 'NX')) === null) return;
    // First the mark: an instance that was only frozen finds it and enters its users under a new lease.
    await this.commands.set(this.keys.reaped(lease), '1', 'EX', REAPED_TTL_S);
    let taken = 0;
    for (let partition = 0; partition < PARTITIONS; partition += 1)
      taken += await this.reapPartition(partition, lease);
    await Promise.all([
      this.commands.zrem(this.keys.leases, lease),
      this.commands.zrem(this.keys.instances, lease),
    ]);
    await this.clients.run(this.commands, unlockScript, [lock], [holder]);
    this.logger.log(`reaped the lease ${lease}: ${taken} entries`);
  }

  private async reapPartition(partition: number, lease: string): Promise<number> {
    let taken = 0;
    for (;;) {
      const count = await this.clients.run(
        this.commands,
        presenceReapScript,
        [this.entriesKey(partition, lease)],
        [
          this.keys.tag(partition),
          this.options.announceUsers ? this.clients.announce : '',
          this.clients.announce,
          this.options.announceMembersMax,
          this.webhooksOf(partition),
        ],
      );
      if (count === 0) return taken;
      taken += Number(count);
    }
  }
}
