import { Logger } from '@nestjs/common';
import type { BrokerHealth } from '../core/broker.js';
import { BrokerUnavailable } from '../core/broker.js';
import type { Telemetry } from '../core/telemetry.js';
import type { RedisClients } from './redis-clients.js';
import type { RedisKeys } from './redis-keys.js';
import { PARTITIONS } from './redis-keys.js';
import { RedisLines } from './redis-lines.js';
import type { Source } from './redis-subscriptions.js';
import { RedisSubscriptions } from './redis-subscriptions.js';

/** How often a message is sent to ourselves through the commands connection and every line. */
const PROBE_MS = 2_000;
/** Without a probe for this long a line is not trusted any more. */
const PROBE_STALE_MS = 5_500;
const RECOVER_AGAIN_MS = 200;
/** How long who wants to subscribe waits for a line. */
const LINE_PATIENCE_MS = 700;

export interface LinkListener {
  onMessage(bus: string, message: Buffer): void;
  /** Everything is subscribed again; publishing starts when this is done. */
  prepare(): Promise<void>;
  /** Up again: events may have been missed meanwhile. */
  onUp(): Promise<void>;
}

/**
 * The way to Redis and back: up when commands and all lines are connected, everything is subscribed, the listener is
 * prepared. A probe goes round through each line every few seconds; a line that swallows it is rebuilt.
 */
export class RedisLink {
  private readonly logger = new Logger('RedisLink');
  private readonly lines: RedisLines;
  private readonly subscriptions: RedisSubscriptions;
  /** Monotonic ms at which each line brought a probe last; since it was opened where it brought none. */
  private readonly probed = new Map<string, number>();
  private timer: NodeJS.Timeout | null = null;
  private up = false;
  /** The scripts are loaded and the numbering is settled, on the present commands connection. */
  private prepared = false;
  /** Those who want to subscribe, while a line is made anew; called with null when it is there. */
  private readonly waiting = new Set<(failure: Error | null) => void>();
  private everProbed = false;
  /** Connections lost so far: a recovery that was overtaken by a loss is none. */
  private losses = 0;
  private recovering = false;
  /** Something happened while a recovery was under way: another one follows. */
  private again = false;
  private stopped = false;

  constructor(
    private readonly clients: RedisClients,
    private readonly keys: RedisKeys,
    private readonly instance: string,
    private readonly telemetry: Telemetry,
    private readonly listener: LinkListener,
  ) {
    this.lines = new RedisLines(clients, {
      onMessage: (bus, message) => this.onMessage(bus, message),
      onReady: () => this.onReady('subscriber'),
      onLost: (line) => this.onLost(line),
      onMoved: (line) => {
        this.onLost(line);
        this.recover();
      },
    });
    this.subscriptions = new RedisSubscriptions(clients, this.lines);
  }

  get isUp(): boolean {
    return this.up;
  }

  /** Publishing needs no line: a subscription that is cut is none of the publishers' business. */
  get canPublish(): boolean {
    return this.prepared && this.clients.commands.status === 'ready';
  }

  start(): void {
    this.clients.commands.on('ready', () => this.onReady('commands'));
    this.clients.commands.on('close', () => {
      this.prepared = false;
      this.onLost(null);
    });
    this.timer = setInterval(() => this.probe(), PROBE_MS);
    this.recover();
  }

  stop(): void {
    this.stopped = true;
    if (this.timer !== null) clearInterval(this.timer);
    this.subscriptions.stop();
    this.lines.stop();
  }

  health(): BrokerHealth {
    if (!this.canPublish) return { up: false, reason: 'Redis is away' };
    // A line that is only being made anew is not missed before its probe is.
    const nowMs = performance.now();
    if (!this.everProbed || this.lines.names.some((line) => this.isStale(line, nowMs))) {
      return { up: false, reason: 'no probe came back through the subscription' };
    }
    return { up: true };
  }

  /** Resolves once the bus is live. Rejects with `BrokerUnavailable`. */
  subscribe(bus: string, source: Source): Promise<void> {
    if (this.up) return this.subscriptions.add(bus, source);
    return this.comesUp().then(() => this.subscriptions.add(bus, source));
  }

