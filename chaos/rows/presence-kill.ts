import { setTimeout as pause } from 'node:timers/promises';
import { Api, list } from '../../test/support/api.js';
import { notice, type Client } from '../../test/support/client.js';
import { stats } from '../../test/support/http.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { Crowd, type Opening } from '../crowd.js';
import { Fleet } from '../fleet.js';
import type { Row } from '../row.js';

const LEASE_MS = 10_000;
const GRACE_MS = 5_000;
const SLACK_MS = 2_000;
/** After the bound, for notices that come twice or too late. */
const AFTERMATH_MS = 5_000;
/** Nobody reaps before it has renewed its own lease for 10 s. */
const STEADY_MS = 13_000;
const ROOM = 'lobby';
const KEY = 'all-key';

/** What one observer was told of users who went, with the time of each notice. */
class Departures {
  readonly times = new Map<string, number[]>();

  constructor(observer: Client, event: 'user_disconnected' | 'user_left') {
    observer.watch((message) => {
      if (message.event !== event) return;
      const user = String(message['user_id']);
      this.times.set(user, [...(this.times.get(user) ?? []), performance.now()]);
    });
  }

  get all(): number[] {
    return [...this.times.values()].flat();
  }

  /** What is not as it should be: `gone` once each, nobody else. */
  faults(gone: ReadonlySet<string>): string[] {
    const counts = [...gone].map((user) => this.times.get(user)?.length ?? 0);
    const found = [
      [counts.filter((count) => count === 0).length, 'never told'],
      [counts.filter((count) => count > 1).length, 'told more than once'],
      [[...this.times.keys()].filter((user) => !gone.has(user)).length, 'told of others'],
    ] as const;
    return found.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  }
}

export const presenceKill: Row = {
  name: 'presence-kill',
  fault: 'kill -9 of an instance with 500 users, 100 of them with a tab elsewhere (quick: 100, 20)',
  criterion:
    '400 user_disconnected and user_left, each user once, none of the 100, within lease + grace + 2 s; presence exact',
  extraSeconds: 90,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, {
      redis,
      size: { clients: 0 },
      settings: { ANNOUNCE_USERS: 'true', PRESENCE_GRACE_MS: String(GRACE_MS), API_KEYS: KEY },
    });
    const [victim, survivor, third] = fleet.gateways;
    if (victim === undefined || survivor === undefined || third === undefined) throw new Error('no gateways');
    const steady = pause(STEADY_MS);
    const count = context.size.isQuick ? 100 : 500;
    const users = Array.from({ length: count }, (_value, index) => `user-${index}`);
    const staying = users.slice(0, count / 5);
    const gone = new Set(users.slice(count / 5));
    const observer = await third.as('observer');
    await observer.request({ type: 'join_room', room: ROOM });
    const crowd = context.own(Crowd.start());
    const opening = (address: string, user: string): Opening => ({
      url: `${address}?client_id=${user}`,
      says: [JSON.stringify({ type: 'join_room', room: ROOM })],
      until: '"event":"joined_room"',
    });
    const doomed = await crowd.open(users.map((user) => opening(victim.ws(), user)));
    const tabs = await crowd.open(staying.map((user) => opening(survivor.ws(), user)));
    for (const user of users) await observer.next(notice('user_joined', user, ROOM), 20_000);
    await steady;

    const disconnected = new Departures(observer, 'user_disconnected');
    const left = new Departures(observer, 'user_left');
    const killedMs = performance.now();
    await victim.stop('SIGKILL');
    const boundMs = LEASE_MS + GRACE_MS + SLACK_MS;
    context.status = () =>
      `${Math.round((performance.now() - killedMs) / 1000)} s after the kill: ${disconnected.times.size} disconnected, ${left.times.size} left`;
    await pause(boundMs + AFTERMATH_MS);
    // A notice that is made now comes after all others.
    const marker = await third.as('marker');
    await observer.next(notice('user_connected', 'marker'));
    await marker.cut();

    const failures: string[] = [];
    for (const [name, departures] of [
      ['user_disconnected', disconnected],
      ['user_left', left],
    ] as const)
      for (const fault of departures.faults(gone)) failures.push(`${name}: ${fault}`);
    const times = [...disconnected.all, ...left.all].map((timeMs) => timeMs - killedMs);
    const [first, last] = [Math.min(...times), Math.max(...times)];
    if (last > boundMs) failures.push(`the last notice came after ${Math.round(last)} ms`);
    const api = new Api(() => third, KEY);
    const presence = await api.ok('GET', `/rooms/${ROOM}/presence?limit=1000`);
    const members = list(presence, 'members').map(
      (one) => `${String(one['user_id'])} ${String(one['connections'])}`,
    );
    const expected = ['observer', ...staying].map((user) => `${user} 1`);
    if (presence['count'] !== expected.length || members.sort().join() !== expected.sort().join())
      failures.push(`presence has ${String(presence['count'])} members instead of ${expected.length}`);
    const { cluster } = await stats(third.url);
    if (cluster === null || cluster.connections - 1 > expected.length)
      failures.push(`the cluster counts ${cluster?.connections} connections`);
    if ((await crowd.closings(tabs)).length > 0) failures.push('tabs on another instance were closed');
    const codes = new Set((await crowd.closings(doomed)).map(({ code }) => code));
    if (codes.size !== 1 || !codes.has(1006)) failures.push(`closes ${[...codes].join()}`);
    return {
      failures,
      notes: [
        `${disconnected.all.length} user_disconnected, ${left.all.length} user_left`,
        `the first after ${(first / 1000).toFixed(1)} s, the last after ${(last / 1000).toFixed(1)} s`,
      ],
    };
  },
};
