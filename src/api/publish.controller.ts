import { Body, HttpCode, PayloadTooLargeException, Post, UseInterceptors } from '@nestjs/common';
import { Scope } from '../auth/api-key.guard.js';
import { Settings } from '../config/settings.js';
import { PublisherService } from '../connections/publisher.service.js';
import { chatBody } from '../core/event-body.js';
import { ProtocolError } from '../protocol/errors.js';
import { jsonText } from '../protocol/messages.js';
import { channelFields } from '../protocol/names.js';
import { readDto } from '../validation/read-dto.js';
import { ApiController } from './api-controller.js';
import { CallKey } from './call-key.js';
import { BatchDto, PublicationDto } from './dto/api.dto.js';
import { IdempotencyInterceptor } from './idempotency.interceptor.js';

export interface PublishedAnswer {
  id?: number;
  epoch?: string;
  duplicate?: true;
}

export type BatchResult = PublishedAnswer | { error: { code: string; message: string; details?: unknown } };

/** Publishing from backends. */
@ApiController('publish')
@Scope('publish')
@UseInterceptors(IdempotencyInterceptor)
export class PublishController {
  constructor(
    private readonly publisher: PublisherService,
    private readonly settings: Settings,
  ) {}

  @Post()
  @HttpCode(200)
  publish(@Body() publication: PublicationDto, @CallKey() callKey: CallKey | null): Promise<PublishedAnswer> {
    return this.publishOne(publication, callKey);
  }

  /** In order; a bad one does not stop the others. */
  @Post('batch')
  @HttpCode(200)
  async publishBatch(
    @Body() { messages }: BatchDto,
    @CallKey() callKey: CallKey | null,
  ): Promise<{ results: BatchResult[] }> {
    const results = await Promise.all(
      messages.map(async (message, index): Promise<BatchResult> => {
        try {
          const input = typeof message === 'object' && message !== null ? message : {};
          return await this.publishOne(
            readDto(PublicationDto, input),
            callKey === null ? null : { ...callKey, key: `${index} ${callKey.key}` },
          );
        } catch (error) {
          return { error: resultOf(error) };
        }
      }),
    );
    return { results };
  }

  /** Without a `message_id` the call's key makes it one event, also where its first answer was lost. */
  private async publishOne(publication: PublicationDto, callKey: CallKey | null): Promise<PublishedAnswer> {
    const {
      channel,
      content,
      event,
      from,
      message_id: messageId,
      exclude_connection: excluded,
    } = publication;
    if (Buffer.byteLength(jsonText(content)) > this.settings.MAX_MESSAGE_BYTES) {
      throw new PayloadTooLargeException(`content is larger than ${this.settings.MAX_MESSAGE_BYTES} bytes.`);
    }
    const body = chatBody(
      {
        event: event ?? 'chat',
        from,
        content,
        ...channelFields(channel),
        ...(messageId === undefined ? {} : { messageId }),
      },
      Date.now(),
    );
    // Apart from what clients send: a backend's message_id never meets a user's.
    const idempotency = messageId === undefined ? callKey : { scope: `api ${from ?? ''}`, key: messageId };
    const { position, duplicate } = await this.publisher.publish({
      channel,
      body,
      ...(excluded !== undefined ? { exclude: `connection:${excluded}` } : {}),
      ...(idempotency === null ? {} : { idempotency }),
    });
    return { ...(position === null ? {} : position), ...(duplicate ? { duplicate: true as const } : {}) };
  }
}

function resultOf(error: unknown): { code: string; message: string; details?: unknown } {
  if (error instanceof ProtocolError) {
    const { details } = error.extra;
    return { code: error.code, message: error.message, ...(details === undefined ? {} : { details }) };
  }
  if (error instanceof PayloadTooLargeException) return { code: 'invalid_message', message: error.message };
  throw error;
}
