import { freePort } from '../../test/support/redis-server.js';
import { Balancer } from '../balancer.js';
import type { FleetOptions } from '../fleet.js';
import type { Context, Result, Row } from '../row.js';

/** The first row as it is, and with each proxy in front of the instances. */
export function withBalancers(
  row: Omit<Row, 'run'>,
  instances: number,
  run: (context: Context, options: FleetOptions) => Promise<Result>,
): Row[] {
  const direct: Row = { ...row, run: (context) => run(context, {}) };
  const balanced = (['nginx', 'haproxy'] as const).map((kind): Row => ({
    ...row,
    name: `${row.name}-${kind}`,
    fault: `${row.fault}, behind ${kind}`,
    async run(context) {
      const ports = await Promise.all(Array.from({ length: instances }, () => freePort()));
      const { address } = context.own(await Balancer.start(kind, ports));
      return run(context, { front: { address, ports } });
    },
  }));
  return [direct, ...balanced];
}
