import { Fleet } from '../fleet.js';
import type { Row } from '../row.js';
import { RedisServer } from '../../test/support/redis-server.js';

export const baseline: Row = {
  name: '1',
  fault: 'none',
  criterion: '0 lost, doubled, misordered; no gap, no close; at full load >= 500,000 deliveries',
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, { redis });
    await fleet.through(() => Promise.resolve());
    const failures: string[] = [];
    const wanted = context.size.isQuick ? 1 : 5_000 * context.size.seconds;
    if (fleet.ledger.deliveries < wanted) failures.push(`fewer than ${wanted} deliveries`);
    if (fleet.ledger.gaps > 0) failures.push('a gap was told');
    if (fleet.tally.closes.size > 0) failures.push('connections were closed');
    if (fleet.ledger.triedMoreThan(1) > 0) failures.push('a publish had to be repeated');
    return fleet.result(failures);
  },
};
