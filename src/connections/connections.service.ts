import type { OnApplicationBootstrap, OnApplicationShutdown } from '@nestjs/common';
import { Injectable, Logger } from '@nestjs/common';
import { Instance } from '../config/instance.js';
import { Settings } from '../config/settings.js';
import { Broker } from '../core/broker.js';
import type { Connection } from '../core/connection.js';
import { Heartbeat } from '../core/heartbeat.js';
import { Hub } from '../core/hub.js';
import { Telemetry } from '../core/telemetry.js';
import { PresenceService } from '../presence/presence.service.js';
import { CLOSE } from '../protocol/close-codes.js';
import { BROADCAST, roomChannel, userChannel } from '../protocol/names.js';

/** The connections of this instance: opens and closes them, counts them, keeps them alive. */
@Injectable()
export class ConnectionsService implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly hub: Hub;
  private readonly logger = new Logger('Connections');
  private readonly connections = new Set<Connection>();
  private readonly byUser = new Map<string, number>();
  private readonly byAddress = new Map<string, number>();
  private readonly heartbeat: Heartbeat;

  constructor(
    private readonly broker: Broker,
    private readonly presence: PresenceService,
    private readonly telemetry: Telemetry,
    private readonly settings: Settings,
    private readonly instance: Instance,
  ) {
    this.hub = new Hub(broker, telemetry, (error) => this.logger.error(error));
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

  countOfUser(userId: string): number {
    return this.byUser.get(userId) ?? 0;
  }

  countOfAddress(address: string): number {
    return this.byAddress.get(address) ?? 0;
  }

  /** Takes the connection in; it becomes open, or is closed with 1013. Never throws, never rejects. */
  open(connection: Connection): void {
    this.connections.add(connection);
    add(this.byUser, connection.userId, 1);
    add(this.byAddress, connection.address, 1);
    this.telemetry.connectionOpened();
    this.attach(connection).catch((error: unknown) => {
      this.logger.warn(
        `a connection could not be opened: ${error instanceof Error ? error.message : String(error)}`,
      );
      connection.close(CLOSE.tryAgain);
    });
  }

  /** Forgets the connection and everything that it held. */
  closed(connection: Connection): void {
    if (!this.connections.delete(connection)) return;
    const wasPresent = connection.ownChannels.length > 0;
    connection.state = 'closed';
    connection.outbox.close();
    add(this.byUser, connection.userId, -1);
    add(this.byAddress, connection.address, -1);
    for (const [room, channel] of connection.rooms) {
      // A join under way undoes itself.
      if (channel === null) continue;
      channel.members.delete(connection);
      this.hub.release(channel);
      this.presence.leave(`room:${room}`, connection.userId, true);
    }
    connection.rooms.clear();
    for (const channel of connection.ownChannels) {
      channel.members.delete(connection);
      this.hub.release(channel);
    }
    if (wasPresent) this.presence.leave('cluster', connection.userId, true);
    this.telemetry.connectionClosed(connection.closeCode);
  }

  /** Subscribes to what every connection gets, and says `connected`; live events follow it. */
  private async attach(connection: Connection): Promise<void> {
    const names = [BROADCAST, userChannel(connection.userId)];
    const acquired = await Promise.allSettled(names.map((name) => this.hub.acquire(name)));
    const channels = acquired.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    const failed = acquired.find((result) => result.status === 'rejected');
    if (failed !== undefined || connection.isGone) {
      for (const channel of channels) this.hub.release(channel);
      if (failed !== undefined) throw failed.reason;
      return;
    }
    const [broadcast, direct] = channels;
    connection.ownChannels.push(...channels);
    connection.state = 'open';
    connection.send({
      event: 'connected',
      connection_id: connection.id,
      user_id: connection.userId,
      instance: this.instance.name,
      last_event_id: broadcast?.position?.id ?? null,
      epoch: broadcast?.position?.epoch ?? null,
      last_direct_event_id: direct?.position?.id ?? null,
      direct_epoch: direct?.position?.epoch ?? null,
      recovered: false,
      heartbeat_ms: this.settings.HEARTBEAT_INTERVAL_MS,
      max_message_bytes: this.settings.MAX_MESSAGE_BYTES,
    });
    for (const channel of channels) channel.members.add(connection);
    this.presence.enter('cluster', connection);
    this.heartbeat.schedule(connection);
    connection.lastSeenMs = performance.now();
    connection.pause(false);
  }

  /** Takes the connection out of a room, at once. */
  leaveRoom(connection: Connection, room: string): void {
    const channel = connection.rooms.get(room);
    if (channel === undefined || channel === null) return;
    connection.rooms.delete(room);
    channel.members.delete(connection);
    this.hub.release(channel);
    this.presence.leave(`room:${room}`, connection.userId, false);
  }

  /** Puts the connection into a room that it is not in; `onMember` runs in the step that makes it one. */
  async enterRoom(connection: Connection, room: string, onMember: () => void): Promise<void> {
    connection.rooms.set(room, null);
    const channel = await this.hub.acquire(roomChannel(room)).catch((error: unknown) => {
      connection.rooms.delete(room);
      throw error;
    });
    if (connection.isGone) {
      this.hub.release(channel);
      return;
    }
    connection.rooms.set(room, channel);
    onMember();
    channel.members.add(connection);
    this.presence.enter(`room:${room}`, connection);
  }
}

function add(counts: Map<string, number>, key: string, by: number): void {
  const count = (counts.get(key) ?? 0) + by;
  if (count > 0) counts.set(key, count);
  else counts.delete(key);
}
