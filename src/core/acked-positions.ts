import type { Position } from '../protocol/messages.js';

/** How long a user's position is remembered after it was acknowledged last. */
export const ACKED_TTL_MS = 30 * 24 * 3600 * 1000;

/** Why a position was not taken: it is of another epoch than the channel's, or ahead of the channel. */
export type AckVerdict = 'taken' | 'other_epoch' | 'ahead';

/**
 * How far each user has acknowledged each durable channel, over all devices. Within an epoch the highest id wins.
 * Rejects with `BrokerUnavailable`.
 */
export abstract class AckedPositions {
  /** Without an epoch the channel's present one is meant. */
  abstract remember(
    channel: string,
    userId: string,
    id: number,
    epoch: string | undefined,
  ): Promise<AckVerdict>;
  abstract recall(channel: string, userId: string): Promise<Position | null>;
}
