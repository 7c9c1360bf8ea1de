import type {
  BrokerHealth,
  BrokerSink,
  EventEnvelope,
  History,
  HistoryPage,
  PageLimits,
  Publication,
} from '../../src/core/broker.js';
import { Broker, BrokerUnavailable } from '../../src/core/broker.js';
import { Connection } from '../../src/core/connection.js';
import type { Identity } from '../../src/core/identity.js';
import { continues } from '../../src/core/position.js';
import type {
  ClusterTotals,
  PresenceEntry,
  PresencePage,
  RoomCounts,
  RoomsPage,
} from '../../src/core/presence-store.js';
import { PresenceStore } from '../../src/core/presence-store.js';
import { Telemetry } from '../../src/core/telemetry.js';
import type { Transport } from '../../src/core/transport.js';
import { Turn } from '../../src/core/turn.js';
import type { Position } from '../../src/protocol/messages.js';

/** Lets everything that is already settled take its effect: promises first, then the immediates of this turn. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 4; turn += 1) {
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
  }
}

/** A promise that the test settles. */
export class Deferred<T> {
  resolve: (value: T) => void = () => undefined;
  reject: (error: unknown) => void = () => undefined;
  readonly promise = new Promise<T>((resolve, reject) => {
    this.resolve = resolve;
    this.reject = reject;
  });
}

/** Writes down what it is told; `texts` are the payloads of the text frames, in order. */
export class FakeTransport implements Transport {
  readonly writes: Buffer[] = [];
  readonly pauses: boolean[] = [];
  readonly closes: { code: number; reason: string }[] = [];
  terminated = 0;
  queuedBytes = 0;

  constructor(readonly deflate = false) {}

  get texts(): string[] {
    return readTexts(Buffer.concat(this.writes));
  }

  get events(): Record<string, unknown>[] {
    return this.texts.map((text) => JSON.parse(text) as Record<string, unknown>);
  }

  write(frames: Buffer): void {
    this.writes.push(frames);
  }

  writeAll(pieces: readonly Buffer[]): void {
    this.writes.push(Buffer.concat(pieces));
  }

  pause(paused: boolean): void {
    this.pauses.push(paused);
  }

  close(code: number, reason: string): void {
    this.closes.push({ code, reason });
  }

  terminate(): void {
    this.terminated += 1;
  }
}

/** The payloads of unmasked, uncompressed text frames; other frames are passed over. */
export function readTexts(bytes: Buffer): string[] {
  const texts: string[] = [];
  let at = 0;
  while (at < bytes.length) {
    const opcode = bytes.readUInt8(at) & 0x0f;
    const short = bytes.readUInt8(at + 1);
    const [length, header] =
      short < 126
        ? [short, 2]
        : short === 126
          ? [bytes.readUInt16BE(at + 2), 4]
          : [Number(bytes.readBigUInt64BE(at + 2)), 10];
    const end = at + header + length;
    if (opcode === 1) texts.push(bytes.toString('utf8', at + header, end));
    at = end;
  }
  return texts;
}

export const everything = { allows: () => true };

export function identityOf(userId: string, more: Partial<Identity> = {}): Identity {
  return { userId, name: undefined, rights: everything, expiresAtMs: Infinity, ...more };
}

export interface ConnectionOptions {
  id?: string;
  identity?: Identity;
  transport?: FakeTransport;
  turn?: Turn;
  slowConsumerBytes?: number;
  plainText?: 'never' | 'otherwise' | 'always';
  nowMs?: number;
}

let connections = 0;

/** An open connection over a fake transport. */
export function connect(
  userId: string,
  options: ConnectionOptions = {},
): { connection: Connection; transport: FakeTransport } {
  connections += 1;
  const transport = options.transport ?? new FakeTransport();
  const connection = new Connection(
    options.id ?? `connection-${connections}`,
    options.identity ?? identityOf(userId),
    '127.0.0.1',
    options.plainText ?? 'never',
    transport,
    options.turn ?? new Turn(),
    { slowConsumerBytes: options.slowConsumerBytes ?? 1_048_576 },
    options.nowMs ?? 0,
  );
  connection.state = 'open';
  return { connection, transport };
}

/** Counts by name: `holeFound filled`, `eventsDelivered 2`. */
export class FakeTelemetry extends Telemetry {
  readonly counted: string[] = [];

  messageReceived(type: string): void {
    this.counted.push(`messageReceived ${type}`);
  }
  eventPublished(durability: string, result: string): void {
    this.counted.push(`eventPublished ${durability} ${result}`);
  }
  eventsDelivered(count: number): void {
    this.counted.push(`eventsDelivered ${count}`);
  }
  connectionOpened(): void {
    this.counted.push('connectionOpened');
  }
  connectionClosed(code: number): void {
    this.counted.push(`connectionClosed ${code}`);
  }
  handshakeRejected(status: number): void {
    this.counted.push(`handshakeRejected ${status}`);
  }
  errorSent(code: string): void {
    this.counted.push(`errorSent ${code}`);
  }
  holeFound(result: string): void {
    this.counted.push(`holeFound ${result}`);
  }
  busMessageDropped(reason: string): void {
    this.counted.push(`busMessageDropped ${reason}`);
  }
  redisReconnected(role: string): void {
    this.counted.push(`redisReconnected ${role}`);
  }
  probeMissed(): void {
    this.counted.push('probeMissed');
  }

  count(name: string): number {
    return this.counted.filter((counted) => counted === name).length;
  }
}

export function eventAt(channel: string, epoch: string, id: number, exclude = ''): EventEnvelope {
  const body = Buffer.from(`{"event":"chat","content":${id}`);
  return { channel, position: { epoch, id }, exclude, body };
}

