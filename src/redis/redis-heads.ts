import { BrokerUnavailable } from '../core/broker.js';
import type { Position } from '../protocol/messages.js';
import { addTo, inBatches } from './batches.js';
import type { RedisClients } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';
import { partitionOf } from './redis-keys.js';
import { headsScript } from './scripts/read.js';

/** Channels in one call. */
const BATCH = 256;

interface Asked {
  channel: string;
  resolve: (head: Position) => void;
  reject: (error: unknown) => void;
}

/** How far the channels are, as Redis has it. */
export class RedisHeads {
  private asked: Asked[] = [];
  /** The head that was read last, and its text: that of most channels, since most are quiet. */
  private last = { text: '', position: { epoch: '', id: 0 } };

  constructor(
    private readonly clients: RedisClients,
    private readonly keys: RedisKeys,
    /** A head was asked for, and Redis is not the one that numbered last. */
    private readonly onFenced: () => void,
  ) {}

  /**
   * Those asked for in one turn are read together: whoever connects needs one, and many connect at once. Rejects with
   * `BrokerUnavailable`.
   */
  head(channel: string): Promise<Position> {
    return new Promise((resolve, reject) => {
      if (this.asked.push({ channel, resolve, reject }) === 1) setImmediate(() => this.readAsked());
    });
  }

  /** Tells the heads of many channels, batch by batch; those that can't be read now are left out. */
  async each(channels: readonly string[], onHead: (channel: string, head: Position) => void): Promise<void> {
    for (const batch of inBatches(channels, BATCH)) {
      const heads = await this.readAll(batch);
      batch.forEach((channel, index) => {
        const head = heads[index] ?? null;
        if (head !== null) onHead(channel, head);
      });
    }
  }

  /** A head as scripts answer it; null where there is none to be had now. */
  read(answer: string): Position | null {
    if (answer === 'FENCED') {
      this.onFenced();
      return null;
    }
    if (answer.startsWith('ERROR')) return null;
    if (answer === this.last.text) return this.last.position;
    const [id, epoch] = answer.split(' ');
    if (id === undefined || epoch === undefined) return null;
    const position = { id: Number(id), epoch };
    this.last = { text: answer, position };
    return position;
  }

  private readAsked(): void {
    const { asked } = this;
    this.asked = [];
    for (const batch of inBatches(asked, BATCH)) {
      this.readAll(batch.map(({ channel }) => channel)).then(
        (heads) =>
          batch.forEach(({ resolve, reject }, index) => {
            const head = heads[index] ?? null;
            if (head === null) reject(new BrokerUnavailable());
            else resolve(head);
          }),
        (error: unknown) => {
          for (const { reject } of batch) reject(error);
        },
      );
    }
  }

  /** In a cluster a call stays in one slot. */
  private async readAll(channels: readonly string[]): Promise<(Position | null)[]> {
    const groups = new Map<number, string[]>();
    for (const channel of channels) addTo(groups, this.clients.sharded ? partitionOf(channel) : 0, channel);
    const found = new Map<string, Position | null>();
    await Promise.all(
      [...groups.values()].map(async (group) => {
        const keys = group.flatMap((channel) => {
          const partition = partitionOf(channel);
          return [this.keys.life(partition), `${this.keys.channel(partition, channel)}:meta`];
        });
        const answers = await this.clients.run(this.clients.commands, headsScript, keys, []);
        if (!Array.isArray(answers)) throw new BrokerUnavailable();
        group.forEach((channel, index) => found.set(channel, this.read(String(answers[index]))));
      }),
    );
    return channels.map((channel) => found.get(channel) ?? null);
  }
}
