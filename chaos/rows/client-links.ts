import { setTimeout as pause } from 'node:timers/promises';
import { Fleet, percentile } from '../fleet.js';
import type { Row } from '../row.js';
import { RedisServer } from '../../test/support/redis-server.js';

/** Of the clients, by second. */
const KILLED_SHARE = 0.2;
const SEAM_CLIENTS = 200;

export const linkCut: Row = {
  name: '2',
  fault: 'client links cut, 20 %/s, resume anywhere',
  criterion: '0 lost, 0 doubled, no gap; at full load >= 10,000 resumes',
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, { redis });
    const { clients, seconds } = fleet.size;
    // Who is away can't be cut: aim above the share, so that the resumes reach what the row asks.
    const wanted = context.size.isQuick ? clients * seconds * 0.1 : clients * seconds * 0.2;
    fleet.startLoad();
    const until = performance.now() + seconds * 1000;
    const everyMs = 1000 / (clients * KILLED_SHARE);
    let due = performance.now();
    let cut = 0;
    while ((performance.now() < until || cut < wanted) && performance.now() < until + seconds * 1000) {
      while (due < performance.now()) {
        due += everyMs;
        const joined = fleet.clients.filter((client) => client.isJoined);
        const victim = joined[Math.floor(Math.random() * joined.length)];
        if (victim === undefined) continue;
        victim.cut();
        cut += 1;
      }
      await pause(5);
    }
    await fleet.stopLoad();
    const { tally } = fleet;
    const failures: string[] = [];
    if (tally.resumes < wanted) failures.push(`only ${tally.resumes} of ${wanted} resumes`);
    if (tally.notRecovered > 0) failures.push(`${tally.notRecovered} resumes did not recover`);
    if (fleet.ledger.gaps > 0) failures.push('a gap was told');
    return fleet.result(failures, [
      `${tally.resumes} resumes of rooms`,
      `resume p99 ${Math.round(percentile(tally.resumeMs, 0.99))} ms`,
    ]);
  },
};

export const seams: Row = {
  name: '3',
  fault: 'one room at full rate, 200 clients leave and resume in a loop',
  criterion: '0 lost, 0 doubled, no gap; >= 20,000 seams (quick: 2,000)',
  extraSeconds: 120,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const count = context.size.isQuick ? SEAM_CLIENTS / 4 : SEAM_CLIENTS;
    const fleet = await Fleet.start(context, {
      redis,
      size: { clients: count + 3, rooms: 1 },
      // Every leave and join would be told to all: that is another load.
      settings: { ANNOUNCE_MEMBERS_MAX: '1' },
    });
    fleet.publishers = fleet.clients.slice(0, 3);
    fleet.target = () => 'room:r0';
    const seamsWanted = context.size.isQuick ? 2_000 : 20_000;
    fleet.startLoad();
    const until = performance.now() + 2 * fleet.size.seconds * 1000 + 60_000;
    let left = seamsWanted;
    await Promise.all(
      fleet.clients.slice(3).map(async (client) => {
        while (left > 0 && performance.now() < until) {
          left -= 1;
          await client.rejoin();
          await pause(Math.random() * 200);
        }
      }),
    );
    await fleet.stopLoad();
    const { tally, ledger } = fleet;
    const failures: string[] = [];
    if (tally.resumes < seamsWanted) failures.push(`only ${tally.resumes} of ${seamsWanted} seams`);
    if (tally.notRecovered > 0) failures.push(`${tally.notRecovered} resumes did not recover`);
    if (ledger.gaps > 0) failures.push('a gap was told');
    return fleet.result(failures, [`${tally.resumes} seams`]);
  },
};
