import { Get, Header, Param, Query } from '@nestjs/common';
import { Scope } from '../auth/api-key.guard.js';
import { Broker } from '../core/broker.js';
import type { PresencePage, RoomsPage } from '../core/presence-store.js';
import { PresenceStore } from '../core/presence-store.js';
import { eventText } from '../core/event-body.js';
import { jsonText } from '../protocol/messages.js';
import { roomChannel } from '../protocol/names.js';
import { ApiController } from './api-controller.js';
import { HistoryQuery, MembersQuery, RoomParams, RoomsQuery } from './dto/api.dto.js';

const DEFAULT_PAGE = 100;
const DEFAULT_HISTORY = 50;
const MAX_HISTORY_BYTES = 4 * 1024 * 1024;

export interface RoomAnswer {
  room: string;
  members: number;
  connections: number;
  last_event_id: number | null;
  epoch: string | null;
}

/** Looking into rooms from backends. */
@ApiController('rooms')
@Scope('read')
export class RoomsController {
  constructor(
    private readonly broker: Broker,
    private readonly presence: PresenceStore,
  ) {}

  @Get()
  list(@Query() { limit, cursor }: RoomsQuery): Promise<RoomsPage> {
    return this.presence.rooms(limit ?? DEFAULT_PAGE, cursor);
  }

  @Get(':room')
  async read(@Param() { room }: RoomParams): Promise<RoomAnswer> {
    const channel = roomChannel(room);
    const [counts, head] = await Promise.all([
      this.presence.counts(room),
      this.broker.isDurable(channel) ? this.broker.head(channel) : null,
    ]);
    return { room, ...counts, last_event_id: head?.id ?? null, epoch: head?.epoch ?? null };
  }

  @Get(':room/presence')
  async members(
    @Param() { room }: RoomParams,
    @Query() { limit, cursor }: MembersQuery,
  ): Promise<PresencePage & { room: string }> {
    return { room, ...(await this.presence.page(room, limit ?? DEFAULT_PAGE, cursor)) };
  }

  /** The events are text already: they are put into the answer without being parsed. */
  @Get(':room/history')
  @Header('Content-Type', 'application/json; charset=utf-8')
  async history(@Param() { room }: RoomParams, @Query() { before, limit }: HistoryQuery): Promise<string> {
    const channel = roomChannel(room);
    const limits = { events: limit ?? DEFAULT_HISTORY, bytes: MAX_HISTORY_BYTES };
    const page = this.broker.isDurable(channel)
      ? await this.broker.before(channel, before ?? null, limits)
      : { events: [], more: false, epoch: null };
    const events = page.events.map(eventText).join(',');
    return `{"room":${jsonText(room)},"events":[${events}],"more":${page.more},"epoch":${jsonText(page.epoch)}}`;
  }
}
