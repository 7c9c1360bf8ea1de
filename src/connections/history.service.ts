import { Injectable } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import { AckedPositions } from '../core/acked-positions.js';
import { Broker } from '../core/broker.js';
import type { Connection } from '../core/connection.js';
import { eventText } from '../core/event-body.js';
import type { FieldProblem } from '../protocol/errors.js';
import { ProtocolError } from '../protocol/errors.js';
import type { Ref } from '../protocol/messages.js';
import { jsonText } from '../protocol/messages.js';
import { roomChannel } from '../protocol/names.js';
import { orUnavailable } from './rooms.service.js';

/** Reads what a channel has kept, and remembers how far a user has read it. */
@Injectable()
export class HistoryService {
  constructor(
    private readonly broker: Broker,
    private readonly acked: AckedPositions,
    private readonly settings: Settings,
  ) {}

  /** Sends the `history` reply: the events as they were stored, put together without being parsed. */
  async send(
    connection: Connection,
    room: string,
    before: number | null,
    limit: number,
    ref: Ref | undefined,
  ): Promise<void> {
    const channel = roomChannel(room);
    // One reply must never fill the send queue of a client that reads.
    const limits = { events: limit, bytes: this.settings.SLOW_CONSUMER_BYTES / 2 };
    const page = this.broker.isDurable(channel)
      ? await orUnavailable(
          this.broker.before(channel, before, limits),
          'History is not available; try again.',
        )
      : { events: [], more: false, epoch: null };
    const start = jsonText({ event: 'history', ...(ref === undefined ? {} : { ref }), room }).slice(0, -1);
    const events = page.events.map(eventText).join(',');
    connection.sendText(`${start},"events":[${events}],"more":${page.more},"epoch":${jsonText(page.epoch)}}`);
  }

  /** Remembers the user's position in a channel. */
  async acknowledge(userId: string, channel: string, id: number, epoch: string | undefined): Promise<void> {
    if (!this.broker.isDurable(channel)) throw refused('room', 'is ephemeral: there is no position in it');
    const remembered = this.acked.remember(channel, userId, id, epoch);
    const verdict = await orUnavailable(remembered, 'The position was not remembered; try again.');
    if (verdict === 'other_epoch') throw refused('epoch', 'is not the epoch of the channel');
    if (verdict === 'ahead') throw refused('last_event_id', 'is ahead of the channel');
  }
}

function refused(field: string, problem: string): ProtocolError {
  const details: FieldProblem[] = [{ field, problem }];
  return new ProtocolError('invalid_message', undefined, { details });
}
