import { setTimeout as pause } from 'node:timers/promises';
import { eventually } from '../../test/support/eventually.js';
import { stats } from '../../test/support/http.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { closesBesides, Fleet, isReady, percentile } from '../fleet.js';
import type { Row } from '../row.js';
import { withBalancers } from './balanced.js';

const GHOSTS_GONE_MS = 35_000;
const FROZEN_MS = 15_000;
/** A drain asks clients back over 2 ms for each: twice that rate. */
const MAX_RETURNS_PER_SECOND = 1_000;

export const gatewayKilled = withBalancers(
  {
    name: '5',
    fault: 'kill -9 of one gateway of three',
    criterion: '0 lost, 0 doubled, no gap; resume p99 <= 5 s; dead users out of presence <= 35 s',
    extraSeconds: 60,
  },
  3,
  async (context, options) => {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, { redis, ...options });
    let goneMs = Infinity;
    await fleet.through(async () => {
      const [victim, survivor] = fleet.gateways;
      if (victim === undefined || survivor === undefined) throw new Error('no gateways');
      const { instance } = await stats(victim.url);
      // A tenth of its clients never comes back: these are the ghosts to be.
      const mortal = fleet.clients.filter((client) => client.instance === instance);
      const gone = mortal.slice(0, Math.ceil(mortal.length / 10));
      const began = performance.now();
      await victim.stop('SIGKILL');
      for (const client of gone) client.stop();
      const expected = fleet.clients.length - gone.length;
      goneMs = await eventually(
        async () => {
          const { cluster } = await stats(survivor.url);
          if (cluster?.users !== expected) throw new Error(`${cluster?.users} users instead of ${expected}`);
          return performance.now() - began;
        },
        { timeoutMs: GHOSTS_GONE_MS + 15_000, everyMs: 250 },
      ).catch((error: unknown) => {
        context.say(String(error));
        return Infinity;
      });
    });
    const { tally, ledger } = fleet;
    const failures: string[] = [];
    const p99 = percentile(tally.resumeMs, 0.99);
    if (p99 > 5_000) failures.push('resume p99 over 5 s');
    if (goneMs > GHOSTS_GONE_MS)
      failures.push(`dead users still present after ${Math.round(goneMs / 1000)} s`);
    if (ledger.gaps > 0) failures.push('a gap was told');
    if (closesBesides(fleet, 1006) > 0) failures.push('clients of others were closed');
    const result = fleet.result(failures, [
      `resume p99 ${Math.round(p99)} ms`,
      `ghosts gone after ${(goneMs / 1000).toFixed(1)} s`,
    ]);
    return { ...result, recoveryMs: p99 };
  },
);

export const gatewayFrozen: Row = {
  name: '6',
  fault: 'SIGSTOP of one gateway of three for 15 s',
  criterion: '0 lost, 0 doubled; delivery on all instances <= 5 s after SIGCONT',
  extraSeconds: 60,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, { redis });
    let recoveryMs = Infinity;
    let users = 0;
    await fleet.through(async () => {
      const [victim] = fleet.gateways;
      if (victim === undefined) throw new Error('no gateway');
      victim.signal('SIGSTOP');
      context.onEnd(() => victim.signal('SIGCONT'));
      await pause(FROZEN_MS);
      victim.signal('SIGCONT');
      recoveryMs = await fleet.deliveredEverywhere();
      // Its lease was reaped meanwhile: it has to enter its users again.
      await eventually(
        async () => {
          users = (await stats(victim.url)).cluster?.users ?? 0;
          if (users !== fleet.clients.length) throw new Error(`${users} users`);
        },
        { timeoutMs: 20_000, everyMs: 250 },
      ).catch((error: unknown) => context.say(`presence: ${String(error)}`));
    });
    const failures: string[] = [];
    if (recoveryMs > 5_000) failures.push('delivery later than 5 s after SIGCONT');
    if (users !== fleet.clients.length)
      failures.push(`presence has ${users} users of ${fleet.clients.length}`);
    return { ...fleet.result(failures), recoveryMs };
  },
};

