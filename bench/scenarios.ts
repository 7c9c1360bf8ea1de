import type { Server } from './servers.js';
import type { FigureName } from './figures.js';
import type { LoadOptions } from './load-program.js';

/** What a run's sizes are made from. */
export interface Size {
  readonly isQuick: boolean;
  readonly seconds: number;
  readonly warmupSeconds: number;
  readonly settleSeconds: number;
}

/** One load, put on one server after the other. */
export interface Point {
  readonly name: string;
  readonly load: LoadOptions;
  readonly instances: number;
  /** Where the point lies on the horizontal axis of the scenario's chart. */
  readonly x?: number;
}

export interface Scenario {
  readonly name: string;
  readonly title: string;
  readonly figures: readonly FigureName[];
  /** Of these figures. */
  readonly charts: readonly FigureName[];
  /** Left out of `--quick` unless it is asked for. */
  readonly isLong: boolean;
  /** What the horizontal axis of its chart counts; bars where there is none. */
  readonly axis?: string;
  readonly suits: (server: Server) => boolean;
  points(size: Size): readonly Point[];
}

const spansInstances = ({ hasBus }: Server): boolean => hasBus;
/** A p99 of less is that of one or two messages. */
const LATENCY_SECONDS = 15;
/**
 * A server that has run for a while: while V8 still compiles, its threads take the cores from the servers, and 14 s after
 * the load has gone down it makes the heap smaller, once, in 15 to 35 ms. With both in it, that is what p99 measures.
 */
const LATENCY_WARMUP = { 'warmup-seconds': 30, 'warmup-rate': 300, 'calm-seconds': 20 };
/**
 * For the same reason, where CPU is counted at a low rate: 6,000 messages to a tenth of the members. Then until nothing is
 * left to be done for those who have gone.
 */
const EARLY = { 'warmup-connections': 100, 'early-rate': 300, 'early-seconds': 20, 'calm-seconds': 6 };
/** Of fixed rates: so many deliveries a second, however many members share them. */
const DELIVERIES_PER_SECOND = 30_000;

interface Sketch extends Omit<Scenario, 'isLong' | 'suits' | 'charts'> {
  /** The first figure where none is named. */
  readonly charts?: readonly FigureName[];
  readonly isLong?: boolean;
  readonly suits?: (server: Server) => boolean;
}

