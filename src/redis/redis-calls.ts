import { randomBytes } from 'node:crypto';
import { Logger } from '@nestjs/common';
import type { RedisClients } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';
import { leasesScript } from './scripts/lease.js';

export interface Patience {
  timeoutMs: number;
  /** Ask those that have not answered again this often; some may only just be reconnecting. */
  againMs?: number;
}

interface Question {
  expected: ReadonlySet<string>;
  answers: Map<string, string>;
  done: () => void;
}

type Answerer = (question: string) => string | Promise<string>;

/**
 * Questions to all instances over the control bus, answers over the asker's own. `ask <kind> <nonce> <asker>` and
 * `answer <nonce> <instance>`, each with its text after a line feed.
 */
export class RedisCalls {
  private readonly logger = new Logger('RedisCalls');
  private readonly answerers = new Map<string, Answerer>();
  private readonly questions = new Map<string, Question>();

  constructor(
    private readonly clients: RedisClients,
    private readonly keys: RedisKeys,
    readonly instance: string,
  ) {}

  answer(kind: string, answerer: Answerer): void {
    this.answerers.set(kind, answerer);
  }

  /** What the given instances answered in time, by instance. */
  async ask(
    kind: string,
    text: string,
    instances: readonly string[],
    { timeoutMs, againMs }: Patience,
  ): Promise<Map<string, string>> {
    const nonce = randomBytes(8).toString('hex');
    const answers = new Map<string, string>();
    const send = (): Promise<void> =>
      this.announce(this.keys.control, `ask ${kind} ${nonce} ${this.instance}\n${text}`);
    let timers: NodeJS.Timeout[] = [];
    const finished = new Promise<void>((done) => {
      this.questions.set(nonce, { expected: new Set(instances), answers, done });
      timers = [setTimeout(done, timeoutMs)];
      if (againMs !== undefined) {
        timers.push(
          setInterval(() => {
            send().catch((error: unknown) => this.logger.warn(String(error)));
          }, againMs),
        );
      }
    });
    try {
      await send();
      if (instances.length > 0) await finished;
    } finally {
      for (const timer of timers) clearTimeout(timer);
      this.questions.delete(nonce);
    }
    return answers;
  }

  /** The instances whose lease holds. */
  async liveInstances(): Promise<string[]> {
    const leases = await this.clients.run(this.clients.commands, leasesScript, [this.keys.instances], []);
    return Array.isArray(leases) ? leases.map(String).map(instanceOfLease) : [];
  }

  async announce(bus: string, message: string): Promise<void> {
    const { commands, sharded } = this.clients;
    await (sharded ? commands.spublish(bus, message) : commands.publish(bus, message));
  }

  /** Answers whether it was a question. */
  onControlMessage(message: string): boolean {
    const [head, text] = splitOnce(message);
    const [verb, kind = '', nonce = '', asker = ''] = head.split(' ');
    const answerer = this.answerers.get(kind);
    if (verb !== 'ask' || answerer === undefined || asker === '') return false;
    this.reply(answerer, nonce, asker, text).catch((error: unknown) => {
      this.logger.warn(
        `a question (${kind}) was not answered: ${error instanceof Error ? error.message : String(error)}`,
      );
    });
    return true;
  }

  /** Answers whether it was an answer; one that comes too late is one, too. */
  onAnswer(message: string): boolean {
    const [head, text] = splitOnce(message);
    const [verb, nonce = '', instance = ''] = head.split(' ');
    if (verb !== 'answer' || nonce === '' || instance === '') return false;
    const question = this.questions.get(nonce);
    if (question === undefined) return true;
    question.answers.set(instance, text);
    for (const expected of question.expected) if (!question.answers.has(expected)) return true;
    question.done();
    return true;
  }

  private async reply(answerer: Answerer, nonce: string, asker: string, text: string): Promise<void> {
    const answer = await answerer(text);
    await this.announce(this.keys.instance(asker), `answer ${nonce} ${this.instance}\n${answer}`);
  }
}

/** Leases are `<instance>/<n>`; one instance that had to take a new lease is still one instance. */
export function instanceOfLease(lease: string): string {
  return lease.slice(0, lease.lastIndexOf('/'));
}

function splitOnce(message: string): [string, string] {
  const end = message.indexOf('\n');
  return end === -1 ? [message, ''] : [message.slice(0, end), message.slice(end + 1)];
}
