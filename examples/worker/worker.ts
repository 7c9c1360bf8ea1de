import { createHash, randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { Redis } from 'ioredis';

/**
 * A backend worker: reads what clients send from the inbound stream, answers through the HTTP API, acknowledges, and
 * takes what it acknowledged out of the stream. It may be killed at any moment and run any number of times: each message
 * is handled at least once, and each answer is published once.
 */

const settings = {
  redisUrl: process.env['REDIS_URL'] ?? 'redis://127.0.0.1:6379',
  stream: process.env['INBOUND_STREAM'] ?? 'fanfare-inbound',
  group: process.env['WORKER_GROUP'] ?? 'workers',
  /** Of this process alone: what another one left unfinished is taken over by its idle time, not by its name. */
  consumer: process.env['WORKER_NAME'] ?? `worker-${randomUUID()}`,
  gatewayUrl: process.env['FANFARE_URL'] ?? 'http://127.0.0.1:3000',
  apiKey: process.env['FANFARE_API_KEY'] ?? '',
  /** After that long without an acknowledgement the consumer counts as dead; longer than handling a batch takes. */
  claimAfterMs: Number(process.env['WORKER_CLAIM_AFTER_MS'] ?? '30000'),
};

const BATCH = 50;
const BLOCK_MS = 1_000;
const ANSWER_TIMEOUT_MS = 10_000;
const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 5_000;
/** The API will never take such an answer; every other failure may pass. */
const HOPELESS = new Set([400, 413]);

/** A client's message, as it stands in the stream. */
interface Message {
  entry: string;
  user: string;
  channel: string;
  event: string;
  content: unknown;
  /** The event's number in its channel; empty on an ephemeral one. */
  id: string;
  messageId: string;
}

interface Answer {
  channel: string;
  event: string;
  content: unknown;
}

/** What this worker is for: replace it by your own. The same message must get the same answer, whenever it is asked. */
function answerTo({ user, channel, event, content, id }: Message): Answer | null {
  if (event !== 'chat') return null;
  // What was said to one user is answered to the one who said it.
  const to = channel.startsWith('user:') ? `user:${user}` : channel;
  return { channel: to, event: 'answer', content: { to: user, of: id, echo: content } };
}

/** A failure that trying again does not cure. */
class Hopeless extends Error {}

class Worker {
  private readonly commands = this.connect();
  /** Blocks while there is nothing to read, so nothing else may use it. */
  private readonly reader = this.connect();
  private isStopping = false;
  private claimedAtMs = -Infinity;

  /** Runs until `stop`; what was begun is finished. */
  async run(): Promise<void> {
    await this.createGroup();
    log(`${settings.consumer} reads ${settings.stream} for ${settings.group}`);
    while (!this.isStopping) {
      try {
        await this.handleAll(await this.claim());
        await this.handleAll(await this.read());
      } catch (error) {
        if (error instanceof Hopeless) throw error;
        log(`trying again: ${textOf(error)}`);
        // Redis has lost everything, the group too.
        if (textOf(error).startsWith('NOGROUP')) await this.createGroup();
        await pause(RETRY_MIN_MS);
      }
    }
    await this.leave();
  }

  stop(): void {
    this.isStopping = true;
  }

  disconnect(): void {
    this.reader.disconnect();
    this.commands.disconnect();
  }

  private connect(): Redis {
    const redis = new Redis(settings.redisUrl, { maxRetriesPerRequest: null });
    redis.on('error', (error: Error) => log(`Redis: ${error.message}`));
    return redis;
  }

  /** From the start of the stream: what came before the first worker is handled too. */
  private async createGroup(): Promise<void> {
    try {
      await this.commands.xgroup('CREATE', settings.stream, settings.group, '0', 'MKSTREAM');
    } catch (error) {
      if (!textOf(error).startsWith('BUSYGROUP')) throw error;
    }
  }

  /** What a dead consumer, or a failure of our own, left unfinished. */
  private async claim(): Promise<Message[]> {
    if (performance.now() - this.claimedAtMs < settings.claimAfterMs / 2) return [];
    const { stream, group, consumer, claimAfterMs } = settings;
    const reply: unknown = await this.commands.xautoclaim(
      stream,
      group,
      consumer,
      claimAfterMs,
      '0-0',
      'COUNT',
      BATCH,
    );
    const messages = messagesOf(Array.isArray(reply) ? reply[1] : null);
    // A full page: there may be more.
    if (messages.length < BATCH) this.claimedAtMs = performance.now();
    return messages;
  }

  private async read(): Promise<Message[]> {
    const { stream, group, consumer } = settings;
    const reply: unknown = await this.reader.xreadgroup(
      'GROUP',
      group,
      consumer,
      'COUNT',
      BATCH,
      'BLOCK',
      BLOCK_MS,
      'STREAMS',
      stream,
      '>',
    );
    const [first]: unknown[] = Array.isArray(reply) ? reply : [];
    return messagesOf(Array.isArray(first) ? first[1] : null);
  }

  /** In order within a channel; channels side by side. */
  private async handleAll(messages: readonly Message[]): Promise<void> {
    const channels = new Map<string, Message[]>();
    for (const message of messages) {
      const queue = channels.get(message.channel);
      if (queue === undefined) channels.set(message.channel, [message]);
      else queue.push(message);
    }
    const results = await Promise.allSettled(
      [...channels.values()].map(async (queue) => {
        for (const message of queue) await this.handle(message);
      }),
    );
    const failure = results.find((result) => result.status === 'rejected');
    if (failure !== undefined) throw failure.reason;
  }

  private async handle(message: Message): Promise<void> {
    const answer = answerTo(message);
    if (answer !== null) await this.publish(message, answer);
    const { stream, group } = settings;
    await this.commands.multi().xack(stream, group, message.entry).xdel(stream, message.entry).exec();
    log(`handled ${message.entry} ${message.channel} ${message.id}`);
  }

  private async publish(message: Message, answer: Answer): Promise<void> {
    const key = keyOf(message);
    for (let attempt = 0; ; attempt += 1) {
      const problem = await this.post(key, answer);
      if (problem === null) return;
      // It stays pending: whoever claims it asks again with the same key.
      if (this.isStopping) throw new Error(problem);
      log(`${message.entry} is not answered yet: ${problem}`);
      await pause(
        Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(attempt, 10)) * (0.5 + Math.random() / 2),
      );
    }
  }

  /** Null once the answer is published, else why it may not be. */
  private async post(key: string, answer: Answer): Promise<string | null> {
    let response: Response;
    try {
      response = await fetch(`${settings.gatewayUrl}/api/v1/publish`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${settings.apiKey}`,
          'content-type': 'application/json',
          'idempotency-key': key,
        },
        // The message_id holds where the key can't: when the gateway dies between publishing and noting its answer.
        body: JSON.stringify({ ...answer, message_id: key }),
        signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
      });
      await response.arrayBuffer();
    } catch (error) {
      return textOf(error);
    }
    const { status } = response;
    // 409: it was answered before, by other words.
    if (response.ok || status === 409) return null;
    if (HOPELESS.has(status)) {
      log(`the answer ${key} is refused with ${status} and dropped`);
      return null;
    }
    if (status < 500 && status !== 408 && status !== 429)
      throw new Hopeless(`${settings.gatewayUrl} answers ${status}: look at FANFARE_URL and FANFARE_API_KEY`);
    return `HTTP ${status}`;
  }

  /** A consumer with nothing pending is of no use any more; with something pending its name must stay. */
  private async leave(): Promise<void> {
    const { stream, group, consumer } = settings;
    const pending = await this.commands.xpending(stream, group, '-', '+', 1, consumer);
    if (pending.length === 0) await this.commands.xgroup('DELCONSUMER', stream, group, consumer);
  }
}

/** Of the message, not of the entry: a client that repeats a message makes a second entry with the same channel and id. */
function keyOf({ channel, id, user, messageId, entry }: Message): string {
  const name = id === '' ? (messageId === '' ? [entry] : [channel, user, messageId]) : [channel, id];
  return createHash('sha256').update(JSON.stringify(name)).digest('hex');
}

/** The entries of a reply; those that were deleted meanwhile have no fields and are left out. */
function messagesOf(entries: unknown): Message[] {
  if (!Array.isArray(entries)) return [];
  return entries.flatMap((row: unknown) => {
    if (!Array.isArray(row) || !Array.isArray(row[1])) return [];
    const values = row[1].map(String);
    const fields = new Map<string, string>();
    for (let at = 0; at + 1 < values.length; at += 2) fields.set(values[at] ?? '', values[at + 1] ?? '');
    const field = (name: string): string => fields.get(name) ?? '';
    return {
      entry: String(row[0]),
      user: field('user'),
      channel: field('channel'),
      event: field('event'),
      content: jsonOr(field('content')),
      id: field('id'),
      messageId: field('message_id'),
    };
  });
}

/** What others have put into the stream must not stop the worker. */
function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return text;
    throw error;
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function log(line: string): void {
  process.stdout.write(`${line}\n`);
}

const worker = new Worker();
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    log('finishing what was begun');
    worker.stop();
    // The second signal ends at once: what is unfinished stays pending.
    process.once(signal, () => process.exit(1));
  });
}
try {
  await worker.run();
  log('stopped');
} catch (error) {
  log(textOf(error));
  process.exitCode = 1;
} finally {
  worker.disconnect();
}
