import { UseFilters, UseGuards, UsePipes } from '@nestjs/common';
import type { OnGatewayConnection, OnGatewayDisconnect } from '@nestjs/websockets';
import { ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { JwtStrategy } from '../auth/jwt.strategy.js';
import { channelOf, Requires, WsAuthGuard } from '../auth/ws-auth.guard.js';
import type { ResumePoint, ResumeRequest } from '../connections/connections.service.js';
import { ConnectionsService } from '../connections/connections.service.js';
import { HistoryService } from '../connections/history.service.js';
import type { ClientPublication } from '../connections/publisher.service.js';
import { PublisherService } from '../connections/publisher.service.js';
import { RoomsService } from '../connections/rooms.service.js';
import type { Publication } from '../core/broker.js';
import { Connection } from '../core/connection.js';
import { chatBody, textBody } from '../core/event-body.js';
import { ProtocolError } from '../protocol/errors.js';
import type { AckReply, PongReply, PresenceReply } from '../protocol/messages.js';
import { jsonText } from '../protocol/messages.js';
import { BROADCAST, roomChannel, userChannel } from '../protocol/names.js';
import { AuthDto } from './dto/auth.dto.js';
import { ChatDto, DirectMessageDto, PublishDto, RoomMessageDto } from './dto/publish.dto.js';
import { AckEventsDto, HistoryDto, JoinRoomDto, PresenceDto, RoomDto } from './dto/room.dto.js';
import { ErrorFilter } from './error.filter.js';
import { MessagePipe } from './message.pipe.js';
import { InOrder, MessageRef, PLAIN_TEXT } from './message-decorators.js';

const DEFAULT_PRESENCE_LIMIT = 100;
const DEFAULT_HISTORY_LIMIT = 50;

/** One method for each message a client may send. The dispatcher gives replies and errors the message's `ref`. */
@WebSocketGateway()
@UseGuards(WsAuthGuard)
@UsePipes(MessagePipe)
@UseFilters(ErrorFilter)
export class RealtimeGateway implements OnGatewayConnection<Connection>, OnGatewayDisconnect<Connection> {
  constructor(
    private readonly connections: ConnectionsService,
    private readonly rooms: RoomsService,
    private readonly publisher: PublisherService,
    private readonly histories: HistoryService,
    private readonly tokens: JwtStrategy,
  ) {}

  handleConnection(connection: Connection, resume: ResumeRequest): void {
    this.connections.open(connection, resume);
  }

  handleDisconnect(connection: Connection): void {
    this.connections.closed(connection);
  }

  @SubscribeMessage('chat')
  @Requires({ action: 'publish', channel: channelOf.roomOrBroadcast })
  chat(
    @ConnectedSocket() connection: Connection,
    @MessageBody() message: ChatDto,
  ): Promise<AckReply> | AckReply {
    const { room } = message;
    if (room !== undefined) return this.toRoom(connection, room, message);
    return this.publish(connection, BROADCAST, message, {}, `connection:${connection.id}`);
  }

  @SubscribeMessage('room_message')
  @Requires({ action: 'publish', channel: channelOf.room })
  roomMessage(
    @ConnectedSocket() connection: Connection,
    @MessageBody() message: RoomMessageDto,
  ): Promise<AckReply> | AckReply {
    return this.toRoom(connection, message.room, message);
  }

  @SubscribeMessage('direct_message')
  @Requires({ action: 'publish', channel: channelOf.target })
  directMessage(
    @ConnectedSocket() connection: Connection,
    @MessageBody() message: DirectMessageDto,
  ): Promise<AckReply> {
    return this.publish(connection, userChannel(message.target_user), message, { direct: true });
  }

  @SubscribeMessage(PLAIN_TEXT)
  @Requires({ action: 'publish', channel: channelOf.broadcast })
  async plainText(@ConnectedSocket() connection: Connection, @MessageBody() text: string): Promise<void> {
    const tsMs = Date.now();
    const { id, userId } = connection;
    await this.publisher.publishFromClient(
      { channel: BROADCAST, body: textBody(userId, text, tsMs) },
      {
        user: userId,
        connection: id,
        event: 'text',
        content: () => jsonText(text),
        messageId: undefined,
        tsMs,
      },
    );
  }

  @SubscribeMessage('join_room')
  @Requires({ action: 'join', channel: channelOf.room })
  joinRoom(
    @ConnectedSocket() connection: Connection,
    @MessageBody() message: JoinRoomDto,
    @MessageRef() ref: string | number | undefined,
  ): Promise<void> | void {
    return this.rooms.join(connection, message.room, resumePoint(message), ref);
  }

  @SubscribeMessage('leave_room')
  leaveRoom(
    @ConnectedSocket() connection: Connection,
    @MessageBody() message: RoomDto,
    @MessageRef() ref: string | number | undefined,
  ): Promise<void> | void {
    return this.rooms.leave(connection, message.room, ref);
  }

  @SubscribeMessage('presence')
  @Requires({ action: 'presence', channel: channelOf.room })
  presence(
    @ConnectedSocket() connection: Connection,
    @MessageBody() message: PresenceDto,
  ): Promise<PresenceReply> | PresenceReply {
    const { room, limit, cursor } = message;
    return this.rooms.asReader(connection, room, () =>
      this.rooms.members(room, limit ?? DEFAULT_PRESENCE_LIMIT, cursor),
    );
  }

  @SubscribeMessage('history')
  @Requires({ action: 'history', channel: channelOf.room })
  history(
    @ConnectedSocket() connection: Connection,
    @MessageBody() message: HistoryDto,
    @MessageRef() ref: string | number | undefined,
  ): Promise<void> | void {
    const { room, before, limit } = message;
    return this.rooms.asReader(connection, room, () =>
      this.histories.send(connection, room, before ?? null, limit ?? DEFAULT_HISTORY_LIMIT, ref),
    );
  }

  @SubscribeMessage('ack_events')
  ackEvents(
    @ConnectedSocket() connection: Connection,
    @MessageBody() message: AckEventsDto,
  ): Promise<AckReply> | AckReply {
    const { room, direct, last_event_id: id, epoch } = message;
    const remember = async (channel: string): Promise<AckReply> => {
      await this.histories.acknowledge(connection.userId, channel, id, epoch ?? undefined);
      return { event: 'ack' };
    };
    if (room !== undefined) return this.rooms.asReader(connection, room, () => remember(roomChannel(room)));
    const channel = direct ? userChannel(connection.userId) : BROADCAST;
    return connection.afterAll(channel, () => remember(channel));
  }

  @SubscribeMessage('auth')
  @InOrder()
  async auth(@ConnectedSocket() connection: Connection, @MessageBody() message: AuthDto): Promise<AckReply> {
    const identity = await this.tokens.identify(message.token);
    if (identity === null) throw new ProtocolError('unauthorized');
    if (identity.userId !== connection.userId)
      throw new ProtocolError('forbidden', 'The token is for another user.');
    connection.identity = identity;
    await this.rooms.recheck(connection);
    return { event: 'ack' };
  }

  @SubscribeMessage('ping')
  ping(): PongReply {
    return { event: 'pong' };
  }

  @SubscribeMessage('pong')
  pong(): void {
    // That it came is all it says, and the connection has noted that.
  }

  private toRoom(connection: Connection, room: string, message: PublishDto): Promise<AckReply> | AckReply {
    return this.rooms.asMember(connection, room, () =>
      this.publish(connection, roomChannel(room), message, { room }),
    );
  }

  private async publish(
    connection: Connection,
    channel: string,
    { content, event, message_id: messageId }: PublishDto,
    address: { room?: string; direct?: true },
    exclude?: string,
  ): Promise<AckReply> {
    const { id: connectionId, userId: from } = connection;
    const tsMs = Date.now();
    const name = event ?? 'chat';
    const { room, direct } = address;
    const publication: Publication = {
      channel,
      body: chatBody({ event: name, from, content, room, direct, messageId }, tsMs),
      exclude,
      idempotency: messageId === undefined ? undefined : { scope: from, key: messageId },
    };
    const message: ClientPublication = {
      user: from,
      connection: connectionId,
      event: name,
      content: () => jsonText(content),
      messageId,
      tsMs,
    };
    let id: number | null = null;
    connection.publishing(channel);
    try {
      const { position, duplicate } = await this.publisher.publishFromClient(publication, message);
      id = position?.id ?? null;
      return { event: 'ack', id: position?.id, duplicate: duplicate || undefined };
    } finally {
      connection.published(channel, id);
    }
  }
}

/** From where a join goes on; null where it names no point. */
function resumePoint({ last_event_id: id, epoch, rewind }: JoinRoomDto): ResumePoint | null {
  if (id === 'acked') return { kind: 'acked' };
  if (typeof id === 'number') return { kind: 'resume', id, epoch: epoch ?? undefined };
  return typeof rewind === 'number' ? { kind: 'rewind', count: rewind } : null;
}
