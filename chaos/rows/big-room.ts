import { setTimeout as pause } from 'node:timers/promises';
import type { Client, Message } from '../../test/support/client.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { Crowd } from '../crowd.js';
import { Fleet } from '../fleet.js';
import type { Row } from '../row.js';

/** Longer than the longest pause between two sweeps. */
const MEASURED_S = 45;
/** The same: the first sweep after members came reads the heads of their channels, once. */
const SETTLE_MS = 45_000;
const COUNTS = 200;
/**
 * An instance reads one number for each partition that it has channels in, every 20 s at most: with a hundred members
 * those of some, with thousands all 256 of them, 38 a second for three instances, and not one more with a million.
 */
const PARTITIONS_PER_SECOND = 40;
const ROOM = 'big';

/** Calls by command, of clients and within scripts. */
type Calls = ReadonlyMap<string, number>;

interface Figures {
  readonly members: number;
  /** Commands that one `presence` takes, by name. */
  readonly count: string;
  readonly idlePerSecond: number;
}

export const bigRoom: Row = {
  name: 'big-room',
  fault: 'none: one room of 100, then 10,000 members on three instances (quick: 1,000)',
  criterion:
    'count right; pages have each member once; the same commands for one count with either number; idle commands grow by those for 256 partitions at most',
  extraSeconds: 600,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, {
      redis,
      size: { clients: 0 },
      // Each of the first thousand would be told to all others.
      settings: { ANNOUNCE_MEMBERS_MAX: '1' },
    });
    const crowd = context.own(Crowd.start());
    const asker = await fleet.gateways[0]?.as('asker');
    if (asker === undefined) throw new Error('no gateway');
    await asker.request({ type: 'join_room', room: ROOM });
    const failures: string[] = [];
    const figures: Figures[] = [];
    let joined = 0;
    for (const members of context.size.isQuick ? [100, 1_000] : [100, 10_000]) {
      context.status = () => `${members} members`;
      const fresh = Array.from({ length: members - 1 - joined }, (_value, index) => joined + index);
      await crowd.open(
        fresh.map((index) => ({
          url: `${fleet.gateways[index % 3]?.ws()}?client_id=m${index}`,
          says: [JSON.stringify({ type: 'join_room', room: ROOM })],
          until: '"event":"joined_room"',
        })),
      );
      joined = members - 1;
      await pause(SETTLE_MS);
      for (const limit of [1_000, 333]) failures.push(...(await pageFaults(asker, members, limit)));
      figures.push({ members, ...(await measure(redis, asker)) });
    }
    const [small, large] = figures;
    if (small === undefined || large === undefined) throw new Error('nothing was measured');
    if (small.count !== large.count) failures.push('one count takes more commands with more members');
    if (large.idlePerSecond > small.idlePerSecond + PARTITIONS_PER_SECOND)
      failures.push('idle commands grow with the members');
    const notes = figures.map(
      ({ members, count, idlePerSecond }) =>
        `${members} members: one count takes ${count}; idle ${idlePerSecond.toFixed(1)} commands/s`,
    );
    return { failures, notes, rssGrowthMb: fleet.rssGrowthMb };
  },
};

async function pageFaults(asker: Client, members: number, limit: number): Promise<string[]> {
  const seen: string[] = [];
  const counts = new Set<unknown>();
  let page: Message;
  let cursor: unknown;
  do {
    page = await asker.request({ type: 'presence', room: ROOM, limit, cursor });
    counts.add(page['count']);
    const rows = page['members'] as { user_id: string; connections: number }[];
    for (const { user_id, connections } of rows) if (connections === 1) seen.push(user_id);
    cursor = page['cursor'];
  } while (cursor !== undefined);
  const faults: string[] = [];
  if (counts.size !== 1 || !counts.has(members))
    faults.push(`count is ${[...counts].join()} instead of ${members}`);
  const expected = new Set(['asker', ...Array.from({ length: members - 1 }, (_value, index) => `m${index}`)]);
  const distinct = new Set(seen);
  if (distinct.size !== seen.length)
    faults.push(`${seen.length - distinct.size} members twice in pages of ${limit}`);
  const missing = [...expected].filter((user) => !distinct.has(user)).length;
  const strange = [...distinct].filter((user) => !expected.has(user)).length;
  if (missing + strange > 0)
    faults.push(`${missing} members missing, ${strange} strange in pages of ${limit}`);
  return faults;
}

async function measure(redis: RedisServer, asker: Client): Promise<Omit<Figures, 'members'>> {
  const idle = await callsDuring(redis, () => pause(MEASURED_S * 1000));
  const idlePerSecond = sum(idle) / MEASURED_S;
  const began = performance.now();
  const asked = await callsDuring(redis, async () => {
    for (let index = 0; index < COUNTS; index += 1)
      await asker.request({ type: 'presence', room: ROOM, limit: 1 });
  });
  const seconds = (performance.now() - began) / 1000;
  // What comes anyway, in the same time, is not the count's; what is left of it is far below one call for each.
  const perCount = [...asked]
    .map(
      ([name, calls]) => [name, (calls - ((idle.get(name) ?? 0) / MEASURED_S) * seconds) / COUNTS] as const,
    )
    .filter(([, calls]) => calls > 0.3)
    .map(([name, calls]) => `${Math.round(calls)} ${name}`)
    .sort();
  return { idlePerSecond, count: perCount.join(' + ') };
}

async function callsDuring(redis: RedisServer, act: () => Promise<unknown>): Promise<Calls> {
  const before = await callsOf(redis);
  await act();
  const after = await callsOf(redis);
  return new Map([...after].map(([name, calls]) => [name, calls - (before.get(name) ?? 0)]));
}

async function callsOf(redis: RedisServer): Promise<Calls> {
  const info = await redis.commands.info('commandstats');
  const calls = [...info.matchAll(/cmdstat_(\S+?):calls=(\d+)/g)].map(
    ([, name = '', count]) => [name, Number(count)] as const,
  );
  return new Map(calls.filter(([name]) => name !== 'info'));
}

function sum(calls: Calls): number {
  return [...calls.values()].reduce((total, count) => total + count, 0);
}
