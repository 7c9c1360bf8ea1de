import type { AckVerdict } from '../core/acked-positions.js';
import { ACKED_TTL_MS, AckedPositions } from '../core/acked-positions.js';
import type { Broker } from '../core/broker.js';
import { continues } from '../core/position.js';
import type { Position } from '../protocol/messages.js';

/** Remembered positions; the one that was acknowledged longest ago is forgotten. */
const MAX_POSITIONS = 100_000;

export class MemoryAckedPositions extends AckedPositions {
  private readonly positions = new Map<string, { position: Position; untilMs: number }>();

  constructor(
    private readonly broker: Broker,
    private readonly nowMs: () => number = () => performance.now(),
  ) {
    super();
  }

  async remember(
    channel: string,
    userId: string,
    id: number,
    epoch: string | undefined,
  ): Promise<AckVerdict> {
    const head = await this.broker.head(channel);
    if (epoch !== undefined && !continues({ epoch, id }, head.epoch)) return 'other_epoch';
    if (id > head.id) return 'ahead';
    const key = JSON.stringify([channel, userId]);
    const known = this.positions.get(key)?.position;
    const highest = known?.epoch === head.epoch ? Math.max(known.id, id) : id;
    this.positions.delete(key);
    this.positions.set(key, {
      position: { epoch: head.epoch, id: highest },
      untilMs: this.nowMs() + ACKED_TTL_MS,
    });
    if (this.positions.size > MAX_POSITIONS) {
      const [oldest] = this.positions.keys();
      if (oldest !== undefined) this.positions.delete(oldest);
    }
    return 'taken';
  }

  async recall(channel: string, userId: string): Promise<Position | null> {
    const found = this.positions.get(JSON.stringify([channel, userId]));
    return found === undefined || found.untilMs <= this.nowMs() ? null : found.position;
  }
}
