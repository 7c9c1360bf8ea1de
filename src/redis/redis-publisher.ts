import { createHash } from 'node:crypto';
import type { ChannelRules } from '../core/channel-rules.js';
import type { Publication, Published } from '../core/broker.js';
import { BrokerUnavailable } from '../core/broker.js';
import type { RedisClient, RedisClients } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';
import { partitionOf } from './redis-keys.js';
import { publishScript } from './scripts/publish.js';

/** One script call carries at most so many publications and bytes: it blocks Redis while it runs. */
const BATCH_EVENTS = 128;
const BATCH_BYTES = 256 * 1024;
/** Publications that were sent and not answered; over it Redis is too slow to take more. */
const MAX_UNANSWERED_BYTES = 64 * 1024 * 1024;
/** Numbering outlives the events, so that "you missed nothing" can be said long after: at least 30 days. */
const META_TTL_MIN_MS = 30 * 24 * 3600 * 1000;
const META_TTL_FACTOR = 24;

export interface PublisherOptions {
  historySize: number;
  historyTtlMs: number;
  idempotencyTtlMs: number;
}

interface Pending {
  publication: Publication;
  resolve: (published: Published) => void;
  reject: (error: Error) => void;
}

/** What the script answered for a numbered publication. */
export interface Acknowledgement {
  partition: number;
  epoch: string;
  seq: number;
}

/** Sends what is published within one turn of the event loop as few script calls, in order. */
export class RedisPublisher {
  private queue: Pending[] = [];
  private unansweredBytes = 0;

  constructor(
    private readonly clients: RedisClients,
    private readonly commands: RedisClient,
    private readonly keys: RedisKeys,
    private readonly rules: ChannelRules,
    private readonly options: PublisherOptions,
    private readonly onAcknowledged: (acknowledgement: Acknowledgement) => void,
    private readonly onFenced: () => void,
    /** Resolves when what was answered so far is safe; null where the primary's answer is enough. */
    private readonly confirm: (() => Promise<void>) | null,
  ) {}

  publish(publication: Publication): Promise<Published> {
    if (this.unansweredBytes > MAX_UNANSWERED_BYTES) return Promise.reject(new BrokerUnavailable());
    return new Promise((resolve, reject) => {
      this.unansweredBytes += publication.body.length;
      if (this.queue.push({ publication, resolve, reject }) === 1) setImmediate(() => this.flush());
    });
  }

  private flush(): void {
    const queue = this.queue;
    this.queue = [];
    for (const batch of this.batches(queue)) void this.send(batch);
  }

  /** In a cluster a script call stays in one slot, so batches are by partition; elsewhere the order of the queue is kept. */
  private batches(queue: readonly Pending[]): Pending[][] {
    const batches: Pending[][] = [];
    const open = new Map<number, { batch: Pending[]; bytes: number }>();
    for (const pending of queue) {
      const group = this.clients.sharded ? partitionOf(pending.publication.channel) : 0;
      let current = open.get(group);
      if (current === undefined || current.batch.length >= BATCH_EVENTS || current.bytes >= BATCH_BYTES) {
        current = { batch: [], bytes: 0 };
        open.set(group, current);
        batches.push(current.batch);
      }
      current.batch.push(pending);
      current.bytes += pending.publication.body.length;
    }
    return batches;
  }

  private async send(batch: readonly Pending[]): Promise<void> {
    const { historySize, historyTtlMs, idempotencyTtlMs } = this.options;
    const metaTtlMs = Math.max(META_TTL_MIN_MS, META_TTL_FACTOR * historyTtlMs);
    const keys: string[] = [];
    const args: (string | number)[] = [
      this.clients.announce,
      historySize,
      historyTtlMs,
      metaTtlMs,
      idempotencyTtlMs,
    ];
    for (const { publication } of batch) this.encode(publication, keys, args);
    try {
      const answers = await this.clients.run(this.commands, publishScript, keys, args);
      if (!Array.isArray(answers)) throw new BrokerUnavailable();
      if (answers.includes('FENCED')) this.onFenced();
      if (this.confirm !== null && batch.some(({ publication }) => this.rules.isDurable(publication.channel)))
        await this.confirm();
      batch.forEach((pending, index) => this.settle(pending, String(answers[index])));
    } catch (error) {
      const failure = error instanceof BrokerUnavailable ? error : new BrokerUnavailable(error);
      for (const { reject } of batch) reject(failure);
    } finally {
      for (const { publication } of batch) this.unansweredBytes -= publication.body.length;
    }
  }

  private encode(
    { channel, body, exclude = '', idempotency }: Publication,
    keys: string[],
    args: (string | number)[],
  ): void {
    const durable = this.rules.isDurable(channel) ? 'd' : 'e';
    keys.push(this.keys.channel(partitionOf(channel), channel));
    args.push(durable === 'd' && idempotency ? `k${digest(idempotency)}` : durable, exclude, body);
  }

  private settle({ publication, resolve, reject }: Pending, answer: string): void {
    if (answer === 'FENCED' || answer.startsWith('ERROR')) {
      reject(new BrokerUnavailable(answer));
      return;
    }
    const [id = '', epoch = '', duplicate, seq] = answer.split(' ');
    if (id === '0') {
      resolve({ position: null, duplicate: false });
      return;
    }
    if (seq !== '0')
      this.onAcknowledged({ partition: partitionOf(publication.channel), epoch, seq: Number(seq) });
    resolve({ position: { id: Number(id), epoch }, duplicate: duplicate === '1' });
  }
}

/** A caller's key never reaches a Redis key itself. */
function digest({ scope, key }: { scope: string; key: string }): string {
  return createHash('sha1')
    .update(JSON.stringify([scope, key]))
    .digest('base64url');
}
