import { Logger } from '@nestjs/common';
import { readSettings } from '../../src/config/settings.js';
import { ChannelRules } from '../../src/core/channel-rules.js';
import { RedisAckedPositions } from '../../src/redis/redis-acked-positions.js';
import { RedisBroker } from '../../src/redis/redis-broker.js';
import { RedisClients } from '../../src/redis/redis-clients.js';
import { RedisIdempotency } from '../../src/redis/redis-idempotency.js';
import { RedisKeys } from '../../src/redis/redis-keys.js';
import { RedisPresence } from '../../src/redis/redis-presence.js';
import { eventually } from '../support/eventually.js';
import { fresh } from '../support/names.js';
import type { RedisServer } from '../support/redis-server.js';
import { FakeTelemetry } from '../unit/fakes.js';
import type { BrokerOptions } from './broker.contract.js';
import { defaults } from './broker.contract.js';
import { RecordingSink } from './recording-sink.js';

// What the instances log about a Redis that these tests take away on purpose.
Logger.overrideLogger(false);

export interface InstanceOptions extends BrokerOptions {
  prefix: string;
  announceUsers: boolean;
  announceMembersMax: number;
  graceMs: number;
}

/** The Redis side of one gateway instance, as its module wires it. */
export class RedisInstance {
  readonly name = fresh('instance');
  readonly telemetry = new FakeTelemetry();
  readonly sink = new RecordingSink();
  readonly keys: RedisKeys;
  readonly broker: RedisBroker;
  readonly presence: RedisPresence;
  /** What the store said when its entries were not stored (any more). */
  readonly lost: boolean[] = [];
  private readonly clients: RedisClients;

  private constructor(server: RedisServer, options: InstanceOptions) {
    const { prefix } = options;
    const { name: instance } = this;
    this.clients = new RedisClients(readSettings({ REDIS_URL: server.url, REDIS_PREFIX: prefix }));
    this.keys = new RedisKeys(prefix);
    this.broker = new RedisBroker(
      this.clients,
      this.keys,
      new ChannelRules(options.ephemeral),
      { ...options, instance, replicated: false },
      this.telemetry,
    );
    this.presence = new RedisPresence(this.clients, this.keys, { ...options, instance, webhooks: false });
  }

  /** Resolves when it is up and has its lease. */
  static async start(server: RedisServer, options: Partial<InstanceOptions> = {}): Promise<RedisInstance> {
    const instance = new RedisInstance(server, {
      ...defaults,
      prefix: fresh('t'),
      announceUsers: false,
      announceMembersMax: 1_000,
      graceMs: 1_000,
      ...options,
    });
    instance.broker.start(instance.sink);
    instance.presence.start((reaped) => instance.lost.push(reaped));
    await instance.up();
    return instance;
  }

  async up(): Promise<void> {
    await eventually(
      () => {
        const { up, reason = '' } = this.broker.health();
        if (!up || this.lost.length === 0) throw new Error(`${this.name} is not up: ${reason}`);
      },
      { timeoutMs: 10_000, everyMs: 10 },
    );
  }

  ackedPositions(): RedisAckedPositions {
    return new RedisAckedPositions(this.clients, this.keys);
  }

  answers(ttlMs: number): RedisIdempotency {
    return new RedisIdempotency(this.clients, this.keys, ttlMs);
  }

  /** Ends without a word, as a process that was killed. */
  async crash(): Promise<void> {
    this.clients.disconnect();
    await this.end();
  }

  async close(): Promise<void> {
    await this.end();
    this.clients.disconnect();
  }

  /** What can't be said to a Redis that is away is not said. */
  private async end(): Promise<void> {
    await Promise.allSettled([this.presence.stop(), this.broker.stop()]);
  }
}
