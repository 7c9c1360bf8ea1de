import { randomBytes } from 'node:crypto';
import { Logger } from '@nestjs/common';
import { lifeOf } from '../core/position.js';
import type { RedisCalls } from './redis-calls.js';
import { instanceOfLease } from './redis-calls.js';
import type { RedisClient, RedisClients } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';
import { PARTITIONS } from './redis-keys.js';
import { settleScript, unlockScript } from './scripts/fence.js';

/** How long the other instances have to say what they have seen. */
const ANSWER_MS = 1_500;
const ASK_AGAIN_MS = 150;
const LOCK_MS = 6_000;
const LOCK_RETRY_MS = 100;
const ROUNDS = 50;

/** The newest life of a partition that was seen, and the highest sequence number in it. */
interface Seen {
  life: string;
  seq: number;
}

/** By partition, what one instance has acknowledged or delivered; null where nothing. Crosses the wire as JSON. */
type SeenTable = (Seen | null)[];

/**
 * Keeps ids from being used twice. Every partition has a life; its fence is the replication id of the primary that
 * numbered last. When the primary is another one, or has restarted, nothing is numbered until one instance has asked
 * all live ones for the highest number that they acknowledged or delivered. Redis keeps a prefix of what was written:
 * if all answer and nothing seen is above what is stored, nothing seen was lost and the life goes on. In any other
 * case a new life begins, all epochs change, and every reader is told.
 */
export class RedisLives {
  private readonly logger = new Logger('RedisLives');
  private readonly seen: ({ epoch: string; life: string; seq: number } | null)[] = Array.from(
    { length: PARTITIONS },
    () => null,
  );

  constructor(
    private readonly clients: RedisClients,
    private readonly commands: RedisClient,
    private readonly keys: RedisKeys,
    private readonly instance: string,
    private readonly calls: RedisCalls,
  ) {
    calls.answer('seen', () =>
      JSON.stringify(
        this.seen.map((entry) => (entry === null ? null : { life: entry.life, seq: entry.seq })),
      ),
    );
  }

  /** Notes a number that was acknowledged or delivered here. On the path of every event: allocates only on a new epoch. */
  note(partition: number, epoch: string, seq: number): void {
    const known = this.seen[partition];
    if (known !== null && known !== undefined && known.epoch === epoch) {
      if (seq > known.seq) known.seq = seq;
      return;
    }
    const life = lifeOf(epoch);
    if (known === null || known === undefined || life > known.life)
      this.seen[partition] = { epoch, life, seq };
    else if (life === known.life) {
      known.epoch = epoch;
      if (seq > known.seq) known.seq = seq;
    }
  }

  /** Makes every partition fit to number again; does nothing where all are. Rejects when Redis goes away meanwhile. */
  async restore(): Promise<void> {
    for (let round = 0; round < ROUNDS; round += 1) {
      const stored = await this.readStored();
      if ((await this.countFenced(stored)) === 0) return;
      const locked = await this.commands.set(this.keys.fenceLock, this.instance, 'PX', LOCK_MS, 'NX');
      if (locked === null) {
        await pause(LOCK_RETRY_MS);
        continue;
      }
      try {
        await this.settle(stored);
      } finally {
        await this.clients.run(this.commands, unlockScript, [this.keys.fenceLock], [this.instance]);
      }
    }
    throw new Error('the partitions could not be settled');
  }

  private async readStored(): Promise<(string | null)[]> {
    const partitions = Array.from({ length: PARTITIONS }, (_, partition) => partition);
    return Promise.all(partitions.map((partition) => this.commands.get(this.keys.life(partition))));
  }

  /** Settles with a question that no fence can pass: only says how many partitions are not fit to number. */
  private async countFenced(stored: readonly (string | null)[]): Promise<number> {
    const answers = await Promise.all(
      stored.map((_, partition) =>
        this.clients.run(this.commands, settleScript, [this.keys.life(partition)], ['?', '0', '', '0', '']),
      ),
    );
    return answers.filter((answer) => answer !== 'ok').length;
  }

  private async settle(stored: readonly (string | null)[]): Promise<void> {
    const roster = await this.commands.zrange(this.keys.instances, '0', '-1');
    const instances = roster.map(instanceOfLease);
    // Nothing stored at all: a new Redis, or an empty one. There is nothing to ask for.
    const asked = stored.every((value) => value === null) ? [] : instances;
    const texts = await this.calls.ask('seen', '', asked, { timeoutMs: ANSWER_MS, againMs: ASK_AGAIN_MS });
    const answers = new Map<string, SeenTable>();
    for (const [instance, text] of texts) {
      const table = readSeenTable(text);
      if (table !== null) answers.set(instance, table);
    }
    const complete = instances.length > 0 && instances.every((instance) => answers.has(instance));
    const newest = this.seen.reduce(
      (life, entry) => (entry !== null && entry.life > life ? entry.life : life),
      '',
    );
    const proposal = newLife(newest);
    const results = await Promise.all(
      stored.map((value, partition) => {
        const fence = /^\S+ (\S+) \d+$/.exec(value ?? '')?.[1] ?? '';
        const seen = highest([...answers.values()].map((table) => table[partition] ?? null));
        return this.clients.run(
          this.commands,
          settleScript,
          [this.keys.life(partition)],
          [fence, complete ? '1' : '0', seen?.life ?? '', seen?.seq ?? 0, proposal],
        );
      }),
    );
    if (results.includes('new')) await this.calls.announce(this.keys.control, 'settled');
    const count = (result: string): number => results.filter((value) => value === result).length;
    this.logger.log(
      `numbering settled: ${count('kept')} partitions kept, ${count('new')} new, ` +
        `${answers.size} of ${instances.length} instances answered`,
    );
  }
}

/** Later lives sort after earlier ones, whatever the clocks say. */
function newLife(newest: string): string {
  const startedMs = Math.max(Date.now(), newest === '' ? 0 : Number.parseInt(newest.slice(0, 9), 36) + 1);
  return startedMs.toString(36).padStart(9, '0') + randomBytes(3).toString('hex');
}

function highest(entries: readonly (Seen | null)[]): Seen | null {
  let top: Seen | null = null;
  for (const entry of entries) {
    if (entry === null) continue;
    if (top === null || entry.life > top.life || (entry.life === top.life && entry.seq > top.seq))
      top = entry;
  }
  return top;
}

function readSeenTable(text: string): SeenTable | null {
  const table: unknown = JSON.parse(text);
  if (!Array.isArray(table) || table.length !== PARTITIONS) return null;
  return table.map((entry: unknown) => (isSeen(entry) ? entry : null));
}

function isSeen(entry: unknown): entry is Seen {
  return (
    typeof entry === 'object' &&
    entry !== null &&
    'life' in entry &&
    typeof entry.life === 'string' &&
    'seq' in entry &&
    typeof entry.seq === 'number'
  );
}

function pause(durationMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}
