import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Api, list } from '../support/api.js';
import { closeClients, connect, notice, type Client } from '../support/client.js';
import { ready } from '../support/cluster.js';
import { eventually } from '../support/eventually.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { stats } from '../support/http.js';
import { fresh } from '../support/names.js';
import { RedisServer } from '../support/redis-server.js';
import { inSeconds, secret, token } from '../support/tokens.js';

/** How long a lease holds that is not renewed. */
const LEASE_MS = 10_000;
const GRACE_MS = 5_000;

/** Some instances on one Redis, each with the API. */
class Fleet {
  private constructor(
    readonly redis: RedisServer,
    readonly gateways: GatewayProcess[],
    private readonly settings: Record<string, string>,
  ) {}

  static async start(count: number, environment: Record<string, string> = {}): Promise<Fleet> {
    const redis = await RedisServer.start();
    const settings = {
      REDIS_URL: redis.url,
      API_KEYS: 'all-key',
      JWT_SECRET: secret,
      RATE_LIMIT_PER_SECOND: '0',
      LOG_LEVEL: 'info',
      ...environment,
    };
    const fleet = new Fleet(redis, [], settings);
    await Promise.all(Array.from({ length: count }, () => fleet.add()));
    return fleet;
  }

  async add(): Promise<GatewayProcess> {
    const gateway = await GatewayProcess.start(this.settings);
    this.gateways.push(gateway);
    await ready(gateway);
    return gateway;
  }

  at(index: number): GatewayProcess {
    const gateway = this.gateways[index % this.gateways.length];
    if (gateway === undefined) throw new Error('the fleet has no instances');
    return gateway;
  }

  api(index = 0): Api {
    return new Api(() => this.at(index));
  }

  /** One connection on each of so many instances, in turn. */
  async spread(count: number, open: (gateway: GatewayProcess, index: number) => Promise<Client>) {
    const clients: Client[] = [];
    for (let from = 0; from < count; from += 100) {
      const batch = Array.from({ length: Math.min(100, count - from) }, (_value, at) =>
        open(this.at(from + at), from + at),
      );
      clients.push(...(await Promise.all(batch)));
    }
    return clients;
  }

  async dispose(): Promise<void> {
    await closeClients();
    await Promise.all(this.gateways.map((gateway) => gateway.dispose()));
    await this.redis.dispose();
  }
}

function serveFleet(count: number, environment: Record<string, string> = {}): () => Fleet {
  let fleet: Fleet | undefined;
  beforeAll(async () => {
    fleet = await Fleet.start(count, environment);
  });
  afterEach(closeClients);
  afterAll(async () => {
    await fleet?.dispose();
  });
  return () => {
    if (fleet === undefined) throw new Error('the fleet has not started');
    return fleet;
  };
}

function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

function report(line: string): void {
  process.stdout.write(`${line}\n`);
}

