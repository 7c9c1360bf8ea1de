import { afterAll, afterEach, beforeAll } from 'vitest';
import { closeClients } from './client.js';
import { eventually } from './eventually.js';
import { GatewayProcess } from './gateway-process.js';
import { status } from './http.js';
import { RedisServer } from './redis-server.js';

/** Two instances, each a process of its own, and the one Redis between them. */
export class Cluster {
  private constructor(
    readonly redis: RedisServer,
    readonly one: GatewayProcess,
    readonly other: GatewayProcess,
  ) {}

  static async start(environment: Record<string, string> = {}): Promise<Cluster> {
    const redis = await RedisServer.start();
    const settings = { REDIS_URL: redis.url, RATE_LIMIT_PER_SECOND: '0', LOG_LEVEL: 'info', ...environment };
    const [one, other] = await Promise.all([GatewayProcess.start(settings), GatewayProcess.start(settings)]);
    const cluster = new Cluster(redis, one, other);
    await Promise.all(cluster.gateways.map((gateway) => ready(gateway)));
    return cluster;
  }

  get gateways(): GatewayProcess[] {
    return [this.one, this.other];
  }

  async dispose(): Promise<void> {
    await closeClients();
    await Promise.all(this.gateways.map((gateway) => gateway.dispose()));
    await this.redis.dispose();
  }
}

/** Resolves once /health/ready answers 200. */
export async function ready(gateway: GatewayProcess, timeoutMs = 10_000): Promise<void> {
  await eventually(
    async () => {
      const answer = await status(`${gateway.url}/health/ready`);
      if (answer !== 200) throw new Error(`/health/ready answers ${answer}: ${gateway.output}`);
    },
    { timeoutMs },
  );
}

/** Runs a cluster for the tests of this suite; each test's clients are closed after it. */
export function serveCluster(environment: Record<string, string> = {}): () => Cluster {
  let cluster: Cluster | undefined;
  beforeAll(async () => {
    cluster = await Cluster.start(environment);
  });
  afterEach(closeClients);
  afterAll(async () => {
    await cluster?.dispose();
  });
  return () => {
    if (cluster === undefined) throw new Error('the cluster has not started');
    return cluster;
  };
}
