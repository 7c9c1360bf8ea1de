import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setTimeout as pause } from 'node:timers/promises';
import { metric } from '../test/support/http.js';
import { RedisServer } from '../test/support/redis-server.js';
import { inSeconds, token } from '../test/support/tokens.js';
import { faultsOf, figuresOf, type Figures, type StormReadings } from './figures.js';
import { runLoad, type LoadOptions } from './load-program.js';
import type { Point } from './scenarios.js';
import { ServerProcess } from './server-process.js';
import { METRICS_KEY, type Server } from './servers.js';

const CONNECT_LIMIT_SECONDS = 60;
const TOKEN_LIFE_SECONDS = 24 * 3600;
/** Until adapters have subscribed and start-up work is over. */
const CALM_MS = 300;

/** What one measurement gave; a server that fails has faults and no figures. */
export interface Measurement {
  readonly point: string;
  readonly server: string;
  readonly repetition: number;
  readonly figures: Figures;
  readonly faults: readonly string[];
}

/** A fresh Redis, fresh instances, one load. */
export async function measure(
  server: Server,
  point: Point,
  repetition: number,
  node: string,
): Promise<Measurement> {
  const common = { point: point.name, server: server.name, repetition };
  const instances: ServerProcess[] = [];
  let redis: RedisServer | null = null;
  try {
    redis = await RedisServer.start();
    for (let count = 0; count < point.instances; count += 1)
      instances.push(await ServerProcess.start(server.command(node), redis.url));
    await pause(CALM_MS);
    const { figures, faults } = await loaded(server, point, instances, redis);
    const ended = instances.flatMap(({ exit, lastWords }) =>
      exit === null ? [] : [`the server ended with ${exit.code ?? exit.signal}: ${lastWords}`],
    );
    return { ...common, figures: ended.length > 0 ? {} : figures, faults: [...faults, ...ended] };
  } catch (error) {
    return { ...common, figures: {}, faults: [error instanceof Error ? error.message : String(error)] };
  } finally {
    await Promise.allSettled([...instances, ...(redis === null ? [] : [redis])].map((own) => own.dispose()));
  }
}

async function loaded(
  server: Server,
  point: Point,
  instances: readonly ServerProcess[],
  redis: RedisServer,
): Promise<{ figures: Figures; faults: string[] }> {
  const load: LoadOptions = {
    ...point.load,
    dialect: server.dialect,
    path: server.path,
    ports: instances.map(({ port }) => port).join(','),
    'server-pids': instances.map(({ pid }) => pid).join(','),
    'redis-pid': redis.pid,
    'limit-seconds': CONNECT_LIMIT_SECONDS,
    ...(server.hasTokens ? { tokens: tokensFile(Number(point.load['connections'])) } : {}),
  };
  const seconds = ['warmup-seconds', 'seconds', 'settle-seconds'].reduce(
    (sum, name) => sum + Number(point.load[name] ?? 0),
    3 * CONNECT_LIMIT_SECONDS,
  );
  const isStorm = load['mode'] === 'resume';
  const outcome = await runLoad(load, seconds * 1000, async () => {
    await redis.commands.config('RESETSTAT');
    await Promise.all(instances.map((instance) => loopDelayP99Ms(instance)));
  });
  const storm: StormReadings | null = isStorm
    ? {
        loopDelayP99Ms: Math.max(...(await Promise.all(instances.map(loopDelayP99Ms)))),
        redisCalls: await callsOf(redis),
      }
    : null;
  return { figures: figuresOf(outcome, load, storm), faults: faultsOf(outcome, load) };
}

/** Since it was asked last: reading it clears it. */
async function loopDelayP99Ms(instance: ServerProcess): Promise<number> {
  const response = await fetch(`${instance.url}/metrics`, {
    headers: { authorization: `Bearer ${METRICS_KEY}` },
  });
  if (response.status !== 200) throw new Error(`/metrics answered ${response.status}`);
  return metric(await response.text(), 'nodejs_eventloop_lag_p99_seconds') * 1000;
}

/** What gateways send, a script or many names in one call being one; what their scripts do inside Redis is none. */
async function callsOf(redis: RedisServer): Promise<number> {
  let calls = 0;
  for (const line of (await redis.commands.info('commandstats')).split('\r\n')) {
    const found = /^cmdstat_(evalsha|s?(?:un)?subscribe):calls=(\d+)/.exec(line);
    if (found !== null) calls += Number(found[2]);
  }
  return calls;
}

const written = new Set<number>();

/** A file with a token for each connection, each of a user of its own. */
function tokensFile(count: number): string {
  const path = fileURLToPath(new URL(`build/tokens-${count}.txt`, import.meta.url));
  if (written.has(count)) return path;
  mkdirSync(new URL('build/', import.meta.url), { recursive: true });
  const exp = inSeconds(TOKEN_LIFE_SECONDS);
  const tokens = Array.from({ length: count }, (_, index) => token(`user-${index}`, { exp }));
  writeFileSync(path, `${tokens.join('\n')}\n`);
  written.add(count);
  return path;
}
