import type { OnApplicationBootstrap, OnApplicationShutdown } from '@nestjs/common';
import { Injectable, Logger } from '@nestjs/common';
import { Instance } from '../config/instance.js';
import { Settings } from '../config/settings.js';
import { AckedPositions } from '../core/acked-positions.js';
import { Broker, BrokerUnavailable } from '../core/broker.js';
import type { Channel } from '../core/channel.js';
import { monotonicMs } from '../core/clock.js';
import type { Connection } from '../core/connection.js';
import { Heartbeat } from '../core/heartbeat.js';
import type { Entry } from '../core/hub.js';
import { Hub } from '../core/hub.js';
import type { ReplayOutcome, ReplayStart } from '../core/replay.js';
import { Telemetry } from '../core/telemetry.js';
import { Turn } from '../core/turn.js';
import { PresenceService } from '../presence/presence.service.js';
import { CLOSE } from '../protocol/close-codes.js';
import type { Position } from '../protocol/messages.js';
import { BROADCAST, roomChannel, userChannel } from '../protocol/names.js';
import { Quota } from './quota.js';

/** The point a client names: its last event, the last n of them, or what it acknowledged last on any device. */
export type ResumePoint = ReplayStart | { kind: 'acked' };

/** What the query of an upgrade asks to go on from. */
export interface ResumeRequest {
  broadcast: ResumePoint | null;
  direct: ResumePoint | null;
}

interface Attached {
  channel: Channel;
  entry: Entry;
  /** Whether the client has named a point to go on from. */
  asked: boolean;
}

/** Says that the room was joined: what of a replay is to come, or where the room is. */
export type RoomReply = (outcome: ReplayOutcome | null, position: Position | null) => void;

