import type { AckVerdict } from '../core/acked-positions.js';
import { ACKED_TTL_MS, AckedPositions } from '../core/acked-positions.js';
import { BrokerUnavailable } from '../core/broker.js';
import type { Position } from '../protocol/messages.js';
import type { RedisClients } from './redis-clients.js';
import { reach } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';
import { encodeUserId, partitionOf } from './redis-keys.js';
import { rememberScript } from './scripts/acked.js';

/** Acknowledged positions beside the channel they are in. */
export class RedisAckedPositions extends AckedPositions {
  constructor(
    private readonly clients: RedisClients,
    private readonly keys: RedisKeys,
  ) {
    super();
  }

  async remember(
    channel: string,
    userId: string,
    id: number,
    epoch: string | undefined,
  ): Promise<AckVerdict> {
    const partition = partitionOf(channel);
    const keys = [
      this.keys.life(partition),
      `${this.keys.channel(partition, channel)}:meta`,
      this.keyOf(channel, userId),
    ];
    const verdict = await this.clients.run(this.clients.commands, rememberScript, keys, [
      id,
      epoch === undefined ? '' : `=${epoch}`,
      ACKED_TTL_MS,
    ]);
    if (verdict !== 'taken' && verdict !== 'other_epoch' && verdict !== 'ahead')
      throw new BrokerUnavailable(verdict);
    return verdict;
  }

  async recall(channel: string, userId: string): Promise<Position | null> {
    const value = await reach(this.clients.commands.get(this.keyOf(channel, userId)));
    const [id, epoch] = value?.split(' ') ?? [];
    return id === undefined || epoch === undefined ? null : { id: Number(id), epoch };
  }

  private keyOf(channel: string, userId: string): string {
    return `${this.keys.channel(partitionOf(channel), channel)}:acked:${encodeUserId(userId)}`;
  }
}
