import { Injectable } from '@nestjs/common';
import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import { Telemetry } from '../core/telemetry.js';
import { CLOSE } from '../protocol/close-codes.js';
import { TalliedCounter } from './tallied-counter.js';

/** Close codes that come from below or from the client's own wish; any other is counted as `other`. */
const COMMON_CODES = [1000, 1001, 1002, 1005, 1006, 1007, 1008, 1009];

/** The loop's delay is measured by waking up as often; the library's own 10 ms take nearly 1 % of a core. */
const LOOP_DELAY_PRECISION_MS = 20;

/** Every metric of the gateway (prefix `fanfare_`), in a registry of its own. No id is ever a label. */
@Injectable()
export class MetricsService extends Telemetry {
  readonly registry = new Registry();
  private readonly codes = new Set<number>([
    ...COMMON_CODES,
    ...Object.values(CLOSE).map(({ code }) => code),
  ]);

  private readonly connections = new Gauge({
    name: 'fanfare_connections',
    help: 'Open connections of this instance.',
    registers: [this.registry],
  });
  private readonly disconnects = this.counter(
    'fanfare_disconnects_total',
    'Connections that ended, by close code.',
    ['code'],
  );
  private readonly rejected = this.counter(
    'fanfare_handshake_rejected_total',
    'Upgrades refused, by HTTP status.',
    ['status'],
  );
  private readonly received = this.tallied(
    'fanfare_messages_received_total',
    'Messages of clients, by type; unknown, invalid and limited ones too.',
    ['type'],
  );
  private readonly published = this.tallied(
    'fanfare_events_published_total',
    'Publications of this instance.',
    ['durability', 'result'],
  );
  private readonly delivered = this.tallied(
    'fanfare_events_delivered_total',
    'Events handed to local connections.',
    [],
  );
  private readonly errors = this.counter('fanfare_errors_sent_total', 'Error events sent, by code.', [
    'code',
  ]);
  private readonly holes = this.counter(
    'fanfare_holes_total',
    'Missed events found, by what became of them.',
    ['result'],
  );
  private readonly dropped = this.counter(
    'fanfare_dropped_bus_messages_total',
    'What others have put on our buses and streams.',
    ['reason'],
  );
  private readonly reconnects = this.counter('fanfare_redis_reconnects_total', 'Connections made to Redis.', [
    'role',
  ]);
  private readonly probes = this.counter(
    'fanfare_redis_probe_timeouts_total',
    'Probes that did not come back.',
    [],
  );
  private countRooms: () => number = () => 0;

  constructor() {
    super();
    const rooms: Gauge = new Gauge({
      name: 'fanfare_rooms',
      help: 'Rooms that connections of this instance are in.',
      registers: [this.registry],
      collect: () => {
        rooms.set(this.countRooms());
      },
    });
    collectDefaultMetrics({ register: this.registry, eventLoopMonitoringPrecision: LOOP_DELAY_PRECISION_MS });
  }

  /** Where the number of rooms is read when metrics are collected. */
  watchRooms(countRooms: () => number): void {
    this.countRooms = countRooms;
  }

  messageReceived(type: string): void {
    this.received.add(type, { type });
  }

  eventPublished(durability: 'durable' | 'ephemeral', result: 'ok' | 'duplicate' | 'unavailable'): void {
    this.published.add(`${durability} ${result}`, { durability, result });
  }

  eventsDelivered(count: number): void {
    this.delivered.add('', {}, count);
  }

  connectionOpened(): void {
    this.connections.inc();
  }

  connectionClosed(code: number): void {
    this.connections.dec();
    this.disconnects.inc({ code: this.codes.has(code) ? String(code) : 'other' });
  }

  handshakeRejected(status: number): void {
    this.rejected.inc({ status: String(status) });
  }

  errorSent(code: string): void {
    this.errors.inc({ code });
  }

  holeFound(result: 'filled' | 'gap' | 'failed'): void {
    this.holes.inc({ result });
  }

  busMessageDropped(reason: 'malformed'): void {
    this.dropped.inc({ reason });
  }

  redisReconnected(role: string): void {
    this.reconnects.inc({ role });
  }

  probeMissed(): void {
    this.probes.inc();
  }

  private tallied<Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
  ): TalliedCounter<Label> {
    return new TalliedCounter({ name, help, labelNames, registers: [this.registry] });
  }

  private counter<Label extends string>(name: string, help: string, labelNames: Label[]): Counter<Label> {
    return new Counter({ name, help, labelNames, registers: [this.registry] });
  }
}