const sketches: readonly Sketch[] = [
  {
    name: 'A',
    title: 'One room of 1,000, a fixed 50 messages a second',
    figures: ['cpuUsPerDelivery', 'redisCpuUsPerDelivery', 'p50Ms', 'p99Ms', 'loadCpuPercent'],
    points: (size) => [
      {
        name: 'A',
        instances: 1,
        load: { ...rate(size, { connections: 1000, rooms: 1 }, 50, 20), ...(size.isQuick ? {} : EARLY) },
      },
    ],
  },
  {
    name: 'A-max',
    title: 'One room of 1,000, closed loop of 64 messages',
    figures: ['deliveriesPerSecond', 'cpuUsPerDelivery', 'loadCpuPercent'],
    points: (size) => [
      { name: 'A-max', instances: 1, load: closed(size, { connections: 1000, rooms: 1 }, 64, 50) },
    ],
  },
  {
    name: 'B',
    title: '100 rooms of 10, one publisher in each, closed loop of 4 messages',
    figures: ['messagesPerSecond', 'cpuUsPerMessage', 'redisCpuUsPerMessage', 'p99Ms', 'loadCpuPercent'],
    points: (size) => [
      { name: 'B', instances: 1, load: closed(size, { connections: 1000, rooms: 100 }, 4, 50) },
    ],
  },
  {
    name: 'C',
    title: 'Two instances, half of a room of 200 on each, 50 messages a second',
    figures: ['p50Ms', 'p99Ms', 'cpuUsPerDelivery', 'loadCpuPercent'],
    charts: ['p99Ms'],
    suits: spansInstances,
    points: (size) => [
      {
        name: 'C',
        instances: 2,
        load: { ...rate(size, { connections: 200, rooms: 1 }, 50, 1), ...latencyTimes(size) },
      },
    ],
  },
  {
    name: 'D',
    title: 'Idle connections, one room each',
    figures: ['rssBytesPerConnection', 'connectsPerSecond'],
    points: (size) => {
      const connections = size.isQuick ? 2_000 : 10_000;
      return [
        {
          name: 'D',
          instances: 1,
          load: {
            mode: 'idle',
            connections,
            rooms: connections / 10,
            'warmup-connections': 100,
            'settle-seconds': size.settleSeconds,
          },
        },
      ];
    },
  },
  {
    name: 'E',
    title: '200 rooms of one, closed loop of 4 messages',
    figures: ['messagesPerSecond', 'cpuUsPerMessage', 'redisCpuUsPerMessage', 'p99Ms', 'loadCpuPercent'],
    points: (size) => [
      { name: 'E', instances: 1, load: closed(size, { connections: 200, rooms: 200 }, 4, 10) },
    ],
  },
  {
    name: 'F',
    title: 'Handshakes, 64 at a time: connect and join one room',
    figures: ['connectsPerSecond', 'cpuUsPerConnect', 'loadCpuPercent'],
    points: (size) => {
      const connections = size.isQuick ? 2_000 : 10_000;
      return [
        {
          name: 'F',
          instances: 1,
          load: {
            mode: 'connect',
            connections,
            rooms: connections / 10,
            'warmup-connections': connections,
            'warmup-rounds': size.isQuick ? 1 : 3,
            // Until nothing is left to be done for those who have gone: Fanfare keeps their presence for 5 s.
            'calm-seconds': size.isQuick ? 0.5 : 8,
          },
        },
      ];
    },
  },
  {
    name: 'G',
    title: 'Resume storm: everybody comes back at once, 100 events behind',
    figures: [
      'resumeSeconds',
      'resumesPerSecond',
      'cpuUsPerResume',
      'loopDelayP99Ms',
      'redisCallsPerResume',
      'loadCpuPercent',
    ],
    suits: (server) => server.isDurable,
    points: (size) => {
      const rooms = size.isQuick ? 50 : 200;
      return [
        {
          name: 'G',
          instances: 1,
          // The publisher of each room stays; the ten others come back.
          load: {
            mode: 'resume',
            connections: rooms * 11,
            rooms,
            'behind-events': 100,
            'handshakes-at-once': 500,
          },
        },
      ];
    },
  },
  {
    name: 'H',
    title: 'Members of one room, 30,000 deliveries a second shared by them',
    figures: ['cpuUsPerDelivery', 'p99Ms', 'loadCpuPercent'],
    isLong: true,
    axis: 'members',
    points: (size) =>
      (size.isQuick ? [100, 1_000, 3_000] : [100, 300, 1_000, 3_000, 10_000]).map((members) => ({
        name: `H ${members}`,
        x: members,
        instances: 1,
        load: rate(
          size,
          { connections: members, rooms: 1 },
          DELIVERIES_PER_SECOND / members,
          Math.ceil(members / 50),
        ),
      })),
  },
  {
    name: 'rooms',
    title: 'Rooms of one, 1,000 messages a second shared by them',
    figures: ['cpuUsPerMessage', 'p99Ms', 'loadCpuPercent'],
    isLong: true,
    axis: 'rooms',
    points: (size) =>
      (size.isQuick ? [10, 100, 1_000] : [10, 100, 1_000, 10_000]).map((rooms) => ({
        name: `rooms ${rooms}`,
        x: rooms,
        instances: 1,
        load: rate(size, { connections: rooms, rooms }, 1_000, 1),
      })),
  },
  {
    name: 'instances',
    title: 'Instances that share one room of 1,000, 30 messages a second',
    figures: ['cpuUsPerDelivery', 'redisCpuUsPerDelivery', 'p99Ms', 'loadCpuPercent'],
    charts: ['cpuUsPerDelivery', 'p99Ms'],
    isLong: true,
    axis: 'instances',
    suits: spansInstances,
    points: (size) =>
      [1, 2, 3, 4].map((instances) => ({
        name: `instances ${instances}`,
        x: instances,
        instances,
        load: rate(size, { connections: 1000, rooms: 1 }, 30, 20),
      })),
  },
];

export const scenarios: readonly Scenario[] = sketches.map((sketch) => ({
  ...sketch,
  charts: sketch.charts ?? sketch.figures.slice(0, 1),
  isLong: sketch.isLong ?? false,
  suits: (server) => server.scenarios?.includes(sketch.name) !== false && sketch.suits?.(server) !== false,
}));

function latencyTimes(size: Size): LoadOptions {
  return size.isQuick ? {} : { ...LATENCY_WARMUP, seconds: Math.max(size.seconds, LATENCY_SECONDS) };
}

function rate(size: Size, place: LoadOptions, perSecond: number, sampleEvery: number): LoadOptions {
  return { mode: 'rate', ...place, rate: perSecond, 'sample-every': sampleEvery, ...times(size) };
}

function closed(size: Size, place: LoadOptions, window: number, sampleEvery: number): LoadOptions {
  return { mode: 'window', ...place, window, 'sample-every': sampleEvery, ...times(size) };
}

function times(size: Size): LoadOptions {
  return { 'warmup-seconds': size.warmupSeconds, seconds: size.seconds };
}
