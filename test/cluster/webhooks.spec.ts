import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { closeClients, type Client } from '../support/client.js';
import { ready, serveCluster } from '../support/cluster.js';
import { eventually } from '../support/eventually.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { Gateway, type Environment } from '../support/gateway.js';
import { status } from '../support/http.js';
import { fresh } from '../support/names.js';
import { startRedisCluster } from '../support/redis-topologies.js';

const TOLERANCE_S = 300;

interface Event {
  id: string;
  type: string;
  timestamp: string;
  data: { user_id?: string; room?: string };
}

interface Delivery {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly events: Event[];
  /** What the receiver did with it. */
  readonly verdict: Verdict;
}

/** Takes it; refuses it; takes it and never says so; takes it and cuts the connection before it says so. */
type Verdict = 'ok' | '500' | 'hang' | 'cut';

/** A backend's HTTP endpoint: keeps each delivery, and answers as it is told. */
class Receiver {
  readonly deliveries: Delivery[] = [];
  /** Asked for each delivery. */
  verdict: () => Verdict = () => 'ok';
  private port = 0;
  private server: Server | null = null;

  static async start(): Promise<Receiver> {
    const receiver = new Receiver();
    await receiver.open();
    return receiver;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/hooks`;
  }

  /** The events it has taken, in the order of their first arrival, without those that came again. */
  get events(): Event[] {
    const events = new Map<string, Event>();
    for (const delivery of this.deliveries) {
      if (delivery.verdict === '500') continue;
      for (const event of delivery.events) if (!events.has(event.id)) events.set(event.id, event);
    }
    return [...events.values()];
  }

  /** What it knows of a user or room. */
  of(name: string): string[] {
    return this.events
      .filter(({ data }) => (data.user_id ?? data.room) === name)
      .map(({ type }) => type.split('.')[1] ?? '');
  }

  async knows(name: string, types: string[], timeoutMs = 10_000): Promise<void> {
    await eventually(
      () => {
        const known = this.of(name);
        if (known.join() !== types.join()) throw new Error(`of ${name} the receiver knows: ${known.join()}`);
      },
      { timeoutMs },
    );
  }

  async open(): Promise<void> {
    const server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const body = Buffer.concat(chunks).toString();
        const { events } = JSON.parse(body) as { events: Event[] };
        const verdict = this.verdict();
        this.deliveries.push({ headers: request.headers, body, events, verdict });
        if (verdict === 'cut') request.socket.destroy();
        else if (verdict !== 'hang') response.writeHead(verdict === 'ok' ? 204 : 500).end();
      });
    });
    await new Promise<void>((resolve) => {
      server.listen(this.port, '127.0.0.1', resolve);
    });
    this.port = (server.address() as AddressInfo).port;
    this.server = server;
  }

  /** Connections are refused from now on. */
  async close(): Promise<void> {
    const { server } = this;
    if (server === null) return;
    this.server = null;
    await new Promise<void>((resolve) => {
      server.close(() => {
        resolve();
      });
      server.closeAllConnections();
    });
  }
}

/** The algorithm of https://www.standardwebhooks.com, written from its specification. */
function verifies(secret: string, { headers, body }: Delivery): boolean {
  const [id, timestamp] = [headers['webhook-id'], headers['webhook-timestamp']];
  if (typeof id !== 'string' || typeof timestamp !== 'string' || !/^\d+$/.test(timestamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_S) return false;
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.from(secret);
  const expected = createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest();
  return String(headers['webhook-signature'])
    .split(' ')
    .some((entry) => {
      const [version, signature = ''] = entry.split(',');
      const given = Buffer.from(signature, 'base64');
      return version === 'v1' && given.length === expected.length && timingSafeEqual(given, expected);
    });
}

const rawSecret = 'a raw secret, not base64: ünï';
const receiver = await Receiver.start();
const cluster = serveCluster({
  WEBHOOK_URL: receiver.url,
  WEBHOOK_SECRET: rawSecret,
  PRESENCE_GRACE_MS: '0',
  ANNOUNCE_USERS: 'false',
});

afterEach(() => {
  receiver.verdict = () => 'ok';
});
afterAll(() => receiver.close());

/** An instance inside this process and a receiver of its own. */
async function withGateway(
  environment: Environment,
  check: (gateway: Gateway, own: Receiver) => Promise<void>,
): Promise<void> {
  const own = await Receiver.start();
  const gateway = await Gateway.start({
    WEBHOOK_URL: own.url,
    WEBHOOK_SECRET: rawSecret,
    PRESENCE_GRACE_MS: '0',
    ...environment,
  });
  try {
    await eventually(async () => expect(await status(`${gateway.url}/health/ready`)).toBe(200), {
      timeoutMs: 10_000,
    });
    await check(gateway, own);
  } finally {
    await closeClients();
    await gateway.close();
    await own.close();
  }
}

async function join(client: Client, room: string): Promise<void> {
  expect(await client.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
}

const brokers = [
  ['the embedded broker', (): Environment => ({})],
  ['Redis', (): Environment => ({ REDIS_URL: cluster().redis.url, REDIS_PREFIX: fresh('own') })],
] as const;

describe.each(brokers)('webhooks over %s', (_name, environment) => {
  it('tell of the first connection and the last, and of a room that fills and empties, in that order', async () => {
    await withGateway(environment(), async (gateway, own) => {
      const startedMs = Date.now();
      const room = 'a/room:of@all-kinds.1';
      const [ana, ana2] = [await gateway.as('ana {1} "🎺"'), await gateway.as('ana {1} "🎺"')];
      const bob = await gateway.as('bob');
      for (const client of [ana, ana2, bob]) await join(client, room);
      await ana.close();
      await bob.request({ type: 'leave_room', room });
      await ana2.request({ type: 'leave_room', room });
      await ana2.close();
      await own.knows(ana.userId, ['connected', 'disconnected']);
      await bob.close();
      await own.knows('bob', ['connected', 'disconnected']);
      await own.knows(room, ['occupied', 'vacated']);
      expect(own.events.map(({ type, data }) => [type, data])).toEqual([
        ['user.connected', { user_id: ana.userId }],
        ['user.connected', { user_id: 'bob' }],
        ['room.occupied', { room }],
        ['room.vacated', { room }],
        ['user.disconnected', { user_id: ana.userId }],
        ['user.disconnected', { user_id: 'bob' }],
      ]);
      for (const { timestamp } of own.events) {
        expect(timestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
        expect(Date.parse(timestamp)).toBeGreaterThanOrEqual(startedMs - 5);
        expect(Date.parse(timestamp)).toBeLessThanOrEqual(Date.now() + 5);
      }
      // Nothing was sent twice while nothing went wrong.
      expect(own.deliveries.flatMap(({ events }) => events)).toHaveLength(6);
    });
  });

  it.each([
    ['a whsec_ secret', `whsec_${Buffer.from('twenty-four or more bytes!').toString('base64')}`],
    ['a raw secret', rawSecret],
  ])('are signed as Standard Webhooks with %s', async (_kind, secret) => {
    await withGateway({ ...environment(), WEBHOOK_SECRET: secret }, async (gateway, own) => {
      await gateway.as('üser 🎺');
      await own.knows('üser 🎺', ['connected']);
      for (const delivery of own.deliveries) {
        expect(delivery.headers['content-type']).toMatch(/^application\/json/);
        expect(delivery.headers['webhook-id']).toMatch(/^[\w.-]{1,256}$/);
        expect(verifies(secret, delivery)).toBe(true);
        expect(verifies(`${secret}x`, { ...delivery, body: `${delivery.body} ` })).toBe(false);
        expect(verifies('another secret', delivery)).toBe(false);
        const replayed = { ...delivery.headers, 'webhook-timestamp': '1700000000' };
        expect(verifies(secret, { ...delivery, headers: replayed })).toBe(false);
      }
    });
  });

  it('come in batches and lose nothing while the receiver is away, answers 500 or cuts the connection', async () => {
    await withGateway({ ...environment(), RATE_LIMIT_PER_SECOND: '0' }, async (gateway, own) => {
      await own.close();
      // However many there are when the first batch is made, the second one is full.
      const users = Array.from({ length: 230 }, (_, index) => `user-${index}`);
      const clients = await Promise.all(users.map((user) => gateway.as(user)));
      await Promise.all(clients.slice(0, 65).map((client) => client.close()));
      expect(own.deliveries).toEqual([]);
      let deliveries = 0;
      own.verdict = () => (['500', 'cut', 'ok'] as const)[Math.min((deliveries += 1), 3) - 1] ?? 'ok';
      await own.open();
      const expected = users.map((_, index) => (index < 65 ? ['connected', 'disconnected'] : ['connected']));
      await eventually(() => expect(users.map((user) => own.of(user))).toEqual(expected), {
        timeoutMs: 30_000,
      });
      const sizes = own.deliveries.map(({ events }) => events.length);
      expect(Math.max(...sizes)).toBe(100);
      expect(own.deliveries.length).toBeLessThanOrEqual(6);
      expect(own.deliveries.slice(0, 2).map(({ verdict }) => verdict)).toEqual(['500', 'cut']);
      // What was sent again is told by its ids: the event's own, and the delivery's.
      const ids = own.deliveries.slice(0, 3).map(({ events }) => events.map(({ id }) => id));
      expect(ids[1]).toEqual(ids[0]);
      expect(ids[2]).toEqual(ids[0]);
      expect(own.deliveries[1]?.headers['webhook-id']).toBe(own.deliveries[0]?.headers['webhook-id']);
      expect(own.deliveries.every((delivery) => verifies(rawSecret, delivery))).toBe(true);
    });
  }, 60_000);

  it('are sent again, with the same ids, when the receiver takes them and never answers', async () => {
    await withGateway(environment(), async (gateway, own) => {
      own.verdict = () => (own.deliveries.length === 0 ? 'hang' : 'ok');
      await gateway.as('ana');
      await eventually(() => expect(own.deliveries.length).toBeGreaterThan(1), { timeoutMs: 30_000 });
      expect(own.deliveries.map(({ events }) => events[0]?.id)).toEqual(
        own.deliveries.map(() => own.deliveries[0]?.events[0]?.id),
      );
      expect(own.of('ana')).toEqual(['connected']);
    });
  }, 60_000);
});

describe('webhooks of several instances', () => {
  it('tell of each change once, whatever instances a user and a room are on', async () => {
    const { one, other } = cluster();
    const room = fresh('room');
    const users = Array.from({ length: 20 }, () => fresh('user'));
    const tabs = await Promise.all(users.flatMap((user) => [one.as(user), other.as(user), one.as(user)]));
    await Promise.all(tabs.map((tab) => join(tab, room)));
    for (const user of users) await receiver.knows(user, ['connected']);
    await receiver.knows(room, ['occupied']);
    // All but one tab of each: nobody has gone.
    await Promise.all(tabs.filter((_, index) => index % 3 !== 1).map((tab) => tab.close()));
    const marker = await one.as(fresh('marker'));
    await receiver.knows(marker.userId, ['connected']);
    for (const user of users) expect(receiver.of(user)).toEqual(['connected']);
    expect(receiver.of(room)).toEqual(['occupied']);
    await Promise.all(tabs.filter((_, index) => index % 3 === 1).map((tab) => tab.close()));
    for (const user of users) await receiver.knows(user, ['connected', 'disconnected']);
    await receiver.knows(room, ['occupied', 'vacated']);
    // A user that comes again connects again.
    await other.as(users[0] ?? '');
    await receiver.knows(users[0] ?? '', ['connected', 'disconnected', 'connected']);
  });

  it('pass over what others have put into their stream', async () => {
    const { one, redis } = cluster();
    const stream = 'fanfare:webhooks';
    const foreign = [
      ['foreign', 'value', 'x', 'y'],
      ['type', 'user.promoted', 'name', 'mallory'],
      ['type', 'user.connected', 'name', ''],
      ['type', 'user.connected', 'name', 'mallory', 'more', '1'],
      ['name', 'mallory', 'type', 'user.connected'],
    ];
    for (const fields of foreign) await redis.commands.xadd(stream, '*', ...fields);
    const user = fresh('user');
    const client = await one.as(user);
    await receiver.knows(user, ['connected']);
    await eventually(async () => expect(await redis.commands.xlen(stream)).toBe(0));
    expect(receiver.events.filter(({ data }) => data.user_id === 'mallory')).toEqual([]);
    expect(receiver.events.filter(({ type }) => !/^(user|room)\.\w+$/.test(String(type)))).toEqual([]);
    await client.close();
  });

  it('lose nothing and keep the order of each user and room while the receiver fails at random', async () => {
    const { one, other } = cluster();
    const before = receiver.deliveries.length;
    receiver.verdict = () => {
      const chance = Math.random();
      return chance < 0.2 ? '500' : chance < 0.35 ? 'cut' : 'ok';
    };
    const users = Array.from({ length: 500 }, () => fresh('churn'));
    let isDown = false;
    for (let start = 0; start < users.length; start += 50) {
      isDown = !isDown;
      await (isDown ? receiver.close() : receiver.open());
      await Promise.all(
        users.slice(start, start + 50).map(async (user, index) => {
          const client = await (index % 2 === 0 ? one : other).as(user);
          await join(client, `of-${user}`);
          await client.request({ type: 'leave_room', room: `of-${user}` });
          await client.close();
        }),
      );
    }
    await receiver.close();
    await receiver.open();
    await eventually(
      () => {
        const known = new Map<string, string[]>();
        for (const { type, data } of receiver.events) {
          const name = data.user_id ?? data.room ?? '';
          known.set(name, [...(known.get(name) ?? []), type]);
        }
        const types = (name: string): string[] => known.get(name) ?? [];
        expect(users.filter((user) => types(user).join() !== 'user.connected,user.disconnected')).toEqual([]);
        expect(users.filter((user) => types(`of-${user}`).join() !== 'room.occupied,room.vacated')).toEqual(
          [],
        );
      },
      { timeoutMs: 90_000, everyMs: 250 },
    );
    const deliveries = receiver.deliveries.slice(before);
    const failed = deliveries.filter(({ verdict }) => verdict !== 'ok').length;
    const sent = deliveries.flatMap(({ events }) => events).length;
    process.stdout.write(
      `webhooks: 2,000 events, ${deliveries.length} deliveries of which ${failed} failed, ${sent} events sent\n`,
    );
  }, 150_000);

  it('lose nothing when the instance that sends is killed, and tell of each of its users once', async () => {
    const own = await Receiver.start();
    const settings = {
      REDIS_URL: cluster().redis.url,
      REDIS_PREFIX: fresh('killed'),
      WEBHOOK_URL: own.url,
      WEBHOOK_SECRET: rawSecret,
      PRESENCE_GRACE_MS: '0',
      ANNOUNCE_USERS: 'false',
    };
    const gateways: GatewayProcess[] = [];
    const start = async (): Promise<GatewayProcess> => {
      const gateway = await GatewayProcess.start(settings);
      gateways.push(gateway);
      await ready(gateway);
      return gateway;
    };
    try {
      const victim = await start();
      const users = Array.from({ length: 50 }, () => fresh('victim'));
      const [stays] = users;
      const room = fresh('room');
      own.verdict = () => 'hang';
      const clients = await Promise.all(users.map((user) => victim.as(user)));
      await Promise.all(clients.map((client) => join(client, room)));
      // It is alone, so it is the one whose delivery hangs and who holds the lock.
      await eventually(() => expect(own.deliveries).toHaveLength(1));
      const killed = performance.now();
      await victim.stop('SIGKILL');
      own.verdict = () => 'ok';
      const other = await start();
      const elsewhere = await other.as(stays ?? '');
      await eventually(
        () => {
          const expected = users.map((user) =>
            user === stays ? ['connected'] : ['connected', 'disconnected'],
          );
          expect(users.map((user) => own.of(user))).toEqual(expected);
        },
        { timeoutMs: 75_000, everyMs: 250 },
      );
      await own.knows(room, ['occupied', 'vacated']);
      process.stdout.write(
        `webhooks: users of a killed instance told after ${Math.round(performance.now() - killed)} ms\n`,
      );
      await elsewhere.close();
      await own.knows(stays ?? '', ['connected', 'disconnected']);
    } finally {
      await closeClients();
      await Promise.all(gateways.map((gateway) => gateway.dispose()));
      await own.close();
    }
  }, 150_000);
});

describe('webhooks over a Redis Cluster', () => {
  it('tell of users and rooms of every partition, each change once and in the order of each', async () => {
    const topology = await startRedisCluster();
    try {
      await withGateway({ ...topology.settings, RATE_LIMIT_PER_SECOND: '0' }, async (gateway, own) => {
        own.verdict = () => (own.deliveries.length === 1 ? 'cut' : 'ok');
        const users = Array.from({ length: 60 }, (_, index) => `user {${index}}`);
        for (const user of users) {
          const client = await gateway.as(user);
          await join(client, `room:${user.slice(6, -1)}`);
          await client.close();
        }
        for (const [index, user] of users.entries()) {
          await own.knows(user, ['connected', 'disconnected'], 30_000);
          await own.knows(`room:${index}`, ['occupied', 'vacated']);
        }
        // Streams of different partitions number apart: the ids of the events are different all the same.
        expect(own.events).toHaveLength(240);
      });
    } finally {
      await topology.dispose();
    }
  }, 90_000);
});