export const rollingRestart = withBalancers(
  {
    name: '7',
    fault: 'SIGTERM of all three gateways in turn, each replaced',
    criterion:
      '0 lost, 0 doubled, no gap; 0 publishes failed with one repeat; exit 0; closes 1012 only, each after a reconnect; peak of reconnects <= 2x planned',
    extraSeconds: 90,
  },
  6,
  async (context, options) => {
    const redis = context.own(await RedisServer.start());
    const clients = context.size.isQuick ? context.size.clients : 1_000;
    const fleet = await Fleet.start(context, { redis, ...options, size: { clients } });
    const codes: (number | null)[] = [];
    let slowestExitMs = 0;
    const began = performance.now();
    fleet.startLoad();
    await pause(2_000);
    for (const gateway of fleet.gateways.slice(0, 3)) {
      // A balancer keeps enough instances: the new one is there before the old one goes.
      await fleet.addGateway();
      const from = performance.now();
      codes.push(await gateway.stop('SIGTERM', 30_000));
      slowestExitMs = Math.max(slowestExitMs, performance.now() - from);
      await pause(Math.max(2_000, (fleet.size.seconds * 1000) / 5));
    }
    await pause(Math.max(0, fleet.size.seconds * 1000 - (performance.now() - began)));
    await fleet.stopLoad();
    const { tally, ledger } = fleet;
    const failures: string[] = [];
    const failed = ledger.triedMoreThan(2);
    if (failed > 0) failures.push(`${failed} publishes failed with one repeat`);
    if (codes.some((code) => code !== 0)) failures.push(`exit codes ${codes.join()}`);
    if (slowestExitMs > 22_000) failures.push('exit later than the drain time and 2 s');
    if (closesBesides(fleet, 1012) > 0) failures.push('closes other than 1012');
    const untold = (tally.closes.get(1012) ?? 0) - tally.reconnects;
    if (untold > 0) failures.push(`${untold} closes without a reconnect before`);
    if (ledger.gaps > 0) failures.push('a gap was told');
    const peak = peakPerSecond(tally.returnsAtMs);
    if (peak > MAX_RETURNS_PER_SECOND) failures.push(`${peak} reconnects a second at the peak`);
    return {
      ...fleet.result(failures, [
        `${tally.resumes} resumes`,
        `peak of ${peak} reconnects a second`,
        `${ledger.triedMoreThan(1)} publishes repeated once`,
        `slowest exit ${(slowestExitMs / 1000).toFixed(1)} s`,
        `resume p99 ${Math.round(percentile(tally.resumeMs, 0.99))} ms`,
      ]),
      recoveryMs: percentile(tally.resumeMs, 0.99),
    };
  },
);

export const allKilled: Row = {
  name: 'all-killed',
  fault: 'kill -9 of all gateways and Redis (AOF), all started again',
  criterion:
    'every client that resumes is told by a gap; 0 lost beside that, no id used twice; delivery again',
  extraSeconds: 60,
  async run(context) {
    const redis = context.own(await RedisServer.start({ appendonly: 'yes', appendfsync: 'everysec' }));
    const fleet = await Fleet.start(context, { redis });
    let recoveryMs = Infinity;
    await fleet.through(async () => {
      const old = [...fleet.gateways];
      await Promise.all([redis.kill(), ...old.map((gateway) => gateway.stop('SIGKILL'))]);
      await redis.restart();
      await Promise.all(old.map(() => fleet.addGateway()));
      await Promise.all(
        fleet.gateways.filter((gateway) => gateway.isRunning).map((gateway) => isReady(gateway)),
      );
      recoveryMs = await fleet.deliveredEverywhere();
      await Promise.all(fleet.clients.map((client) => client.untilJoined()));
    });
    const failures: string[] = [];
    const untold = untoldRooms(fleet);
    if (untold > 0) failures.push(`${untold} clients were not told by a gap in their room`);
    if (!Number.isFinite(recoveryMs)) failures.push('no delivery');
    return { ...fleet.result(failures), recoveryMs };
  },
};

/** By windows of a quarter of a second. */
function peakPerSecond(timesMs: readonly number[]): number {
  const windows = new Map<number, number>();
  for (const timeMs of timesMs) {
    const window = Math.floor(timeMs / 250);
    windows.set(window, (windows.get(window) ?? 0) + 1);
  }
  return 4 * Math.max(0, ...windows.values());
}

/** Readers of rooms with something written before that were told of no gap. */
export function untoldRooms(fleet: Fleet): number {
  return fleet.ledger.readers.filter(
    ({ channel, gaps, count }) => channel.startsWith('room:') && count > 0 && gaps.length === 0,
  ).length;
}
