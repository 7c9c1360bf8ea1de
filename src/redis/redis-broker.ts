import { Logger } from '@nestjs/common';
import type {
  BrokerHealth,
  BrokerSink,
  EventEnvelope,
  History,
  HistoryPage,
  PageLimits,
  Publication,
  Published,
} from '../core/broker.js';
import { Broker, BrokerUnavailable } from '../core/broker.js';
import type { ChannelRules } from '../core/channel-rules.js';
import { continues } from '../core/position.js';
import type { Telemetry } from '../core/telemetry.js';
import type { Position } from '../protocol/messages.js';
import { BROADCAST } from '../protocol/names.js';
import { BusReader } from './bus-message.js';
import { RedisCalls } from './redis-calls.js';
import type { RedisClient, RedisClients } from './redis-clients.js';
import { RedisHeads } from './redis-heads.js';
import type { RedisKeys } from './redis-keys.js';
import { PARTITIONS, partitionOf } from './redis-keys.js';
import { RedisLink } from './redis-link.js';
import { RedisLives } from './redis-lives.js';
import type { PublisherOptions } from './redis-publisher.js';
import { RedisPublisher } from './redis-publisher.js';
import { RedisReplication } from './redis-replication.js';
import { rememberScript } from './scripts/acked.js';
import { claimScript } from './scripts/claim.js';
import { settleScript, unlockScript } from './scripts/fence.js';
import { inboundScript } from './scripts/inbound.js';
import { leasesScript } from './scripts/lease.js';
import { publishScript } from './scripts/publish.js';
import { beforeScript, headsScript, historyScript } from './scripts/read.js';
import type { Script } from './scripts/script.js';

/** A lost last event leaves no hole to see: how often what is stored is compared, with jitter. */
const SWEEP_MIN_MS = 20_000;
const SWEEP_SPREAD_MS = 20_000;
const PAGE_BYTES = 1_048_576;
const SCRIPTS = [
  publishScript,
  headsScript,
  historyScript,
  beforeScript,
  rememberScript,
  settleScript,
  unlockScript,
  leasesScript,
  claimScript,
  inboundScript,
];

export interface RedisBrokerOptions extends PublisherOptions {
  instance: string;
  /** Carry the notices of users who connect and disconnect. */
  announceUsers: boolean;
  /** An answer means that a replica has the event too. */
  replicated: boolean;
}

/** The broker over Redis: events by pub/sub, kept in streams, numbered, stored and announced in one step. */
export class RedisBroker extends Broker {
  private readonly logger = new Logger('RedisBroker');
  private readonly commands: RedisClient;
  /** Questions to the other instances, over the same connections. */
  readonly calls: RedisCalls;
  private readonly link: RedisLink;
  private readonly lives: RedisLives;
  private readonly heads: RedisHeads;
  private readonly publisher: RedisPublisher;
  private sink: BrokerSink | null = null;
  private sweepTimer: NodeJS.Timeout | null = null;
  /** By partition, the life, fence and number that were found at the last sweep. */
  private readonly swept = new Map<number, string | null>();
  private stopped = false;

  constructor(
    private readonly clients: RedisClients,
    private readonly keys: RedisKeys,
    private readonly rules: ChannelRules,
    private readonly options: RedisBrokerOptions,
    private readonly telemetry: Telemetry,
  ) {
    super();
    this.commands = clients.commands;
    this.link = new RedisLink(clients, keys, options.instance, telemetry, {
      onMessage: (bus, message) => this.onMessage(bus, message),
      prepare: () => this.prepare(),
      onUp: () => this.compareHeads(),
    });
    this.calls = new RedisCalls(clients, keys, options.instance);
    this.lives = new RedisLives(clients, this.commands, keys, options.instance, this.calls);
    this.heads = new RedisHeads(clients, keys, () => this.link.recover());
    const replication = options.replicated ? new RedisReplication(clients, keys) : null;
    this.publisher = new RedisPublisher(
      clients,
      this.commands,
      keys,
      rules,
      options,
      ({ partition, epoch, seq }) => this.lives.note(partition, epoch, seq),
      () => this.link.recover(),
      replication === null ? null : () => replication.confirm(),
    );
  }

  start(sink: BrokerSink): void {
    this.sink = sink;
    this.link.start();
    // Holes that could not be filled without this connection are found again.
    this.clients.reads.on('ready', () => this.compareHeadsNow());
    this.scheduleSweep();
  }

  isDurable(channel: string): boolean {
    return this.rules.isDurable(channel);
  }

  publish(publication: Publication): Promise<Published> {
    return this.link.canPublish
      ? this.publisher.publish(publication)
      : Promise.reject(new BrokerUnavailable());
  }

  subscribe(channel: string): Promise<void> {
    const partition = partitionOf(channel);
    return this.link.subscribe(this.keys.bus(channel, partition), { channel, partition });
  }

  unsubscribe(channel: string): void {
    this.link.release(this.keys.bus(channel));
  }

  head(channel: string): Promise<Position> {
    return this.heads.head(channel);
  }

  async history(channel: string, after: Position, limit: number): Promise<History> {
    const { historySize, historyTtlMs } = this.options;
    const answer = await this.readLog(historyScript, channel, [
      after.id,
      limit,
      PAGE_BYTES,
      historySize,
      historyTtlMs,
    ]);
    const [headText = '', oldest, ...rows] = answer;
    const head = this.heads.read(headText);
    if (head === null) throw new BrokerUnavailable();
    const oldestId = Number(oldest);
    if (!continues(after, head.epoch) || after.id > head.id || after.id + 1 < oldestId)
      return { kind: 'lost', head, oldestId };
    const events = readEvents(channel, head.epoch, rows);
    const hole = events.findIndex(({ position }, index) => position?.id !== after.id + 1 + index);
    if (hole === -1) return { kind: 'events', events, head };
    return { kind: 'lost', head, oldestId: Math.max(events[hole]?.position?.id ?? 0, oldestId) };
  }

