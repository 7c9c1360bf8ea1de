import type { PresenceMember } from '../protocol/messages.js';

/** Where users are present: in the cluster as a whole, or in one room. */
export type PresenceScope = 'cluster' | `room:${string}`;

/** What one user has in one scope on this instance. */
export interface PresenceEntry {
  scope: PresenceScope;
  userId: string;
  name: string | undefined;
  /** Open connections, 0 while a lost one is in its grace; null: not there (any more). */
  connections: number | null;
  /** Tell the others if this is the user's first or last entry in the cluster. */
  announce: boolean;
}

export interface ClusterTotals {
  connections: number;
  users: number;
  rooms: number;
  instances: number;
}

export interface PresencePage {
  /** Users in the room, over all instances and pages. */
  count: number;
  members: PresenceMember[];
  /** Where the next page begins; absent on the last one. */
  cursor?: string;
}

export interface RoomsPage {
  rooms: { room: string; members: number }[];
  cursor?: string;
}

export interface RoomCounts {
  /** Users, over all instances. */
  members: number;
  connections: number;
}

/**
 * Who is where, over all instances. Entries are absolute, so writing one twice changes nothing; those of an instance
 * that died go with its lease. The write that makes a user's first entry in a scope, or takes the last, announces it.
 * Rejects with `BrokerUnavailable` when it can't be written.
 */
export abstract class PresenceStore {
  /**
   * Takes the instance's lease and keeps it. `onLost` is called when this instance's entries are not stored (any more):
   * all have to be written again, announced where `reaped` says that the others were told that they are gone.
   */
  abstract start(onLost: (reaped: boolean) => void): void;
  abstract write(entries: readonly PresenceEntry[]): Promise<void>;
  abstract page(room: string, limit: number, cursor: string | undefined): Promise<PresencePage>;
  /** The rooms that somebody is in, in a fixed order. */
  abstract rooms(limit: number, cursor: string | undefined): Promise<RoomsPage>;
  abstract counts(room: string): Promise<RoomCounts>;
  abstract totals(): Promise<ClusterTotals>;
  /** Gives the lease back; the entries must have been removed before. */
  abstract stop(): Promise<void>;
}

/** What the others are told when a user comes to or goes from a scope: the event without its closing brace. */
export function presenceNotice(scope: PresenceScope, userId: string, present: boolean): string {
  const user = JSON.stringify(userId);
  if (scope === 'cluster')
    return `{"event":"user_${present ? 'connected' : 'disconnected'}","user_id":${user}`;
  return `{"event":"user_${present ? 'joined' : 'left'}","user_id":${user},"room":${JSON.stringify(scope.slice(5))}`;
}
