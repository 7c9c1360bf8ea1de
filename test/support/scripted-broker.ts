import type {
  BrokerHealth,
  BrokerSink,
  EventEnvelope,
  History,
  HistoryPage,
  Publication,
  Published,
} from '../../src/core/broker.js';
import { Broker, BrokerUnavailable } from '../../src/core/broker.js';
import { continues, lifeOf } from '../../src/core/position.js';
import type { Position } from '../../src/protocol/messages.js';

interface Question {
  /** Looks when it is called; what it found is handed over when the question is answered. */
  readonly look: () => unknown;
  readonly resolve: (found: unknown) => void;
  readonly reject: (error: Error) => void;
  /** What was found, where it has looked already. */
  found: { value: unknown } | null;
}

/**
 * A broker of one channel whose every move is a step of the test: what is stored is not yet announced, what is asked
 * is not yet answered, and the server may look before or after the steps in between.
 */
export class ScriptedBroker extends Broker {
  /** Stored and not delivered, in the order of the bus. */
  readonly bus: EventEnvelope[] = [];
  readonly questions: Question[] = [];
  isUp = true;
  releases = 0;
  /** Ids of the present epoch up to this are trimmed. */
  trimmedTo = 0;
  /** By epoch, ids that were trimmed at some time. */
  readonly everTrimmedTo = new Map<string, number>();
  /** By `epoch/id`, also of lives that are over, for whom an event is not. */
  private readonly excludes = new Map<string, string>();
  /** The epoch that the channel was born with in each life. */
  private readonly born = new Map<string, string>();
  private life = 1;
  private births = 0;
  private epoch = epochOf(1, 0);
  private log: EventEnvelope[] = [];
  private isSubscribed = false;
  private sink: BrokerSink | null = null;

  constructor(private readonly channel: string) {
    super();
  }

  get present(): Position {
    return { epoch: this.epoch, id: this.log.length };
  }

  start(sink: BrokerSink): void {
    this.sink = sink;
  }

  isDurable(): boolean {
    return true;
  }

  /** Stores one event; it is on the bus for who is subscribed. */
  store(exclude = ''): Position | null {
    if (!this.isUp) return null;
    const id = this.log.length + 1;
    if (id === 1) {
      this.births += 1;
      this.epoch = epochOf(this.life, this.births);
      this.born.set(lifeOf(this.epoch), this.epoch);
    }
    const position = { epoch: this.epoch, id };
    const body = Buffer.from(`{"event":"chat","content":"${this.epoch}/${id}"`);
    const event = { channel: this.channel, position, exclude, body };
    this.log.push(event);
    this.excludes.set(`${this.epoch}/${id}`, exclude);
    if (this.isSubscribed) this.bus.push(event);
    return position;
  }

  /** The bus brings its next event; `again`: and will bring it once more. */
  deliver(again = false): void {
    const event = again ? this.bus[0] : this.bus.shift();
    if (event !== undefined) this.sink?.onEvent(event);
  }

  drop(count: number): void {
    this.bus.splice(0, count);
  }

  trim(keep: number): void {
    this.trimmedTo = Math.max(this.trimmedTo, this.log.length - keep);
    this.everTrimmedTo.set(this.epoch, this.trimmedTo);
  }

  /** The storage loses everything; what was announced before may still be on its way. */
  lose({ isBusLost = true } = {}): void {
    if (isBusLost) this.bus.length = 0;
    this.life += 1;
    this.epoch = epochOf(this.life, 0);
    this.log = [];
    this.trimmedTo = 0;
  }

  /** Everything under way fails, and nothing is heard until it is back. */
  goAway(): void {
    this.isUp = false;
    this.bus.length = 0;
    for (const { reject } of this.questions.splice(0)) reject(new BrokerUnavailable());
  }

  /** Subscribed again; the heads are compared with an answer that comes later. */
  comeBack(): void {
    this.isUp = true;
    this.compare();
  }

  compare(): void {
    if (!this.isUp) return;
    this.questions.push({
      look: () => this.present,
      resolve: (head) => this.sink?.onHead(this.channel, head as Position),
      reject: () => undefined,
      found: null,
    });
  }

  /** The server looks for the nth question now, and answers it later. */
  lookFor(nth: number): void {
    const question = this.questions[nth % Math.max(1, this.questions.length)];
    if (question !== undefined) question.found ??= { value: question.look() };
  }

  /** The oldest question is answered. */
  answer(): boolean {
    const question = this.questions.shift();
    if (question === undefined) return false;
    question.resolve((question.found ?? { value: question.look() }).value);
    return true;
  }

  subscribe(): Promise<void> {
    return this.ask(() => {
      this.isSubscribed = true;
    });
  }

  /** It lingers, as the real ones do: a channel that is opened again hears the old subscription. */
  unsubscribe(): void {
    this.releases += 1;
  }

  head(): Promise<Position> {
    return this.ask(() => this.present);
  }

  history(_channel: string, after: Position, limit: number): Promise<History> {
    return this.ask((): History => {
      const head = this.present;
      const oldestId = this.trimmedTo + 1;
      if (!continues(after, head.epoch) || after.id > head.id || after.id + 1 < oldestId)
        return { kind: 'lost', head, oldestId };
      return { kind: 'events', events: this.log.slice(after.id, after.id + limit), head };
    });
  }

  publish(_publication: Publication): Promise<Published> {
    return Promise.reject(new Error('the test stores by itself'));
  }

  before(): Promise<HistoryPage> {
    return Promise.reject(new Error('nobody asks for pages here'));
  }

  health(): BrokerHealth {
    return { up: this.isUp };
  }

  async stop(): Promise<void> {
    this.sink = null;
  }

  /** The event after a position, and for whom it is not; null where it was never stored. */
  after({ epoch, id }: Position): { position: Position; exclude: string } | null {
    const position = {
      epoch: epoch.endsWith('.0') ? (this.born.get(lifeOf(epoch)) ?? epoch) : epoch,
      id: id + 1,
    };
    const exclude = this.excludes.get(`${position.epoch}/${position.id}`);
    return exclude === undefined ? null : { position, exclude };
  }

  private ask<T>(look: () => T): Promise<T> {
    if (!this.isUp) return Promise.reject(new BrokerUnavailable());
    return new Promise<T>((resolve, reject) => {
      this.questions.push({ look, resolve: (found) => resolve(found as T), reject, found: null });
    });
  }
}

/** Later lives sort after earlier ones, also the tenth. */
function epochOf(life: number, birth: number): string {
  return `l${String(life).padStart(3, '0')}.${birth}`;
}
