import { BrokerUnavailable } from '../core/broker.js';
import type { InboundRecord } from '../core/inbound.js';
import { Inbound } from '../core/inbound.js';
import { compilePattern } from '../protocol/names.js';
import type { RedisClients } from './redis-clients.js';
import { reach } from './redis-clients.js';
import { inboundScript } from './scripts/inbound.js';

export interface InboundOptions {
  /** The literal key: workers name it as it is. */
  stream: string;
  /** Patterns of channels; none: all. */
  channels: readonly string[] | undefined;
  maxLength: number;
}

/** Client messages in a Redis Stream, for consumer groups. */
export class RedisInbound extends Inbound {
  private readonly patterns: readonly ((channel: string) => boolean)[] | null;
  private isFull = false;
  private looking: Promise<void> | null = null;

  constructor(
    private readonly clients: RedisClients,
    private readonly options: InboundOptions,
  ) {
    super();
    this.patterns = options.channels?.map(compilePattern) ?? null;
    clients.commands.on('ready', () => {
      this.isFull = false;
    });
  }

  takes(channel: string): boolean {
    return this.patterns?.some((matches) => matches(channel)) ?? true;
  }

  async admit(): Promise<void> {
    if (!this.isFull) return;
    // All that come meanwhile wait for one look, so none overtakes another.
    this.looking ??= this.look().finally(() => {
      this.looking = null;
    });
    await this.looking;
  }

  private async look(): Promise<void> {
    const length = await reach(this.clients.commands.xlen(this.options.stream));
    if (length >= this.options.maxLength) throw new BrokerUnavailable('the inbound stream is full');
    this.isFull = false;
  }

  async append(record: InboundRecord): Promise<void> {
    const { user, connection, channel, event, content, messageId, id, epoch, tsMs } = record;
    const fields = {
      user,
      connection,
      channel,
      event,
      content,
      message_id: messageId ?? '',
      id: id ?? '',
      epoch: epoch ?? '',
      ts: tsMs,
    };
    const length = await this.clients.run(
      this.clients.commands,
      inboundScript,
      [this.options.stream],
      [this.options.maxLength, ...Object.entries(fields).flat()],
    );
    this.isFull = Number(length) === -1 || Number(length) >= this.options.maxLength;
    if (length === -1) throw new BrokerUnavailable('the inbound stream is full');
  }
}