/** The connections of this instance: opens and closes them, counts them, keeps them alive. */
@Injectable()
export class ConnectionsService implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly hub: Hub;
  readonly ofEachUser: Quota;
  readonly ofEachAddress: Quota;
  private readonly logger = new Logger('Connections');
  private readonly connections = new Set<Connection>();
  private readonly heartbeat: Heartbeat;

  constructor(
    private readonly broker: Broker,
    private readonly acked: AckedPositions,
    private readonly presence: PresenceService,
    private readonly telemetry: Telemetry,
    private readonly settings: Settings,
    private readonly instance: Instance,
    turn: Turn,
  ) {
    this.ofEachUser = new Quota(settings.MAX_CONNECTIONS_PER_USER);
    this.ofEachAddress = new Quota(settings.MAX_CONNECTIONS_PER_IP);
    this.hub = new Hub(broker, telemetry, turn, (error) => this.logger.error(error));
    this.heartbeat = new Heartbeat(
      { intervalMs: settings.HEARTBEAT_INTERVAL_MS, timeoutMs: settings.HEARTBEAT_TIMEOUT_MS },
      this.connections,
    );
  }

  get count(): number {
    return this.connections.size;
  }

  onApplicationBootstrap(): void {
    this.broker.start(this.hub);
    this.presence.start();
    this.heartbeat.start();
  }

  onApplicationShutdown(): void {
    this.heartbeat.stop();
  }

  all(): IterableIterator<Connection> {
    return this.connections.values();
  }

  /** The user's open connections. */
  ofUser(userId: string): Connection[] {
    const channel = this.hub.get(userChannel(userId));
    return channel === undefined
      ? []
      : [...channel.members.list(), ...channel.late].filter(({ isOpen }) => isOpen);
  }

  /**
   * Takes the connection in; it becomes open, or is closed: with 1013 where the broker is away, with 1011 where something
   * is wrong here. Never throws, never rejects.
   */
  open(connection: Connection, resume: ResumeRequest): void {
    this.connections.add(connection);
    this.ofEachUser.take(connection.userId);
    this.ofEachAddress.take(connection.address);
    this.telemetry.connectionOpened();
    this.attach(connection, resume).catch((error: unknown) => {
      if (error instanceof BrokerUnavailable) {
        this.logger.warn(`a connection could not be opened: ${error.message}`);
        connection.close(CLOSE.tryAgain);
      } else {
        this.logger.error(error);
        connection.close(CLOSE.internal);
      }
    });
  }

  /** Forgets the connection and everything that it held. */
  closed(connection: Connection): void {
    if (!this.connections.delete(connection)) return;
    const wasPresent = connection.ownChannels.length > 0;
    connection.state = 'closed';
    connection.outbox.close();
    this.ofEachUser.giveBack(connection.userId);
    this.ofEachAddress.giveBack(connection.address);
    for (const [room, channel] of connection.rooms.list()) {
      // A join under way undoes itself.
      if (channel === null) continue;
      channel.remove(connection);
      this.hub.release(channel);
      this.presence.leave(`room:${room}`, connection.userId, true);
    }
    connection.rooms.clear();
    for (const channel of connection.ownChannels) {
      channel.remove(connection);
      this.hub.release(channel);
    }
    if (wasPresent) this.presence.leave('cluster', connection.userId, true);
    this.telemetry.connectionClosed(connection.closeCode);
  }

  /** Subscribes to what every connection gets, and says `connected`; missed and live events follow it. */
  private async attach(connection: Connection, resume: ResumeRequest): Promise<void> {
    const taken = [
      Promise.resolve(this.take(connection, BROADCAST, resume.broadcast)),
      Promise.resolve(this.take(connection, userChannel(connection.userId), resume.direct)),
    ] as const;
    let attached: [Attached, Attached];
    try {
      attached = await Promise.all(taken);
    } catch (error) {
      // The one that failed holds nothing, and its error is the one that is thrown.
      const holdsNothing = (): void => undefined;
      for (const one of taken) one.then((held) => this.abandon(held), holdsNothing);
      throw error;
    }
    if (connection.isGone || connection.identity.expiresAtMs <= Date.now()) {
      for (const held of attached) this.abandon(held);
      // Does nothing where it is gone already.
      connection.close(CLOSE.unauthorized);
      return;
    }
    this.welcome(connection, ...attached);
    this.presence.enter('cluster', connection);
    this.heartbeat.schedule(connection);
    connection.lastSeenMs = monotonicMs();
    connection.pause(false);
  }

  private welcome(connection: Connection, broadcast: Attached, direct: Attached): void {
    const inBroadcast = positionOf(broadcast);
    const inDirect = positionOf(direct);
    const asked = [broadcast, direct].filter((one) => one.asked);
    connection.state = 'open';
    connection.ownChannels = [broadcast.channel, direct.channel];
    connection.send({
      event: 'connected',
      connection_id: connection.id,
      user_id: connection.userId,
      instance: this.instance.name,
      last_event_id: inBroadcast?.id ?? null,
      epoch: inBroadcast?.epoch ?? null,
      last_direct_event_id: inDirect?.id ?? null,
      direct_epoch: inDirect?.epoch ?? null,
      recovered: asked.length > 0 && asked.every(({ entry }) => entry.outcome?.recovered === true),
      heartbeat_ms: this.settings.HEARTBEAT_INTERVAL_MS,
      max_message_bytes: this.settings.MAX_MESSAGE_BYTES,
    });
    broadcast.entry.enter();
    direct.entry.enter();
  }

  /** A hold of the channel, and the way in. Rejects with `BrokerUnavailable`, holding nothing then. */
  private take(
    connection: Connection,
    name: string,
    point: ResumePoint | null,
  ): Attached | Promise<Attached> {
    if (point !== null) return this.takeFrom(connection, name, point);
    const channel = this.hub.acquire(name);
    return channel instanceof Promise
      ? channel.then((opened) => this.takeLive(connection, opened))
      : this.takeLive(connection, channel);
  }

  private takeLive(connection: Connection, channel: Channel): Attached {
    return { channel, entry: this.hub.prepareLive(channel, connection), asked: false };
  }

  private async takeFrom(connection: Connection, name: string, point: ResumePoint): Promise<Attached> {
    const start = await this.startOf(name, connection.userId, point);
    const channel = await this.hub.acquire(name);
    try {
      const entry = await this.hub.prepare(channel, connection, start);
      return { channel, entry, asked: start !== null };
    } catch (error) {
      this.hub.release(channel);
      throw error;
    }
  }

  private abandon({ channel, entry }: Attached): void {
    entry.abandon();
    this.hub.release(channel);
  }

  /** Where a client that names a point goes on; null as if it had named none. Rejects with `BrokerUnavailable`. */
  private async startOf(channel: string, userId: string, point: ResumePoint): Promise<ReplayStart | null> {
    if (point.kind !== 'acked') return point;
    const position = this.broker.isDurable(channel) ? await this.acked.recall(channel, userId) : null;
    return position === null ? null : { kind: 'resume', ...position };
  }

  /** Takes the connection out of a room, at once. */
  leaveRoom(connection: Connection, room: string): void {
    const channel = connection.rooms.get(room);
    if (channel === undefined || channel === null) return;
    connection.rooms.delete(room);
    connection.forgetPublished(channel.name);
    channel.remove(connection);
    this.hub.release(channel);
    this.presence.leave(`room:${room}`, connection.userId, false);
  }

  /**
   * Puts the connection into a room, or a member back to where it wants to go on; `reply` is called in the step that
   * makes it a member, which is this one where the room is open here already. Rejects with `BrokerUnavailable`.
   */
  enterRoom(
    connection: Connection,
    room: string,
    point: ResumePoint | null,
    reply: RoomReply,
  ): void | Promise<void> {
    const member = connection.rooms.get(room) ?? null;
    const attached = this.take(connection, roomChannel(room), point);
    if (!(attached instanceof Promise)) {
      this.enterAttached(connection, room, member, attached, reply);
      return;
    }
    // It counts as one of the connection's rooms from now on.
    if (member === null) connection.rooms.set(room, null);
    return attached.then(
      (held) => {
        if (connection.isGone) this.abandon(held);
        else this.enterAttached(connection, room, member, held, reply);
      },
      (error: unknown) => {
        if (member === null) connection.rooms.delete(room);
        throw error;
      },
    );
  }

  /** `member` is the hold of a connection that is in the room already. */
  private enterAttached(
    connection: Connection,
    room: string,
    member: Channel | null,
    { channel, entry }: Attached,
    reply: RoomReply,
  ): void {
    if (member !== null) {
      channel.remove(connection);
      this.hub.release(channel);
    }
    connection.rooms.set(room, channel);
    reply(entry.outcome, channel.position);
    entry.enter();
    if (member === null) this.presence.enter(`room:${room}`, connection);
  }
}

function positionOf({ channel, entry }: Attached): Position | null {
  return entry.outcome?.position ?? channel.position;
}
