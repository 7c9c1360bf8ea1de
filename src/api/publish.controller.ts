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
  publish(@Body() publication: PublicationDto): Promise<PublishedAnswer> {
    return this.publishOne(publication);
  }

  /** In order; a bad one does not stop the others. */
  @Post('batch')
  @HttpCode(200)
  async publishBatch(@Body() { messages }: BatchDto): Promise<{ results: BatchResult[] }> {
    const results = await Promise.all(
      messages.map(async (message): Promise<BatchResult> => {
        try {
          const input = typeof message === 'object' && message !== null ? message : {};
          return await this.publishOne(readDto(PublicationDto, input));
        } catch (error) {
          return { error: resultOf(error) };
        }
      }),
    );
    return { results };
  }

  private async publishOne(publication: PublicationDto): Promise<PublishedAnswer> {
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
    const { position, duplicate } = await this.publisher.publish({
      channel,
      body,
      ...(excluded !== undefined ? { exclude: `connection:${excluded}` } : {}),
      // Apart from what clients send: a backend's message_id never meets a user's.
      ...(messageId === undefined ? {} : { idempotency: { scope: `api ${from ?? ''}`, key: messageId } }),
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
