import { setTimeout as pause } from 'node:timers/promises';
import { RedisServer } from '../../test/support/redis-server.js';
import { Fleet } from '../fleet.js';
import type { Row } from '../row.js';
import { ResumingClient } from '../client.js';

/** Longer than the longest pause between two sweeps. */
const MEASURED_S = 45;
const SETTLE_MS = 8_000;
/** Three instances ask for 256 partitions in a sweep, every 20 s at most: 38 a second. The rest is leases and probes. */
const MAX_PER_SECOND = 100;

export const idle: Row = {
  name: 'idle',
  fault: 'none: 1,000 and 10,000 idle users (quick: 200 and 2,000)',
  criterion: '<= 100 commands a second of Redis with either number: no command for each user',
  extraSeconds: 300,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const steps = context.size.isQuick ? [200, 2_000] : [1_000, 10_000];
    const fleet = await Fleet.start(context, { redis, size: { clients: 0 } });
    const rates: number[] = [];
    const notes: string[] = [];
    for (const count of steps) {
      const fresh = Array.from(
        { length: count - fleet.clients.length },
        (_value, index) => new ResumingClient(`idle${fleet.clients.length + index}`, `r${index % 20}`, fleet),
      );
      fleet.clients.push(...fresh);
      await fleet.connectAll(fresh);
      await pause(SETTLE_MS);
      await redis.commands.config('RESETSTAT');
      const began = performance.now();
      await pause(MEASURED_S * 1000);
      const { total, top } = await commandsOf(redis);
      const rate = total / ((performance.now() - began) / 1000);
      rates.push(rate);
      notes.push(`${count} users: ${rate.toFixed(1)}/s (${top})`);
    }
    const failures: string[] = [];
    if (rates.some((rate) => rate > MAX_PER_SECOND)) failures.push('too many commands');
    if (fleet.tally.closes.size > 0) failures.push('clients were disconnected');
    return { closes: fleet.tally.closes, rssGrowthMb: fleet.rssGrowthMb, notes, failures };
  },
};

async function commandsOf(redis: RedisServer): Promise<{ total: number; top: string }> {
  const info = await redis.commands.info('commandstats');
  const calls = [...info.matchAll(/cmdstat_(\S+?):calls=(\d+)/g)].map(([, name = '', count]) => ({
    name,
    count: Number(count),
  }));
  const sorted = calls
    .filter(({ name }) => !name.startsWith('config') && name !== 'info')
    .sort((a, b) => b.count - a.count);
  return {
    total: sorted.reduce((sum, { count }) => sum + count, 0),
    top: sorted
      .slice(0, 4)
      .map(({ name, count }) => `${name} ${(count / MEASURED_S).toFixed(1)}`)
      .join(', '),
  };
}
