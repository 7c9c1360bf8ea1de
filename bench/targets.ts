import { median, type FigureName } from './figures.js';
import type { Measurement } from './measurement.js';
import { DELAYED, DELAYED_PUBLIC_PATH, FLOOR, PUBLIC_PATH, REFERENCE, RING_FLOOR } from './servers.js';

/** What a variant of Fanfare wants to be: a multiple of the figure of others (of the best of them), or a plain figure. */
export interface Target {
  readonly point: string;
  readonly figure: FigureName;
  readonly what: string;
  readonly variant: string;
  /** None: the figure itself. */
  readonly against: readonly string[];
  readonly atLeast?: number;
  readonly atMost?: number;
}

const NODE_PEERS = ['socketio', 'socketio-streams', 'nest', 'ws'];
const ephemeral = 'fanfare-ephemeral';
const durable = 'fanfare-durable';
const FLOORS: ReadonlyMap<string, string> = new Map([
  [PUBLIC_PATH, FLOOR],
  [ephemeral, RING_FLOOR],
  [durable, RING_FLOOR],
]);

export const TARGETS: readonly Target[] = [
  least('A', 'cpuUsPerDelivery', 'A: CPU per delivery', PUBLIC_PATH, [REFERENCE], 0.45),
  least('A', 'cpuUsPerDelivery', 'A: CPU per delivery', ephemeral, [REFERENCE], 0.36),
  least('A', 'cpuUsPerDelivery', 'A: CPU per delivery', DELAYED_PUBLIC_PATH, [REFERENCE], 0.45),
  least('A', 'cpuUsPerDelivery', 'A: CPU per delivery', DELAYED, [REFERENCE], 0.36),
  least('A', 'cpuUsPerDelivery', 'A: CPU per delivery', durable, [ephemeral], 1.15),
  most('A-max', 'deliveriesPerSecond', 'A-max: deliveries/s', PUBLIC_PATH, [REFERENCE], 8),
  most('A-max', 'deliveriesPerSecond', 'A-max: deliveries/s', ephemeral, ['bun'], 1),
  most('B', 'messagesPerSecond', 'B: messages/s, 100 rooms of 10', ephemeral, [REFERENCE], 4),
  most('B', 'messagesPerSecond', 'B: messages/s, 100 rooms of 10', durable, [REFERENCE], 2.5),
  least('C', 'p99Ms', 'C: p99, two instances', ephemeral, NODE_PEERS, 1.1),
  least('D', 'rssBytesPerConnection', 'D: memory per idle connection', ephemeral, [REFERENCE], 0.55),
  least('D', 'rssBytesPerConnection', 'D: memory per idle connection', durable, [REFERENCE], 0.55),
  most('E', 'messagesPerSecond', 'E: messages/s of clients', ephemeral, [REFERENCE], 2),
  most('E', 'messagesPerSecond', 'E: messages/s of clients', durable, [REFERENCE], 1.5),
  most('F', 'connectsPerSecond', 'F: connects/s', ephemeral, [REFERENCE], 1.2),
  most('F', 'connectsPerSecond', 'F: connects/s', ephemeral, ['socketio-jwt'], 2),
  least('G', 'resumeSeconds', 'G: seconds until 2,000 are back', durable, [], 5),
  least('G', 'loopDelayP99Ms', 'G: event loop delay p99, ms', durable, [], 100),
  least('G', 'redisCallsPerResume', 'G: Redis calls per resume', durable, [], 3),
];

/** The figure, as a multiple of the best of those that it is held against; NaN where one of the two was not measured. */
export function ratioOf(target: Target, measurements: readonly Measurement[]): number {
  const { point, figure, variant, against } = target;
  const own = medianOf(point, variant, figure, measurements);
  if (against.length === 0) return own;
  const others = against
    .map((server) => medianOf(point, server, figure, measurements))
    .filter((value) => Number.isFinite(value));
  if (others.length === 0) return NaN;
  return own / (target.atLeast === undefined ? Math.min(...others) : Math.max(...others));
}

/**
 * The ratio of the floor of its way to the sockets: nobody who sends each message as it comes gets below. NaN where messages
 * wait for each other, and but for CPU per delivery.
 */
export function floorOf(target: Target, measurements: readonly Measurement[]): number {
  const floor = FLOORS.get(target.variant);
  if (floor === undefined || target.figure !== 'cpuUsPerDelivery') return NaN;
  return ratioOf({ ...target, variant: floor }, measurements);
}

export function isMet({ atLeast = -Infinity, atMost = Infinity }: Target, ratio: number): boolean {
  return ratio >= atLeast && ratio <= atMost;
}

export function medianOf(
  point: string,
  server: string,
  figure: FigureName,
  measurements: readonly Measurement[],
): number {
  return median(valuesOf(point, server, figure, measurements));
}

export function valuesOf(
  point: string,
  server: string,
  figure: FigureName,
  measurements: readonly Measurement[],
): number[] {
  return measurements
    .filter((one) => one.point === point && one.server === server)
    .map((one) => one.figures[figure])
    .filter((value) => value !== undefined);
}

function least(
  point: string,
  figure: FigureName,
  what: string,
  variant: string,
  against: readonly string[],
  atMost: number,
): Target {
  return { point, figure, what, variant, against, atMost };
}

function most(
  point: string,
  figure: FigureName,
  what: string,
  variant: string,
  against: readonly string[],
  atLeast: number,
): Target {
  return { point, figure, what, variant, against, atLeast };
}