describe('control over three instances', () => {
  const fleet = serveFleet(3, { PRESENCE_GRACE_MS: '500', ANNOUNCE_USERS: 'false' });

  it('asks all of them which connections a user has', async () => {
    const user = fresh('user');
    const clients = await fleet().spread(5, (gateway) => gateway.as(user));
    for (const index of [0, 1, 2]) {
      const found = list(await fleet().api(index).ok('GET', `/users/${user}`), 'connections');
      expect(found).toHaveLength(5);
      expect(new Map(found.map((one) => [one['connection_id'], one['instance']]))).toEqual(
        new Map(clients.map((client) => [client.connectionId, client.connected['instance']])),
      );
    }
  });

  it('lists the instances, oldest first, each with its own connections', async () => {
    const clients = await fleet().spread(5, (gateway) => gateway.as(fresh('user')));
    const names = new Map<unknown, number>();
    for (const { connected } of clients) {
      names.set(connected['instance'], (names.get(connected['instance']) ?? 0) + 1);
    }
    await eventually(async () => {
      const instances = list(await fleet().api(1).ok('GET', '/instances'), 'instances');
      expect(new Map(instances.map((one) => [one['instance'], one['connections']]))).toEqual(names);
      const starts = instances.map((one) => Number(one['started_at']));
      expect(starts).toEqual([...starts].sort((a, b) => a - b));
    });
  });

  it('disconnects a user everywhere, and counts over all', async () => {
    const user = fresh('user');
    const clients = await fleet().spread(7, (gateway) => gateway.as(user));
    const other = await fleet().at(1).as(fresh('other'));
    const answer = await fleet().api(2).ok('POST', `/users/${user}/disconnect`, { reason: 'bye' });
    expect(answer).toEqual({ connections: 7 });
    for (const client of clients) expect(await client.closed).toEqual({ code: 4503, reason: 'bye' });
    await other.fence();
    expect(await fleet().api(0).ok('POST', `/users/${user}/disconnect`)).toEqual({ connections: 0 });
  });

  it('puts all of a user’s connections into a room, and takes them out', async () => {
    const [user, room] = [fresh('user'), fresh('room')];
    const clients = await fleet().spread(7, (gateway) => gateway.as(user));
    const member = await fleet().at(2).as(fresh('member'));
    await member.request({ type: 'join_room', room });
    expect(await fleet().api(0).ok('PUT', `/users/${user}/rooms/${room}`)).toEqual({ connections: 7 });
    for (const client of clients) expect(await client.next('joined_room')).toMatchObject({ room });
    await member.next(notice('user_joined', user, room));
    await fleet().api(1).publish(`room:${room}`, { content: 'in' });
    for (const client of clients) expect(await client.next('chat')).toMatchObject({ content: 'in' });
    expect(await fleet().api(2).ok('DELETE', `/users/${user}/rooms/${room}`)).toEqual({ connections: 7 });
    for (const client of clients) expect(await client.next('left_room')).toMatchObject({ room });
    await member.next(notice('user_left', user, room));
    await fleet().api(1).publish(`room:${room}`, { content: 'out' });
    await member.next((message) => message['content'] === 'out');
    for (const client of clients) expect(await client.settled('chat')).toEqual([]);
    expect(member.unread(notice('user_joined', user))).toEqual([]);
  });

  it('publishes from any instance to the members on all', async () => {
    const room = fresh('room');
    const clients = await fleet().spread(6, (gateway) => gateway.as(fresh('user')));
    for (const client of clients) await client.request({ type: 'join_room', room });
    const answers = [0, 1, 2].map((index) => fleet().api(index).publish(`room:${room}`, { content: index }));
    expect(new Set((await Promise.all(answers)).map(({ id }) => id))).toEqual(new Set([1, 2, 3]));
    const stories = await Promise.all(clients.map((client) => client.take('chat', 3)));
    for (const story of stories) {
      expect(story.map(({ id }) => id)).toEqual([1, 2, 3]);
      expect(story.map(({ content }) => content)).toEqual(stories[0]?.map(({ content }) => content));
    }
  });

  it('one of a hundred twins sent to all instances acts', async () => {
    const [room, key] = [fresh('room'), { 'idempotency-key': fresh('key') }];
    const body = { channel: `room:${room}`, content: 1 };
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_value, index) => fleet().api(index).ok('POST', '/publish', body, key)),
    );
    expect(new Set(answers.map(({ id, epoch }) => `${String(epoch)}/${String(id)}`)).size).toBe(1);
    expect(answers.filter(({ duplicate }) => duplicate !== true)).toHaveLength(1);
    const history = await fleet().api().ok('GET', `/rooms/${room}/history`);
    expect(list(history, 'events')).toHaveLength(1);
  });

  it('revokes a user’s tokens everywhere, for an instance that starts later too', async () => {
    const user = fresh('user');
    const [old, jti] = [token(user, { iat: inSeconds(-10) }), fresh('jti')];
    const byToken = token(fresh('other'), { jti });
    const clients = await fleet().spread(6, (gateway, index) => gateway.bearing(index < 3 ? old : byToken));
    const spared = await fleet()
      .at(1)
      .bearing(token(user, { iat: inSeconds(10) }));
    const issuedBefore = inSeconds(0);
    await fleet().api(1).ok('POST', '/tokens/revoke', { sub: user, issued_before: issuedBefore });
    await fleet().api(2).ok('POST', '/tokens/revoke', { jti });
    for (const client of clients) expect(await client.closed).toMatchObject({ code: 4001 });
    await spared.fence();
    const later = await GatewayProcess.start({
      REDIS_URL: fleet().redis.url,
      JWT_SECRET: secret,
      LOG_LEVEL: 'info',
    });
    try {
      await ready(later);
      for (const jwt of [old, byToken]) {
        for (const gateway of [...fleet().gateways, later]) {
          const headers = { authorization: `Bearer ${jwt}` };
          const answer = await eventually(() => gateway.refused('/ws', { headers }));
          expect(answer.status).toBe(401);
        }
      }
      const fine = await later.bearing(token(user, { iat: inSeconds(10) }));
      expect(fine.userId).toBe(user);
      await fine.close();
    } finally {
      await later.stop();
    }
  });

  it('what others write on the control bus harms nobody', async () => {
    const { redis } = fleet();
    const client = await fleet().at(0).as(fresh('user'));
    const channels = await redis.subscriptions('fanfare*');
    expect(channels.length).toBeGreaterThan(0);
    const garbage = [
      '',
      'ask',
      'ask control',
      'ask control n x\n',
      'ask control n x\n{',
      'ask control n x\nnull',
      'ask control n x\n{"kind":"nonsense"}',
      'ask control n x\n{"kind":"disconnect"}',
      'ask control n x\n{"kind":"revoke","revocation":null}',
      'answer',
      'answer n x\n{',
      `ask __proto__ n x\n${'y'.repeat(1_000_000)}`,
      Buffer.from(Array.from({ length: 4_096 }, (_value, index) => (index * 7) % 256)),
    ];
    for (const channel of channels) {
      for (const bytes of garbage) await redis.commands.publish(channel, bytes);
    }
    expect(await fleet().api(1).ok('GET', `/users/${client.userId}`)).toMatchObject({
      connections: [{ connection_id: client.connectionId }],
    });
    expect(fleet().gateways.map((gateway) => gateway.isRunning)).toEqual([true, true, true]);
    await client.fence();
    expect(client.all.filter(({ event }) => event !== 'connected' && event !== 'pong')).toEqual([]);
  });

  it('a thousand connections are closed in less than two seconds', { timeout: 90_000 }, async () => {
    const acts: [string, number, (user: string, jti: string) => Promise<unknown>][] = [
      ['revoked by jti', 4001, (_user, jti) => fleet().api(1).ok('POST', '/tokens/revoke', { jti })],
      [
        'revoked by sub',
        4001,
        (sub) =>
          fleet()
            .api(2)
            .ok('POST', '/tokens/revoke', { sub, issued_before: inSeconds(10) }),
      ],
      ['disconnected', 4503, (user) => fleet().api(0).ok('POST', `/users/${user}/disconnect`)],
    ];
    for (const [what, code, act] of acts) {
      const [user, jti] = [fresh('user'), fresh('jti')];
      const jwt = token(user, { jti });
      const clients = await fleet().spread(1_000, (gateway) => gateway.bearing(jwt, { timeoutMs: 20_000 }));
      const closes: number[] = [];
      const began = performance.now();
      const closed = clients.map((client) =>
        client.closed.then((close) => {
          closes.push(performance.now() - began);
          return close.code;
        }),
      );
      await act(user, jti);
      const answeredMs = performance.now() - began;
      expect(new Set(await Promise.all(closed))).toEqual(new Set([code]));
      const [p50, p99, max] = [percentile(closes, 0.5), percentile(closes, 0.99), percentile(closes, 1)];
      const figures = [p50, p99, max, answeredMs].map((ms) => `${Math.round(ms)} ms`);
      report(`1000 ${what}: p50 ${figures[0]}, p99 ${figures[1]}, max ${figures[2]}, answered ${figures[3]}`);
      expect(p99).toBeLessThan(2_000);
    }
  });

  it('a room of two thousand members is paged exactly', { timeout: 120_000 }, async () => {
    const room = fresh('big');
    const users = Array.from({ length: 2_000 }, (_value, index) => `${fresh('m')}-${index}`).sort();
    const clients = await fleet().spread(2_000, async (gateway, index) => {
      const user = users[index] ?? '';
      const client = await connect(gateway.ws(), { query: { client_id: user }, timeoutMs: 20_000 });
      // Half of them put themselves in, a backend the others.
      if (index % 2 === 0) await client.request({ type: 'join_room', room }, 20_000);
      else await fleet().api(index).ok('PUT', `/users/${user}/rooms/${room}`);
      return client;
    });
    // Every tenth user has a second tab on another instance.
    const tabs = await fleet().spread(200, async (_gateway, index) => {
      const client = await fleet()
        .at(index + 1)
        .as(users[index * 10] ?? '');
      await client.request({ type: 'join_room', room });
      return client;
    });
    expect(clients.length + tabs.length).toBe(2_200);
    await eventually(
      async () => {
        expect(await fleet().api().ok('GET', `/rooms/${room}`)).toMatchObject({
          members: 2_000,
          connections: 2_200,
        });
      },
      { timeoutMs: 10_000 },
    );
    for (const limit of [1_000, 333, 64]) {
      const seen: Record<string, unknown>[] = [];
      let cursor = '';
      do {
        const page = await fleet().api(limit).ok('GET', `/rooms/${room}/presence?limit=${limit}${cursor}`);
        expect(page['count']).toBe(2_000);
        seen.push(...list(page, 'members'));
        cursor = typeof page['cursor'] === 'string' ? `&cursor=${encodeURIComponent(page['cursor'])}` : '';
      } while (cursor !== '');
      expect(seen).toEqual(
        users.map((user_id, index) => ({ user_id, connections: index % 10 === 0 ? 2 : 1 })),
      );
    }
  });
});