const MAX_ASKED = 1_000;

/**
 * A broker whose log and bus are the test's: `append` stores an event, `announce` brings it, and what is stored but
 * never announced is a hole. Answers wait where the test holds them.
 */
export class FakeBroker extends Broker {
  readonly subscribed: string[] = [];
  readonly unsubscribed: string[] = [];
  readonly asked: { channel: string; after: Position; limit: number }[] = [];
  /** Errors that the next calls of a method reject with. */
  readonly failures: { subscribe: unknown[]; head: unknown[]; history: unknown[] } = {
    subscribe: [],
    head: [],
    history: [],
  };
  /** While it is there, `head` and `history` wait for it before they look. */
  hold: Deferred<void> | null = null;
  sink: BrokerSink | null = null;
  epoch = 'life.1';
  /** Ids up to this are not stored any more. */
  trimmedTo = 0;
  readonly log: EventEnvelope[] = [];

  constructor(private readonly ephemeral: readonly string[] = []) {
    super();
  }

  start(sink: BrokerSink): void {
    this.sink = sink;
  }

  isDurable(channel: string): boolean {
    return !this.ephemeral.includes(channel);
  }

  async publish({
    channel,
    body,
    exclude,
  }: Publication): Promise<{ position: Position; duplicate: boolean }> {
    const event = this.append(channel, exclude);
    event.body = Buffer.from(body);
    this.announce(event);
    return { position: event.position ?? { epoch: '', id: 0 }, duplicate: false };
  }

  async subscribe(channel: string): Promise<void> {
    if (this.failures.subscribe.length > 0) throw this.failures.subscribe.shift();
    this.subscribed.push(channel);
  }

  unsubscribe(channel: string): void {
    this.unsubscribed.push(channel);
  }

  /** Read when it is asked, and answered when the test lets it: events can overtake the answer. */
  async head(): Promise<Position> {
    const head = this.currentHead;
    await this.hold?.promise;
    if (this.failures.head.length > 0) throw this.failures.head.shift();
    return head;
  }

  async history(channel: string, after: Position, limit: number): Promise<History> {
    this.asked.push({ channel, after, limit });
    // Whoever asks for ever gets no answer, so that it does not take the process with it.
    if (this.asked.length > MAX_ASKED) await new Deferred<never>().promise;
    await this.hold?.promise;
    if (this.failures.history.length > 0) throw this.failures.history.shift();
    const head = this.currentHead;
    const oldestId = Math.max(1, Math.min(this.trimmedTo, head.id) + 1);
    if (!continues(after, head.epoch) || after.id > head.id || after.id + 1 < oldestId)
      return { kind: 'lost', head, oldestId };
    const events = this.log.filter(({ position }) => position !== null && position.id > after.id);
    return { kind: 'events', events: events.slice(0, limit), head };
  }

  async before(_channel: string, id: number | null, limits: PageLimits): Promise<HistoryPage> {
    const older = this.log.filter(({ position }) => id === null || (position?.id ?? 0) < id);
    const events = older.slice(-limits.events);
    return { events, more: events.length < older.length, epoch: this.currentHead.epoch };
  }

  health(): BrokerHealth {
    return { up: true };
  }

  async stop(): Promise<void> {
    this.sink = null;
  }

  get currentHead(): Position {
    return {
      epoch: this.log.length === 0 ? `${this.epoch.split('.')[0] ?? ''}.0` : this.epoch,
      id: this.log.length,
    };
  }

  append(channel: string, exclude = ''): EventEnvelope {
    const event = eventAt(channel, this.epoch, this.log.length + 1, exclude);
    this.log.push(event);
    return event;
  }

  announce(event: EventEnvelope): void {
    this.sink?.onEvent(event);
  }

  /** The storage has lost everything; what comes now is another life. */
  lose(epoch: string): void {
    this.log.length = 0;
    this.epoch = epoch;
    this.trimmedTo = 0;
  }
}

/** Keeps what is written as a store does: the last state of each entry. */
export class FakePresenceStore extends PresenceStore {
  /** Each write, as `alice 1` or `alice gone`, in order. */
  readonly writes: string[] = [];
  readonly announced: boolean[] = [];
  readonly state = new Map<string, number>();
  readonly names = new Map<string, string | undefined>();
  away = false;
  fault: Error | null = null;
  lose: (reaped: boolean) => void = () => undefined;

  start(onLost: (reaped: boolean) => void): void {
    this.lose = onLost;
    onLost(false);
  }

  async write(entries: readonly PresenceEntry[]): Promise<void> {
    if (this.away) throw new BrokerUnavailable();
    if (this.fault !== null) throw this.fault;
    for (const { scope, userId, name, connections, announce } of entries) {
      const key = `${scope === 'cluster' ? '' : `${scope} `}${userId}`;
      this.writes.push(`${key} ${connections ?? 'gone'}`);
      this.announced.push(announce);
      this.names.set(key, name);
      if (connections === null) this.state.delete(key);
      else this.state.set(key, connections);
    }
  }

  async page(): Promise<PresencePage> {
    return { count: this.writes.length, members: [] };
  }

  async rooms(): Promise<RoomsPage> {
    return { rooms: [] };
  }

  async counts(): Promise<RoomCounts> {
    return { members: 0, connections: 0 };
  }

  async totals(): Promise<ClusterTotals> {
    if (this.away) throw new BrokerUnavailable();
    return { connections: 1, users: 2, rooms: 3, instances: 4 };
  }

  async stop(): Promise<void> {
    this.writes.push('stop');
  }
}