  /** A line is made anew in no time; what takes longer is an outage. */
  private comesUp(): Promise<void> {
    if (!this.canPublish) return Promise.reject(new BrokerUnavailable());
    return new Promise((resolve, reject) => {
      const settle = (failure: Error | null): void => {
        clearTimeout(timer);
        this.waiting.delete(settle);
        if (failure === null) resolve();
        else reject(failure);
      };
      const timer = setTimeout(
        () => settle(new BrokerUnavailable('a line to Redis is away')),
        LINE_PATIENCE_MS,
      );
      this.waiting.add(settle);
    });
  }

  /** The channels whose buses are listened to, or will be again. */
  get sources(): Source[] {
    return this.subscriptions.sources;
  }

  /** Null for a bus of the instance's own, and for one that is not listened to. */
  sourceOf(bus: string): Source | null {
    return this.subscriptions.sourceOf(bus);
  }

  release(bus: string): void {
    this.subscriptions.release(bus);
  }

  /** Brings everything back after something was lost, moved or fenced; tries until it is done. */
  recover(): void {
    if (this.recovering) this.again = true;
    if (this.recovering || this.stopped || this.clients.commands.status !== 'ready') return;
    this.recovering = true;
    this.again = false;
    this.recoverOnce().then(
      () => {
        this.recovering = false;
        if (this.again) this.recover();
      },
      (error: unknown) => {
        this.recovering = false;
        this.logger.warn(`not recovered yet: ${error instanceof Error ? error.message : String(error)}`);
        setTimeout(() => this.recover(), RECOVER_AGAIN_MS).unref();
      },
    );
  }

  private async recoverOnce(): Promise<void> {
    const { losses } = this;
    await this.lines.refresh();
    // The last line to become ready starts the next recovery.
    if (!this.lines.isReady) return;
    await Promise.all(
      [this.keys.control, this.keys.instance(this.instance)].map((bus) => this.subscriptions.add(bus)),
    );
    await this.subscriptions.restore();
    await this.listener.prepare();
    if (losses !== this.losses) throw new BrokerUnavailable('a connection was lost again');
    this.prepared = true;
    this.up = true;
    for (const settle of this.waiting) settle(null);
    for (const line of this.lines.names) this.probed.set(line, performance.now());
    await this.probeAll();
    await this.listener.onUp();
  }

  /** Makes sure that own buses of the listener are subscribed, while it prepares. */
  async subscribeOwn(buses: readonly string[]): Promise<void> {
    await Promise.all(buses.map((bus) => this.subscriptions.add(bus)));
  }

  private onReady(role: string): void {
    this.telemetry.redisReconnected(role);
    this.recover();
  }

  private onLost(line: string | null): void {
    this.up = false;
    this.losses += 1;
    if (line !== null) this.subscriptions.lose(line);
    if (this.canPublish) return;
    for (const settle of this.waiting) settle(new BrokerUnavailable());
  }

  private onMessage(bus: string, message: Buffer): void {
    const line = this.lineOfProbe(bus);
    if (line === null) {
      this.listener.onMessage(bus, message);
      return;
    }
    this.everProbed = true;
    this.probed.set(line, performance.now());
  }

  private probe(): void {
    if (!this.up) {
      this.recover();
      return;
    }
    const nowMs = performance.now();
    for (const line of this.lines.names.filter((name) => this.isStale(name, nowMs))) {
      this.logger.warn('a line to Redis swallows what is sent: it is rebuilt');
      this.telemetry.probeMissed();
      this.lines.rebuild(line);
    }
    this.probeAll().catch((error: unknown) => this.logger.warn(`a probe was not sent: ${String(error)}`));
  }

  private async probeAll(): Promise<void> {
    const { commands, sharded } = this.clients;
    await Promise.all(
      this.lines.names.map(async (line) => {
        const bus = this.probeBusOf(line);
        if (bus === null) return;
        await this.subscriptions.add(bus);
        await (sharded ? commands.spublish(bus, line) : commands.publish(bus, line));
      }),
    );
  }

  private isStale(line: string, nowMs: number): boolean {
    return nowMs - (this.probed.get(line) ?? -Infinity) > PROBE_STALE_MS;
  }

  /** A bus of ours in a slot that the line is responsible for. */
  private probeBusOf(line: string): string | null {
    for (let partition = 0; partition < PARTITIONS; partition += 1) {
      const bus = this.keys.probe(partition, this.instance);
      if (this.lines.lineOf(bus) === line) return bus;
    }
    return null;
  }

  private lineOfProbe(bus: string): string | null {
    return bus.endsWith(`:probe:${this.instance}`) ? this.lines.lineOf(bus) : null;
  }
}