describe('presence when an instance ends without a word', () => {
  const fleet = serveFleet(2, { PRESENCE_GRACE_MS: String(GRACE_MS), HEARTBEAT_TIMEOUT_MS: '60000' });

  /** What an observer has been told of a user, in order. */
  const told = (observer: Client, user: string): unknown[] =>
    observer.all
      .filter((message) => /^user_(?:dis)?connected$/.test(String(message.event)))
      .filter((message) => message['user_id'] === user)
      .map((message) => message.event);

  it(
    'those of its users who have no tab elsewhere are gone, each once, within lease, grace and 2 s',
    { timeout: 90_000 },
    async () => {
      const survivor = fleet().at(0);
      const victim = await fleet().add();
      const observer = await survivor.as(fresh('observer'));
      const users = Array.from({ length: 60 }, () => fresh('user'));
      const [staying, leaving] = [users.slice(0, 12), users.slice(12)];
      const doomed = await Promise.all(users.map((user) => victim.as(user)));
      const tabs = await Promise.all(staying.map((user) => survivor.as(user)));
      for (const user of users) await observer.next(notice('user_connected', user));
      const before = await stats(survivor.url);
      expect(before.cluster).toMatchObject({ users: 61, connections: 73 });

      const killed = performance.now();
      await victim.stop('SIGKILL');
      for (const client of doomed) expect(await client.closed).toMatchObject({ code: 1006 });
      const boundMs = LEASE_MS + GRACE_MS + 2_000;
      for (const user of leaving) {
        await observer.next(notice('user_disconnected', user), boundMs - (performance.now() - killed));
      }
      const tookMs = performance.now() - killed;
      report(`kill -9 with 60 users: 48 gone after ${Math.round(tookMs)} ms (lease ${LEASE_MS} ms)`);
      await eventually(async () => {
        expect((await stats(survivor.url)).cluster).toMatchObject({ users: 13, connections: 13 });
      });
      // Nothing more comes: a mark that is published now has all that was announced before it.
      await fleet().api().publish('broadcast', { content: 'mark' });
      await observer.next('chat');
      for (const user of leaving)
        expect(told(observer, user)).toEqual(['user_connected', 'user_disconnected']);
      for (const user of staying) expect(told(observer, user)).toEqual(['user_connected']);
      for (const tab of tabs) await tab.fence();
    },
  );

  it('one that was only frozen leaves no ghost when it wakes', { timeout: 120_000 }, async () => {
    const [survivor, frozen] = [fleet().at(0), fleet().at(1)];
    const room = fresh('room');
    const observer = await survivor.as(fresh('observer'));
    await observer.request({ type: 'join_room', room });
    const [loyal, lost, both] = [fresh('loyal'), fresh('lost'), fresh('both')];
    const clients = await Promise.all(
      [loyal, lost, both].flatMap((user) => [frozen.as(user), frozen.as(user)]),
    );
    const tab = await survivor.as(both);
    for (const client of [...clients, tab]) await client.request({ type: 'join_room', room });
    for (const user of [loyal, lost, both]) await observer.next(notice('user_joined', user, room));

    frozen.signal('SIGSTOP');
    try {
      for (const user of [loyal, lost]) {
        await observer.next(notice('user_disconnected', user), 35_000);
        await observer.next(notice('user_left', user, room), 35_000);
      }
      expect(told(observer, both)).toEqual(['user_connected']);
      // One user goes while the instance sleeps and does not see it.
      const going = clients.filter((client) => client.userId === lost);
      await Promise.all(going.map((client) => client.cut()));
    } finally {
      frozen.signal('SIGCONT');
    }
    await observer.next(notice('user_connected', loyal), 15_000);
    await observer.next(notice('user_joined', loyal, room), 15_000);
    await eventually(
      async () => {
        const presence = await fleet().api(0).ok('GET', `/rooms/${room}/presence`);
        const counts = list(presence, 'members').map((one) => [one['user_id'], one['connections']]);
        expect(new Map(counts as [string, number][])).toEqual(
          new Map([
            [observer.userId, 1],
            [loyal, 2],
            [both, 3],
          ]),
        );
        expect((await stats(survivor.url)).cluster).toMatchObject({ users: 3, connections: 6 });
        expect(await fleet().api(0).ok('GET', `/users/${lost}`)).toMatchObject({ connections: [] });
      },
      { timeoutMs: 30_000, everyMs: 200 },
    );
    // The list may be right a moment before the notice of it has come.
    await eventually(async () => expect(told(observer, lost).at(-1)).toBe('user_disconnected'), {
      timeoutMs: 15_000,
      everyMs: 100,
    });
    expect(told(observer, both)).toEqual(['user_connected']);
    // The members that slept are members: they get what is published now.
    await fleet().api(0).publish(`room:${room}`, { content: 'awake' });
    for (const client of clients.filter(({ userId }) => userId !== lost)) {
      expect(await client.next((message) => message['content'] === 'awake')).toMatchObject({ room });
    }
  });
});
