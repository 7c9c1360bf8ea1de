import { randomBytes } from 'node:crypto';
import { BrokerUnavailable } from '../core/broker.js';
import type { Telemetry } from '../core/telemetry.js';
import type { WebhookBatch, WebhookEvent } from '../core/webhook-outbox.js';
import { WEBHOOK_TYPES, WebhookOutbox } from '../core/webhook-outbox.js';
import type { RedisClients } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';
import { PARTITIONS } from './redis-keys.js';
import { unlockScript } from './scripts/fence.js';

const BATCH = 100;
/** Longer than a receiver may take to answer. */
const LOCK_MS = 12_000;

/**
 * Webhook events in streams that the presence scripts write in the step that makes the change: one stream, or in a
 * cluster one for each partition. A lock names the instance that sends from a stream.
 */
export class RedisWebhookOutbox extends WebhookOutbox {
  private readonly streams: readonly string[];
  private next = 0;

  constructor(
    private readonly clients: RedisClients,
    keys: RedisKeys,
    private readonly telemetry: Telemetry,
  ) {
    super();
    const partitions = clients.sharded ? PARTITIONS : 1;
    this.streams = Array.from({ length: partitions }, (_, partition) =>
      keys.webhooks(partition, clients.sharded),
    );
  }

  async take(): Promise<WebhookBatch | null> {
    try {
      for (let looked = 0; looked < this.streams.length; looked += 1) {
        const stream = this.streams[this.next % this.streams.length] ?? '';
        this.next += 1;
        const batch = await this.takeFrom(stream);
        if (batch !== null) return batch;
      }
      return null;
    } catch (error) {
      throw new BrokerUnavailable(error);
    }
  }

  private async takeFrom(stream: string): Promise<WebhookBatch | null> {
    const { commands } = this.clients;
    if ((await commands.xlen(stream)) === 0) return null;
    const lock = `${stream}:lock`;
    const holder = randomBytes(8).toString('hex');
    if ((await commands.set(lock, holder, 'PX', LOCK_MS, 'NX')) === null) return null;
    const unlock = async (): Promise<void> => {
      await this.clients.run(commands, unlockScript, [lock], [holder]);
    };
    const entries = await this.range(stream);
    if (entries.length === 0) {
      await unlock();
      return null;
    }
    const confirm = async (): Promise<void> => {
      await commands.del(batchEnd(stream));
      await commands.xdel(stream, ...entries.map(([id]) => id));
      await unlock();
    };
    const events = this.eventsOf(stream, entries);
    if (events.length > 0) return { events, confirm, release: unlock };
    await confirm();
    return null;
  }

  /** What somebody else has put there is no event: it goes with the batch. */
  private eventsOf(stream: string, entries: readonly [string, string[]][]): WebhookEvent[] {
    const events: WebhookEvent[] = [];
    for (const [id, fields] of entries) {
      const event = eventOf(stream, id, fields);
      if (event === null) this.telemetry.busMessageDropped('malformed');
      else events.push(event);
    }
    return events;
  }

  /** A batch that was sent and not confirmed is sent again as it was, by whomever: its id stands for its events. */
  private async range(stream: string): Promise<[string, string[]][]> {
    const { commands } = this.clients;
    const end = await commands.get(batchEnd(stream));
    const entries = await commands.xrange(stream, '-', end ?? '+', 'COUNT', BATCH);
    const last = entries.at(-1)?.[0];
    if (end === null && last !== undefined) await commands.set(batchEnd(stream), last);
    if (end !== null && last === undefined) await commands.del(batchEnd(stream));
    return entries;
  }
}

function batchEnd(stream: string): string {
  return `${stream}:end`;
}

/** Null where the presence scripts have not written it. */
function eventOf(stream: string, id: string, fields: readonly string[]): WebhookEvent | null {
  const [typeField, typeText, nameField, name, ...others] = fields;
  const type = WEBHOOK_TYPES.find((known) => known === typeText);
  if (typeField !== 'type' || nameField !== 'name' || type === undefined || !name || others.length > 0)
    return null;
  const data = type.startsWith('user.') ? { user_id: name } : { room: name };
  const timestamp = new Date(Number(id.split('-')[0])).toISOString();
  // Streams of a cluster number apart.
  return { id: `${/\{(\d+)\}/.exec(stream)?.[1] ?? '0'}-${id}`, type, timestamp, data };
}
