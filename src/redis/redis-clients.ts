import { Injectable, Logger } from '@nestjs/common';
import type { ClusterOptions, RedisOptions } from 'ioredis';
import { Cluster, Redis } from 'ioredis';
import { Settings } from '../config/settings.js';
import { BrokerUnavailable } from '../core/broker.js';
import type { Script } from './scripts/script.js';

export type RedisClient = Redis | Cluster;
export type RedisRole = 'commands' | 'reads' | 'subscriber' | 'presence' | 'replication';

/** A command that is not answered within this is given up; its effect is then unknown. */
const COMMAND_TIMEOUT_MS = 1_200;
const CONNECT_TIMEOUT_MS = 2_000;
/** How often the owners of the slots are asked for, beside after every refused redirection. */
const SLOTS_REFRESH_MS = 2_000;
const RETRY_MIN_MS = 50;
const RETRY_MAX_MS = 500;
/** Repeated connection errors of one outage are logged once. */
const LOG_AGAIN_AFTER_MS = 30_000;

/**
 * The connections to Redis: for publishing, for reading events, for subscriptions, for presence. With `DURABILITY=replicated` one more waits for replicas.
 * None queues while Redis is away
 * and none sends a command twice: what to do about a lost answer is for the caller to decide.
 */
@Injectable()
export class RedisClients {
  /** In a cluster buses are sharded, so that a channel's traffic stays with its slot. */
  readonly sharded: boolean;
  readonly announce: 'PUBLISH' | 'SPUBLISH';
  /** For publishing. */
  readonly commands: RedisClient;
  /** For stored events: pages of them must not delay the answers to publications. */
  readonly reads: RedisClient;
  private readonly logger = new Logger('Redis');
  private readonly open = new Set<RedisClient>();

  constructor(private readonly settings: Settings) {
    this.sharded = settings.REDIS_CLUSTER_NODES !== undefined;
    this.announce = this.sharded ? 'SPUBLISH' : 'PUBLISH';
    this.commands = this.connect('commands');
    this.reads = this.connect('reads');
  }

  /** A new connection, which goes on trying for as long as it takes. */
  connect(role: RedisRole): RedisClient {
    return this.watch(role, this.create(role));
  }

  /** A connection for subscriptions; in a cluster to one of its nodes, `host:port`. */
  connectSubscriber(node?: string): Redis {
    const options = this.options('subscriber');
    const client =
      node === undefined ? this.createSingle(options) : new Redis({ ...options, ...hostPort(node) });
    return this.watch('subscriber', client);
  }

  private watch<Client extends RedisClient>(role: RedisRole, client: Client): Client {
    let loggedAtMs = -Infinity;
    client.on('error', (error: Error) => {
      if (performance.now() - loggedAtMs < LOG_AGAIN_AFTER_MS) return;
      loggedAtMs = performance.now();
      this.logger.warn(`${role} connection: ${error.message}`);
    });
    client.on('ready', () => {
      loggedAtMs = -Infinity;
      this.logger.log(`${role} connection is ready`);
    });
    // In a failover ioredis can give a connection up for good: nobody but us ends one.
    client.on('end', () => {
      if (this.open.has(client)) setTimeout(() => this.connectAgain(client), RETRY_MAX_MS).unref();
    });
    this.open.add(client);
    return client;
  }

  /** Calls a script that {@link loadScripts} has loaded. Rejects with `BrokerUnavailable` whatever went wrong. */
  async run(
    client: RedisClient,
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown> {
    try {
      return await client.evalsha(script.sha, keys.length, ...keys, ...args);
    } catch (error) {
      // A primary that has just been promoted, or somebody's SCRIPT FLUSH. It was not run; whoever asks again finds it.
      if (error instanceof Error && error.message.startsWith('NOSCRIPT')) await this.reload(client, script);
      if (client instanceof Cluster) client.refreshSlotsCache();
      throw new BrokerUnavailable(error);
    }
  }

  private async reload(client: RedisClient, script: Script): Promise<void> {
    try {
      await this.loadScripts(client, [script]);
    } catch (error) {
      this.logger.warn(`a script was not loaded: ${String(error)}`);
    }
  }

  /** Loads scripts into every primary; Redis forgets them when it restarts and does not replicate them. */
  async loadScripts(client: RedisClient, scripts: readonly Script[]): Promise<void> {
    const primaries = client instanceof Cluster ? client.nodes('master') : [client];
    await Promise.all(
      primaries.flatMap((node) => scripts.map((script) => node.script('LOAD', script.source))),
    );
  }

  /** Ends one connection. */
  close(client: RedisClient): void {
    this.open.delete(client);
    client.disconnect();
  }

  /** Ends them all. */
  disconnect(): void {
    for (const client of this.open) this.close(client);
  }

  private connectAgain(client: RedisClient): void {
    if (!this.open.has(client) || client.status !== 'end') return;
    client.connect().catch((error: unknown) => this.logger.warn(`not connected again: ${String(error)}`));
  }

  private create(role: RedisRole): RedisClient {
    const options = this.options(role);
    const { REDIS_CLUSTER_NODES } = this.settings;
    if (REDIS_CLUSTER_NODES === undefined) return this.createSingle(options);
    const cluster: ClusterOptions = {
      enableOfflineQueue: false,
      // A command that was sent elsewhere and sent again would overtake later ones: its caller repeats it.
      maxRedirections: 0,
      retryDelayOnFailover: 0,
      slotsRefreshInterval: SLOTS_REFRESH_MS,
      clusterRetryStrategy: backoffMs,
      redisOptions: options,
    };
    return new Cluster(REDIS_CLUSTER_NODES.map(hostPort), cluster);
  }

  private createSingle(options: RedisOptions): Redis {
    const { REDIS_URL, REDIS_SENTINELS, REDIS_SENTINEL_NAME } = this.settings;
    if (REDIS_SENTINELS === undefined) return new Redis(REDIS_URL ?? '', options);
    return new Redis({
      ...options,
      sentinels: REDIS_SENTINELS.map(hostPort),
      name: REDIS_SENTINEL_NAME,
      failoverDetector: true,
      sentinelRetryStrategy: backoffMs,
    });
  }

  private options(role: RedisRole): RedisOptions {
    return {
      connectionName: `${this.settings.REDIS_PREFIX}-${role}`,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 1,
      autoResendUnfulfilledCommands: false,
      autoResubscribe: false,
      commandTimeout: COMMAND_TIMEOUT_MS,
      connectTimeout: CONNECT_TIMEOUT_MS,
      retryStrategy: backoffMs,
    };
  }
}

/** The answer of a plain command. Rejects with `BrokerUnavailable` whatever went wrong. */
export async function reach<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw error instanceof BrokerUnavailable ? error : new BrokerUnavailable(error);
  }
}

/** Exponential with jitter, short enough that traffic flows again within 3 s of Redis being back. */
function backoffMs(attempt: number): number {
  return (
    Math.min(RETRY_MIN_MS * 2 ** Math.min(attempt, 10), RETRY_MAX_MS) +
    Math.floor(Math.random() * RETRY_MIN_MS)
  );
}

function hostPort(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) };
}
