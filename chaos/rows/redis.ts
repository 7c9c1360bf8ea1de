import { spawn } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { tracked } from '../../test/support/child.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { status } from '../../test/support/http.js';
import { Fleet } from '../fleet.js';
import type { Context, Result, Row } from '../row.js';
import { untoldRooms } from './gateways.js';

const DOWN_MS = 5_000;
const HUNG_MS = 20_000;
const KILL_EVERY_MS = 500;

interface Outage {
  readonly settings: Record<string, string>;
  readonly maxRecoveryMs: number;
  /** Whether everybody, nobody, or just who has to be is told by a gap. */
  readonly gaps: 'all' | 'none' | 'any';
}

async function restarted(context: Context, { settings, maxRecoveryMs, gaps }: Outage): Promise<Result> {
  const redis = context.own(await RedisServer.start(settings));
  const fleet = await Fleet.start(context, { redis });
  let recoveryMs = Infinity;
  await fleet.through(async () => {
    await redis.kill();
    await pause(DOWN_MS);
    await redis.restart();
    recoveryMs = await fleet.deliveredEverywhere();
  });
  const failures: string[] = [];
  if (recoveryMs > maxRecoveryMs)
    failures.push(`delivery later than ${maxRecoveryMs} ms after Redis was back`);
  if (fleet.tally.closes.size > 0) failures.push('clients were disconnected');
  if (fleet.rssGrowthMb > 50) failures.push('RSS grew by more than 50 MB');
  if (gaps === 'none' && fleet.ledger.gaps > 0) failures.push('a gap was told, though nothing was lost');
  if (gaps === 'all' && untoldRooms(fleet) > 0)
    failures.push(`${untoldRooms(fleet)} readers were not told by a gap`);
  if (fleet.ledger.slowestAnswerMs > 2_250) failures.push('a publish was unanswered for more than 2 s');
  return {
    ...fleet.result(failures, [`slowest answer ${Math.round(fleet.ledger.slowestAnswerMs)} ms`]),
    recoveryMs,
  };
}

export const redisKilled: Row = {
  name: '9',
  fault: 'Redis kill -9, back after 5 s, AOF everysec',
  criterion: '0 lost or told by gap; 0 disconnects; delivery <= 3 s; RSS <= +50 MB',
  run: (context) =>
    restarted(context, {
      settings: { appendonly: 'yes', appendfsync: 'everysec' },
      maxRecoveryMs: 3_000,
      gaps: 'any',
    }),
};

export const redisKilledAlways: Row = {
  name: '9-always',
  fault: 'Redis kill -9, back after 5 s, AOF always',
  criterion: '0 lost, no gap (the epoch is kept); 0 disconnects; delivery <= 3 s; RSS <= +50 MB',
  run: (context) =>
    restarted(context, {
      settings: { appendonly: 'yes', appendfsync: 'always' },
      maxRecoveryMs: 3_000,
      gaps: 'none',
    }),
};

export const redisEmptied: Row = {
  name: '10',
  fault: 'Redis kill -9, back after 5 s without its data',
  criterion: 'every reader told by gap; delivery <= 3 s; 0 disconnects',
  run: (context) => restarted(context, { settings: {}, maxRecoveryMs: 3_000, gaps: 'all' }),
};

export const redisHung: Row = {
  name: '11',
  fault: 'Redis SIGSTOP for 20 s',
  criterion:
    '0 lost, no gap; no publish unanswered > 2 s; live 200, ready 503; 0 disconnects; delivery <= 5 s after SIGCONT',
  extraSeconds: 40,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, { redis });
    const failures: string[] = [];
    let recoveryMs = Infinity;
    await fleet.through(async () => {
      redis.pause();
      context.onEnd(() => redis.resume());
      await pause(HUNG_MS / 2);
      for (const { url } of fleet.gateways) {
        if ((await status(`${url}/health/live`)) !== 200) failures.push('not live');
        if ((await status(`${url}/health/ready`)) !== 503) failures.push('still ready');
      }
      await pause(HUNG_MS / 2);
      redis.resume();
      recoveryMs = await fleet.deliveredEverywhere();
    });
    if (recoveryMs > 5_000) failures.push('delivery later than 5 s');
    if (fleet.tally.closes.size > 0) failures.push('clients were disconnected');
    if (fleet.ledger.gaps > 0) failures.push('a gap was told, though nothing was lost');
    if (fleet.ledger.slowestAnswerMs > 2_250) failures.push('a publish was unanswered for more than 2 s');
    return {
      ...fleet.result(failures, [`slowest answer ${Math.round(fleet.ledger.slowestAnswerMs)} ms`]),
      recoveryMs,
    };
  },
};

export const subscribersKilled: Row = {
  name: 'pubsub-kill',
  fault: 'CLIENT KILL TYPE pubsub every 0.5 s for 60 s at 1,000 msg/s',
  criterion: '0 lost, 0 doubled, 0 client connections closed, no gap',
  extraSeconds: 30,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, { redis });
    const seconds = context.size.isQuick ? context.size.seconds : 60;
    fleet.startLoad(context.size.isQuick ? context.size.rate * 4 : 1_000);
    await pause(1_000);
    const kills = await killSubscribers(redis.port, Math.ceil((seconds * 1000) / KILL_EVERY_MS));
    const killed = kills.reduce((sum, count) => sum + count, 0);
    const inVain = kills.filter((count) => count === 0).length;
    const recoveryMs = await fleet.deliveredEverywhere();
    await fleet.stopLoad();
    const failures: string[] = [];
    if (inVain > kills.length / 2)
      failures.push(`${inVain} of ${kills.length} kills found no subscriber back yet`);
    if (fleet.tally.closes.size > 0) failures.push('clients were disconnected');
    if (fleet.ledger.gaps > 0) failures.push('a gap was told');
    const holes = await fleet.metric('fanfare_holes_total', { result: 'filled' });
    return {
      ...fleet.result(failures, [
        `${killed} subscribers killed in ${kills.length} turns`,
        `${inVain} turns found none`,
        `${holes} holes filled`,
      ]),
      recoveryMs,
    };
  },
};

/** A process of its own keeps time, however busy this one is. Resolves with how many each turn has killed. */
async function killSubscribers(port: number, turns: number): Promise<number[]> {
  const interval = String(KILL_EVERY_MS / 1000);
  const child = spawn(
    'redis-cli',
    ['-p', String(port), '-r', String(turns), '-i', interval, 'CLIENT', 'KILL', 'TYPE', 'pubsub'],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const { code } = await tracked(child);
  if (code !== 0) throw new Error(`redis-cli ended with ${code}: ${output}`);
  return output.trim().split('\n').map(Number);
}
