import type {
  ClusterTotals,
  PresenceEntry,
  PresencePage,
  PresenceScope,
  RoomCounts,
  RoomsPage,
} from '../core/presence-store.js';
import { presenceNotice, PresenceStore } from '../core/presence-store.js';
import { BROADCAST } from '../protocol/names.js';
import type { MemoryBroker } from './memory-broker.js';
import type { MemoryWebhookOutbox } from './memory-webhook-outbox.js';

export interface MemoryPresenceOptions {
  announceUsers: boolean;
  announceMembersMax: number;
  /** Where changes are kept for the backend. */
  webhooks?: MemoryWebhookOutbox;
}

interface Present {
  connections: number;
  name: string | undefined;
}

/** Presence of the one instance there is: the instance's own entries are the cluster's. */
export class MemoryPresence extends PresenceStore {
  private readonly scopes = new Map<PresenceScope, Map<string, Present>>();

  constructor(
    private readonly broker: MemoryBroker,
    private readonly options: MemoryPresenceOptions,
  ) {
    super();
  }

  start(onLost: (reaped: boolean) => void): void {
    onLost(false);
  }

  async write(entries: readonly PresenceEntry[]): Promise<void> {
    for (const entry of entries) this.writeOne(entry);
  }

  async page(room: string, limit: number, cursor: string | undefined): Promise<PresencePage> {
    const users = [...(this.scopes.get(`room:${room}`) ?? [])].sort(([a], [b]) =>
      Buffer.compare(Buffer.from(a), Buffer.from(b)),
    );
    const after = cursor === undefined ? null : Buffer.from(cursor, 'base64url');
    const start =
      after === null ? 0 : users.findIndex(([userId]) => Buffer.compare(Buffer.from(userId), after) > 0);
    const page = start === -1 ? [] : users.slice(start, start + limit);
    const last = page.at(-1);
    const more = start !== -1 && start + limit < users.length && last !== undefined;
    return {
      count: users.length,
      members: page.map(([user_id, { name, connections }]) => ({
        user_id,
        ...(name === undefined ? {} : { name }),
        connections,
      })),
      ...(more ? { cursor: Buffer.from(last[0], 'utf8').toString('base64url') } : {}),
    };
  }

  async rooms(limit: number, cursor: string | undefined): Promise<RoomsPage> {
    const names = this.openRooms();
    const after = cursor === undefined ? '' : Buffer.from(cursor, 'base64url').toString('utf8');
    const rest = names.sort().filter((room) => room > after);
    const last = rest[limit - 1];
    return {
      rooms: rest
        .slice(0, limit)
        .map((room) => ({ room, members: this.scopes.get(`room:${room}`)?.size ?? 0 })),
      ...(rest.length > limit && last !== undefined
        ? { cursor: Buffer.from(last).toString('base64url') }
        : {}),
    };
  }

  async counts(room: string): Promise<RoomCounts> {
    const users = [...(this.scopes.get(`room:${room}`)?.values() ?? [])];
    return {
      members: users.length,
      connections: users.reduce((total, { connections }) => total + connections, 0),
    };
  }

  async totals(): Promise<ClusterTotals> {
    const users = this.open('cluster');
    const rooms = this.openRooms();
    return {
      connections: users.reduce((total, { connections }) => total + connections, 0),
      users: users.length,
      rooms: rooms.length,
      instances: 1,
    };
  }

  async stop(): Promise<void> {
    this.scopes.clear();
  }

  private open(scope: PresenceScope): Present[] {
    return [...(this.scopes.get(scope)?.values() ?? [])].filter(({ connections }) => connections > 0);
  }

  /** Rooms with an open connection. */
  private openRooms(): string[] {
    const scopes = [...this.scopes.keys()].filter(
      (scope) => scope !== 'cluster' && this.open(scope).length > 0,
    );
    return scopes.map((scope) => scope.slice(5));
  }

  private writeOne({ scope, userId, name, connections, announce }: PresenceEntry): void {
    const users = this.scopes.get(scope) ?? new Map<string, Present>();
    const known = users.get(userId);
    if (connections === null) {
      if (known === undefined) return;
      const members = users.size;
      users.delete(userId);
      if (users.size === 0) this.scopes.delete(scope);
      if (scope === 'cluster') this.options.webhooks?.add('user.disconnected', { user_id: userId });
      else if (members === 1) this.options.webhooks?.add('room.vacated', { room: scope.slice(5) });
      if (announce) this.notify(scope, userId, false, members);
      return;
    }
    users.set(userId, { connections, name: name ?? known?.name });
    this.scopes.set(scope, users);
    if (known === undefined && scope === 'cluster')
      this.options.webhooks?.add('user.connected', { user_id: userId });
    else if (known === undefined && users.size === 1)
      this.options.webhooks?.add('room.occupied', { room: scope.slice(5) });
    if (known === undefined && announce) this.notify(scope, userId, true, users.size);
  }

  private notify(scope: PresenceScope, userId: string, present: boolean, members: number): void {
    if (scope === 'cluster' ? !this.options.announceUsers : members > this.options.announceMembersMax) return;
    this.broker.announce({
      channel: scope === 'cluster' ? BROADCAST : scope,
      position: null,
      exclude: scope === 'cluster' ? `user:${userId}` : '',
      body: Buffer.from(presenceNotice(scope, userId, present), 'utf8'),
    });
  }
}
