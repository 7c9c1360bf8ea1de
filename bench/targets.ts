import { median, type FigureName } from './figures.js';
import type { Measurement } from './measurement.js';
import { REFERENCE } from './servers.js';

/** What Fanfare wants to be against Socket.IO with its redis-adapter: at most or at least so many times its figure. */
export interface Target {
  readonly point: string;
  readonly figure: FigureName;
  readonly what: string;
  readonly atLeast?: number;
  readonly atMost?: number;
}

export const TARGETS: readonly Target[] = [
  { point: 'A', figure: 'cpuUsPerDelivery', what: 'A: CPU per delivery, room of 1,000', atMost: 0.5 },
  { point: 'A-max', figure: 'deliveriesPerSecond', what: 'A-max: deliveries/s, room of 1,000', atLeast: 5 },
  { point: 'B', figure: 'messagesPerSecond', what: 'B: messages/s, 100 rooms of 10', atLeast: 2 },
  { point: 'C', figure: 'p99Ms', what: 'C: p99 latency, two instances', atMost: 1 },
  { point: 'D', figure: 'rssBytesPerConnection', what: 'D: memory per idle connection', atMost: 0.6 },
  { point: 'E', figure: 'messagesPerSecond', what: 'E: messages/s from clients', atLeast: 1.5 },
  { point: 'E', figure: 'cpuUsPerMessage', what: 'E: CPU per message from clients', atMost: 0.67 },
  { point: 'F', figure: 'connectsPerSecond', what: 'F: connects/s, with JWT, against none', atLeast: 1 },
];

/** Fanfare's median as a multiple of the reference's; NaN where one of them has none. */
export function ratioOf(target: Target, server: string, measurements: readonly Measurement[]): number {
  return (
    medianOf(target.point, server, target.figure, measurements) /
    medianOf(target.point, REFERENCE, target.figure, measurements)
  );
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