  async before(channel: string, id: number | null, limits: PageLimits): Promise<HistoryPage> {
    const { historySize, historyTtlMs } = this.options;
    const args = [id ?? '', limits.events, limits.bytes, historySize, historyTtlMs];
    const [epoch = '', more, ...rows] = await this.readLog(beforeScript, channel, args);
    if (epoch === 'FENCED') this.link.recover();
    if (epoch === 'FENCED' || epoch.startsWith('ERROR')) throw new BrokerUnavailable(epoch);
    return { events: readEvents(channel, epoch, rows), more: more === '1', epoch };
  }

  health(): BrokerHealth {
    return this.link.health();
  }

  async stop(): Promise<void> {
    this.stopped = true;
    if (this.sweepTimer !== null) clearTimeout(this.sweepTimer);
    this.link.stop();
  }

  /** Between subscribing and publishing: the scripts are there, and nothing is numbered twice. */
  private async prepare(): Promise<void> {
    await this.clients.loadScripts(this.commands, SCRIPTS);
    if (this.options.announceUsers) {
      const partitions = Array.from({ length: PARTITIONS }, (_, partition) => partition);
      await this.link.subscribeOwn(partitions.map((partition) => this.keys.notices(partition)));
    }
    await this.lives.restore();
  }

  private async readLog(
    script: Script,
    channel: string,
    args: readonly (string | number)[],
  ): Promise<string[]> {
    const partition = partitionOf(channel);
    const base = this.keys.channel(partition, channel);
    const keys = [this.keys.life(partition), `${base}:meta`, `${base}:log`];
    const answer = await this.clients.run(this.clients.reads, script, keys, args);
    if (!Array.isArray(answer)) throw new BrokerUnavailable();
    return answer.map(String);
  }

  private scheduleSweep(): void {
    this.sweepTimer = setTimeout(
      () => {
        this.sweep()
          .catch((error: unknown) => this.logger.warn(`what is stored was not compared: ${String(error)}`))
          .finally(() => {
            if (!this.stopped) this.scheduleSweep();
          });
      },
      SWEEP_MIN_MS + Math.random() * SWEEP_SPREAD_MS,
    );
  }

  /**
   * Compares the heads of the channels in those partitions where something was written since the last sweep. One
   * read for each partition, however many channels and users there are.
   */
  private async sweep(): Promise<void> {
    if (!this.link.isUp) return;
    const partitions = new Set(this.link.sources.map(({ partition }) => partition));
    for (const partition of this.swept.keys()) if (!partitions.has(partition)) this.swept.delete(partition);
    const changed = new Set<number>();
    await Promise.all(
      [...partitions].map(async (partition) => {
        const stored = await this.commands.get(this.keys.life(partition));
        if (this.swept.get(partition) !== stored) changed.add(partition);
        this.swept.set(partition, stored);
      }),
    );
    if (changed.size > 0) await this.compareHeads((partition) => changed.has(partition));
  }

  private compareHeadsNow(): void {
    if (!this.link.isUp) return;
    this.compareHeads().catch((error: unknown) =>
      this.logger.warn(`heads were not compared: ${String(error)}`),
    );
  }

  /** Events may have been missed: the sink gets the heads of the channels it listens to. */
  private async compareHeads(inPartition: (partition: number) => boolean = () => true): Promise<void> {
    const channels = this.link.sources
      .filter(({ channel, partition }) => inPartition(partition) && this.isDurable(channel))
      .map(({ channel }) => channel);
    await this.heads.each(channels, (channel, head) => this.sink?.onHead(channel, head));
  }

  private onMessage(bus: string, message: Buffer): void {
    const source = this.link.sourceOf(bus);
    if (source === null) this.onOwnMessage(bus, message);
    else this.readEvents(source.channel, source.partition, message);
  }

  private readEvents(channel: string, partition: number, message: Buffer): void {
    const reader = new BusReader(channel, message);
    do {
      const read = reader.next();
      if (read === null) {
        this.telemetry.busMessageDropped('malformed');
        return;
      }
      const { position } = read.event;
      if (position !== null) this.lives.note(partition, position.epoch, read.seq);
      this.sink?.onEvent(read.event);
    } while (!reader.isDone);
  }

  private onOwnMessage(bus: string, message: Buffer): void {
    if (bus === this.keys.instance(this.options.instance)) {
      this.countForeign(this.calls.onAnswer(message.toString('utf8')));
    } else if (bus === this.keys.control) {
      this.onControlMessage(message.toString('utf8'));
    } else if (bus.endsWith(':notices')) {
      this.readEvents(BROADCAST, partitionOf(BROADCAST), message);
    }
  }

  private onControlMessage(message: string): void {
    if (message === 'settled') {
      // New lives may have begun: whoever is in a channel of theirs has to be told, not only those who hear its next event.
      this.compareHeadsNow();
      return;
    }
    this.countForeign(this.calls.onControlMessage(message));
  }

  private countForeign(isOurs: boolean): void {
    if (!isOurs) this.telemetry.busMessageDropped('malformed');
  }
}

/** Rows of id, exclude and body, as the reading scripts answer them. */
function readEvents(channel: string, epoch: string, rows: readonly string[]): EventEnvelope[] {
  const events: EventEnvelope[] = [];
  for (let row = 0; row + 2 < rows.length; row += 3) {
    const position = { epoch, id: Number(rows[row]) };
    events.push({
      channel,
      position,
      exclude: rows[row + 1] ?? '',
      body: Buffer.from(rows[row + 2] ?? '', 'utf8'),
    });
  }
  return events;
}
