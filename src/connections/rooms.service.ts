import { Injectable } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import { BrokerUnavailable } from '../core/broker.js';
import type { Connection } from '../core/connection.js';
import { PresenceService } from '../presence/presence.service.js';
import { ProtocolError } from '../protocol/errors.js';
import type { PresenceReply, Ref } from '../protocol/messages.js';
import { roomChannel } from '../protocol/names.js';
import type { ResumePoint, RoomReply } from './connections.service.js';
import { ConnectionsService } from './connections.service.js';

/** Joining, leaving and looking into rooms; each room's joins and leaves of a connection take effect in order. */
@Injectable()
export class RoomsService {
  constructor(
    private readonly connections: ConnectionsService,
    private readonly presence: PresenceService,
    private readonly settings: Settings,
  ) {}

  /** Answers `joined_room` in the same step that makes the connection a member: missed and live events follow it. */
  join(
    connection: Connection,
    room: string,
    point: ResumePoint | null,
    ref: Ref | undefined,
  ): void | Promise<void> {
    return connection.change(roomChannel(room), () =>
      this.enter(connection, room, point, (outcome, position) => {
        const at = outcome?.position ?? position;
        connection.send({
          event: 'joined_room',
          ...(ref === undefined ? {} : { ref }),
          room,
          last_event_id: at?.id ?? null,
          epoch: at?.epoch ?? null,
          recovered: outcome?.recovered ?? false,
          replayed: outcome?.replayed ?? 0,
        });
      }),
    );
  }

  private enter(
    connection: Connection,
    room: string,
    point: ResumePoint | null,
    reply: RoomReply,
  ): void | Promise<void> {
    if (connection.isGone) return;
    const member = connection.rooms.get(room);
    if (member && point === null) {
      reply(null, member.position);
      return;
    }
    const placed = connection.placed?.has(room) ?? false;
    if (!member && !placed && connection.rooms.size >= this.settings.MAX_ROOMS_PER_CONNECTION)
      throw new ProtocolError('too_many_rooms');
    const entered = this.connections.enterRoom(connection, room, point, reply);
    if (!(entered instanceof Promise)) return this.letStay(connection, room);
    return orUnavailable(entered, 'The room could not be joined; try again.').then(() =>
      this.letStay(connection, room),
    );
  }

  /** A token that was replaced meanwhile may not allow the room any more. */
  private letStay(connection: Connection, room: string): void | Promise<void> {
    const verdict = this.mayStay(connection, room);
    if (verdict instanceof Promise) {
      return verdict.then((allowed) => {
        if (!allowed) this.expel(connection, room);
      });
    }
    if (!verdict) this.expel(connection, room);
  }

  /** Puts the connection into the room for a backend, whatever its token's rights and limits. */
  async place(connection: Connection, room: string): Promise<void> {
    (connection.placed ??= new Set()).add(room);
    await this.join(connection, room, null, undefined);
  }

  /** Takes it out for a backend. */
  async displace(connection: Connection, room: string): Promise<void> {
    await connection.change(roomChannel(room), async () => {
      connection.placed?.delete(room);
      this.expel(connection, room);
    });
  }

  /** Answers `left_room` in the same step that ends the membership: a join that waits for it is answered after it. */
  leave(connection: Connection, room: string, ref: Ref | undefined): void | Promise<void> {
    const channel = roomChannel(room);
    const end = (): void => this.takeOut(connection, room, ref);
    return connection.change(channel, () => {
      // A member gets its own messages, also those it sent just before it left.
      const delivered = this.connections.hub.delivered(channel, connection.lastPublishedId(channel));
      return delivered instanceof Promise ? delivered.then(end) : end();
    });
  }

  /** Runs `step` after the joins and leaves before it, if the connection is a member then. */
  asMember<T>(connection: Connection, room: string, step: () => T | Promise<T>): T | Promise<T> {
    return connection.after(roomChannel(room), () => ifMember(connection, room, step));
  }

  /** The same, once what the connection has published to the room before can be seen. */
  asReader<T>(connection: Connection, room: string, step: () => T | Promise<T>): T | Promise<T> {
    return connection.afterAll(roomChannel(room), () => ifMember(connection, room, step));
  }

  async members(room: string, limit: number, cursor: string | undefined): Promise<PresenceReply> {
    const page = await orUnavailable(
      this.presence.page(room, limit, cursor),
      'Presence is not available; try again.',
    );
    return { event: 'presence', room, ...page };
  }

  /** Takes the connection out of the rooms that its present token does not allow. */
  async recheck(connection: Connection): Promise<void> {
    const rooms = connection.rooms.list().map(([room]) => room);
    const verdicts = await Promise.all(rooms.map(async (room) => this.mayStay(connection, room)));
    rooms.forEach((room, index) => {
      if (verdicts[index] === false) this.expel(connection, room);
    });
  }

  private mayStay({ identity, placed }: Connection, room: string): boolean | Promise<boolean> {
    return (placed?.has(room) ?? false) || identity.rights.allows('join', roomChannel(room));
  }

  private expel(connection: Connection, room: string): void {
    if (connection.rooms.get(room)) this.takeOut(connection, room, undefined);
  }

  private takeOut(connection: Connection, room: string, ref: Ref | undefined): void {
    this.connections.leaveRoom(connection, room);
    connection.send({ event: 'left_room', ...(ref === undefined ? {} : { ref }), room });
  }
}

function ifMember<T>(connection: Connection, room: string, step: () => T): T {
  if (!connection.rooms.get(room)) throw new ProtocolError('not_in_room');
  return step();
}

export async function orUnavailable<T>(result: Promise<T>, message: string): Promise<T> {
  try {
    return await result;
  } catch (error) {
    throw error instanceof BrokerUnavailable ? new ProtocolError('broker_unavailable', message) : error;
  }
}
