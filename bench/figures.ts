import type { LoadOptions, Outcome, Span } from './load-program.js';

/** What a report can show: its heading, its digits, and which way is better. */
export const FIGURES = {
  cpuUsPerDelivery: { title: 'CPU µs per delivery', digits: 2, better: 'less' },
  redisCpuUsPerDelivery: { title: 'Redis CPU µs per delivery', digits: 2, better: 'less' },
  deliveriesPerSecond: { title: 'deliveries/s', digits: 0, better: 'more' },
  messagesPerSecond: { title: 'messages/s', digits: 0, better: 'more' },
  cpuUsPerMessage: { title: 'CPU µs per message', digits: 1, better: 'less' },
  redisCpuUsPerMessage: { title: 'Redis CPU µs per message', digits: 1, better: 'less' },
  p50Ms: { title: 'p50 ms', digits: 2, better: 'less' },
  p99Ms: { title: 'p99 ms', digits: 2, better: 'less' },
  rssBytesPerConnection: { title: 'RSS bytes per connection', digits: 0, better: 'less' },
  connectsPerSecond: { title: 'connects/s', digits: 0, better: 'more' },
  cpuUsPerConnect: { title: 'CPU µs per connect', digits: 0, better: 'less' },
  resumeSeconds: { title: 'seconds until all are back', digits: 2, better: 'less' },
  resumesPerSecond: { title: 'resumes/s', digits: 0, better: 'more' },
  cpuUsPerResume: { title: 'CPU µs per resume', digits: 0, better: 'less' },
  loopDelayP99Ms: { title: 'event loop delay p99 ms', digits: 1, better: 'less' },
  redisCallsPerResume: { title: 'Redis calls per resume', digits: 2, better: 'less' },
  serverCpuPercent: { title: "server's CPU %", digits: 0, better: 'less' },
  loadCpuPercent: { title: "load program's CPU %", digits: 0, better: 'less' },
} as const satisfies Readonly<
  Record<string, { readonly title: string; readonly digits: number; readonly better: 'less' | 'more' }>
>;

export type FigureName = keyof typeof FIGURES;
export type Figures = Partial<Record<FigureName, number>>;

/** What only a resume storm has. */
export interface StormReadings {
  readonly loopDelayP99Ms: number;
  readonly redisCalls: number;
}

export function figuresOf(outcome: Outcome, load: LoadOptions, storm: StormReadings | null): Figures {
  const { connecting, measured, connected } = outcome;
  if (connected === 0) return {};
  const figures: Figures = {
    connectsPerSecond: connected / connecting.seconds,
    cpuUsPerConnect: (connecting.serverCpuSeconds * 1e6) / connected,
    loadCpuPercent: percent(measured ?? connecting, 'loadCpuSeconds'),
    serverCpuPercent: percent(measured ?? connecting, 'serverCpuSeconds'),
  };
  if (load['mode'] === 'idle')
    figures.rssBytesPerConnection = (outcome.rssAfterBytes - outcome.rssBeforeBytes) / connected;
  if (measured === undefined) return figures;
  if (storm !== null) return { ...figures, ...resumed(outcome, measured, storm) };
  const messages = measured.delivered / (Number(load['connections']) / Number(load['rooms']));
  Object.assign(figures, {
    deliveriesPerSecond: measured.delivered / measured.seconds,
    messagesPerSecond: messages / measured.seconds,
  });
  if (measured.delivered === 0) return figures;
  return {
    ...figures,
    cpuUsPerDelivery: (measured.serverCpuSeconds * 1e6) / measured.delivered,
    redisCpuUsPerDelivery: (measured.redisCpuSeconds * 1e6) / measured.delivered,
    cpuUsPerMessage: (measured.serverCpuSeconds * 1e6) / messages,
    redisCpuUsPerMessage: (measured.redisCpuSeconds * 1e6) / messages,
    p50Ms: outcome.latency.p50Us / 1000,
    p99Ms: outcome.latency.p99Us / 1000,
  };
}

function resumed(outcome: Outcome, span: Span, storm: StormReadings): Figures {
  const count = outcome.resumed ?? 0;
  return {
    resumeSeconds: span.seconds,
    resumesPerSecond: count / span.seconds,
    cpuUsPerResume: (span.serverCpuSeconds * 1e6) / count,
    redisCallsPerResume: storm.redisCalls / count,
    loopDelayP99Ms: storm.loopDelayP99Ms,
  };
}

/** Everything that did not go as it should, in words. */
export function faultsOf(outcome: Outcome, load: LoadOptions): string[] {
  const faults: string[] = [];
  const wanted = Number(load['connections']);
  const note = (count: number, what: string): void => {
    if (count > 0) faults.push(`${count} ${what}`);
  };
  note(outcome.refused, 'connections refused');
  note(wanted - outcome.connected - outcome.refused, 'connections not ready in time');
  note(outcome.closed, 'connections lost');
  note(outcome.errors, 'errors answered');
  note(outcome.stalls, 'stalls of 3 s');
  note(outcome.missing ?? 0, 'deliveries missing');
  note(-(outcome.missing ?? 0), 'deliveries too many');
  note(outcome.unrecovered ?? 0, 'resumes not recovered');
  if (outcome.resumed !== undefined) {
    const members = wanted - Number(load['rooms']);
    note(members - outcome.resumed, 'clients not back');
  }
  if (faults.length > 0 && outcome.why !== '') faults.push(outcome.why);
  return faults;
}

function percent(span: Span, name: 'loadCpuSeconds' | 'serverCpuSeconds'): number {
  return (span[name] / span.seconds) * 100;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}
