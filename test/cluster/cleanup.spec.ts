import { describe, expect, it } from 'vitest';
import { serveCluster, type Cluster } from '../support/cluster.js';
import { eventually } from '../support/eventually.js';
import { Gateway } from '../support/gateway.js';
import { stats } from '../support/http.js';
import { randomWalk } from '../support/random-walk.js';

const walk = { operations: 10_000, clients: 100, seed: 20_261_122 };

/** The keys that are not the retained events, ids and idempotency results of a channel. */
async function stateKeys(cluster: Cluster): Promise<string[]> {
  const keys = await cluster.redis.keys('fanfare*');
  return keys.filter((key) => !/:(meta|log|life|idem:.*)$/.test(key));
}

describe('10,000 random operations by 100 clients', () => {
  const cluster = serveCluster({ PRESENCE_GRACE_MS: '200' });

  it('leave no room, no subscription and no presence behind', { timeout: 120_000 }, async () => {
    const { one, other, redis, gateways } = cluster();
    const idle = {
      subscriptions: await redis.subscriptions('fanfare*'),
      keys: await stateKeys(cluster()),
    };
    const steps = await randomWalk({
      ...walk,
      connect: (walker, random) => (random() < 0.5 ? one : other).as(`walker-${walker}`),
    });
    expect([...steps.values()].reduce((sum, count) => sum + count)).toBe(walk.operations);
    expect(Math.min(...steps.values())).toBeGreaterThan(100);

    await eventually(
      async () => {
        for (const gateway of gateways) {
          expect(await stats(gateway.url)).toMatchObject({
            local_connections: 0,
            rooms: 0,
            cluster: { connections: 0, users: 0, rooms: 0, instances: 2 },
          });
        }
      },
      { timeoutMs: 10_000 },
    );
    await eventually(
      async () => {
        expect(await redis.subscriptions('fanfare*')).toEqual(idle.subscriptions);
        expect(await stateKeys(cluster())).toEqual(idle.keys);
      },
      { timeoutMs: 20_000, everyMs: 200 },
    );
    expect(gateways.map((gateway) => gateway.isRunning)).toEqual([true, true]);
    expect(gateways.map((gateway) => gateway.stderr)).toEqual(['', '']);
  });

  it('leave no room and no timer behind in the embedded broker', { timeout: 60_000 }, async () => {
    const gateway = await Gateway.start({ PRESENCE_GRACE_MS: '100', RATE_LIMIT_PER_SECOND: '0' });
    const timers = (): number =>
      process
        .getActiveResourcesInfo()
        .filter((resource) => resource === 'Timeout' || resource === 'Immediate').length;
    try {
      await (await gateway.as('first')).close();
      await eventually(async () => {
        expect(await stats(gateway.url)).toMatchObject({ local_connections: 0, cluster: { users: 0 } });
      });
      const idle = timers();
      await randomWalk({ ...walk, connect: (walker) => gateway.as(`walker-${walker}`) });
      await eventually(
        async () => {
          expect(await stats(gateway.url)).toMatchObject({
            local_connections: 0,
            rooms: 0,
            cluster: { connections: 0, users: 0, rooms: 0, instances: 1 },
          });
          expect(timers()).toBeLessThanOrEqual(idle);
        },
        { timeoutMs: 15_000, everyMs: 200 },
      );
    } finally {
      await gateway.close();
    }
  });
});
