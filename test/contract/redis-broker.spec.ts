import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { BrokerUnavailable } from '../../src/core/broker.js';
import { Hub } from '../../src/core/hub.js';
import { Turn } from '../../src/core/turn.js';
import type { Position } from '../../src/protocol/messages.js';
import { partitionOf } from '../../src/redis/redis-keys.js';
import { eventually, within } from '../support/eventually.js';
import { fresh } from '../support/names.js';
import { RedisServer } from '../support/redis-server.js';
import { connect, FakeTelemetry } from '../unit/fakes.js';
import {
  body,
  brokerContract,
  eventsOf,
  firstOf,
  idsOf,
  lastOf,
  positionOf,
  publishMany,
  upTo,
} from './broker.contract.js';
import { RedisInstance } from './redis-instance.js';

let server: RedisServer;
const instances: RedisInstance[] = [];

async function start(on: RedisServer = server, options: Parameters<typeof RedisInstance.start>[1] = {}) {
  const prefix = fresh('t');
  const here = await RedisInstance.start(on, { prefix, ...options });
  const there = await RedisInstance.start(on, { prefix, ...options });
  instances.push(here, there);
  return { here, there, prefix };
}

async function closeInstances(): Promise<void> {
  await Promise.all(instances.splice(0).map((instance) => instance.close()));
}

beforeAll(async () => {
  server = await RedisServer.start();
});
afterAll(async () => {
  await server.dispose();
});

brokerContract({
  name: 'Redis',
  create: async (options) => {
    const { here, there } = await start(server, options);
    return { here: here.broker, hereSink: here.sink, there: there.broker, thereSink: there.sink };
  },
  close: closeInstances,
});

/** Publishes until the broker takes it; answers where it was put. */
function publishAgain(instance: RedisInstance, channel: string): Promise<Position> {
  return eventually(async () => positionOf(await instance.broker.publish({ channel, body: body('again') })), {
    timeoutMs: 10_000,
  });
}

describe('a Redis broker', () => {
  afterEach(closeInstances);

  it('leaves no key behind for a channel that was only read', async () => {
    const { here, prefix } = await start();
    const before = await server.keys(`${prefix}:*`);
    const channel = fresh('room:a');
    await here.broker.subscribe(channel);
    const head = await here.broker.head(channel);
    await here.broker.history(channel, head, 10);
    await here.broker.before(channel, null, { events: 10, bytes: 1_000 });
    expect(await server.keys(`${prefix}:*`)).toEqual(before);
  });

  it('gives every key of a channel a time to live', async () => {
    const { here, prefix } = await start();
    const channel = fresh('room:a');
    await here.broker.publish({ channel, body: body(1), idempotency: { scope: 'a', key: 'b' } });
    const keys = await server.keys(`${prefix}:*${channel}*`);
    expect(keys).toHaveLength(3);
    for (const key of keys) expect(await server.commands.pttl(key)).toBeGreaterThan(0);
  });

  it('gives the bus back to Redis when nobody here listens any more', async () => {
    const { there, prefix } = await start();
    const channel = fresh('room:a');
    await there.broker.subscribe(channel);
    expect(await server.subscriptions(`${prefix}:*${channel}:bus`)).toHaveLength(1);
    there.broker.unsubscribe(channel);
    await eventually(async () => {
      expect(await server.subscriptions(`${prefix}:*${channel}:bus`)).toEqual([]);
    });
  });

  it('brings what one turn publishes to a channel in one message', async () => {
    const { here, there } = await start();
    const [channel, other] = [fresh('room:a'), fresh('room:b')];
    const listener = server.commands.duplicate();
    try {
      const heard: string[] = [];
      listener.on('message', (bus: string) => heard.push(bus));
      await listener.subscribe(there.keys.bus(channel), there.keys.bus(other));
      for (const name of [channel, other]) await there.broker.subscribe(name);
      const published = await Promise.all(
        [channel, other, channel, channel, other].map((name) =>
          here.broker.publish({ channel: name, body: body(name) }),
        ),
      );
      expect(published.map(({ position }) => position?.id)).toEqual([1, 1, 2, 3, 2]);
      await there.sink.received(channel, 3);
      await there.sink.received(other, 2);
      expect(there.sink.ids(channel)).toEqual([1, 2, 3]);
      expect(there.sink.ids(other)).toEqual([1, 2]);
      await publishMany(here.broker, channel, 1);
      const buses = [there.keys.bus(channel), there.keys.bus(other), there.keys.bus(channel)];
      await eventually(() => expect(heard).toHaveLength(buses.length));
      expect(heard).toEqual(buses);
    } finally {
      listener.disconnect();
    }
  });

  it.each([
    ['nothing', ''],
    ['noise', '\u0000\u00ff\u0001'],
    ['JSON', '{"event":"chat","content":1}'],
    ['a header alone', '1 1 9 e.1 15 '],
    ['another version', '2 1 9 e.1 15 \n{"event":"chat"'],
    ['an id that is no number', '1 1 x e.1 15 \n{"event":"chat"'],
    ['a negative id', '1 1 -1 e.1 15 \n{"event":"chat"'],
    ['another body', '1 0 0 - 5 \nhello'],
    ['an array as body', '1 0 0 - 16 \n[{"event":"chat"'],
    ['a long header', `1 0 0 - 15 user:${'x'.repeat(2_000)}\n{"event":"chat"`],
    ['ten megabytes', 'x'.repeat(10_000_000)],
  ])('drops and counts what others say on its bus: %s', async (_what, garbage) => {
    const { here, there } = await start();
    const channel = fresh('room:a');
    await there.broker.subscribe(channel);
    await server.commands.publish(there.keys.bus(channel), garbage);
    await publishMany(here.broker, channel, 1);
    await there.sink.received(channel, 1);
    expect(there.sink.ids(channel)).toEqual([1]);
    expect(there.telemetry.count('busMessageDropped malformed')).toBe(1);
  });

  it('survives and counts what others say on the buses between instances', async () => {
    const { here, there } = await start();
    const { control } = there.keys;
    const own = there.keys.instance(there.name);
    for (const garbage of [
      '',
      'ask',
      'ask seen',
      'ask seen a',
      'ask seen a b\n{',
      'answer',
      'answer a b\n{',
      '\u0000',
      '{}',
    ])
      for (const bus of [control, own]) await server.commands.publish(bus, garbage);
    const channel = fresh('room:a');
    await there.broker.subscribe(channel);
    await publishMany(here.broker, channel, 1);
    await there.sink.received(channel, 1);
    expect(there.broker.health()).toEqual({ up: true });
    // On either bus all but the one that has the form of a question or an answer.
    expect(there.telemetry.count('busMessageDropped malformed')).toBe(16);
  });

  it('refuses a channel whose log is of another type, and no other one of the same turn', async () => {
    const { here } = await start();
    const [broken, sound] = [fresh('room:broken'), fresh('room:sound')];
    await server.commands.lpush(`${here.keys.channel(partitionOf(broken), broken)}:log`, 'not a stream');
    const results = await Promise.allSettled(
      [sound, broken, sound].map((channel) => here.broker.publish({ channel, body: body(1) })),
    );
    // The first event of a numbering clears what lay under the name of its log.
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled']);
    await server.commands.del(`${here.keys.channel(partitionOf(broken), broken)}:log`);
    await server.commands.lpush(`${here.keys.channel(partitionOf(broken), broken)}:log`, 'not a stream');
    const again = await Promise.allSettled(
      [sound, broken, sound].map((channel) => here.broker.publish({ channel, body: body(2) })),
    );
    expect(again.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(again[1]).toMatchObject({ reason: expect.any(BrokerUnavailable) as unknown });
    expect((await here.broker.head(sound)).id).toBe(4);
    expect((await here.broker.head(broken)).id).toBe(1);
  });
});

describe('a Redis broker whose subscription is cut', () => {
  afterEach(closeInstances);

  it('takes it up again and tells the heads, so that what was missed can be fetched', async () => {
    const { here, there } = await start();
    const channel = fresh('room:a');
    await there.broker.subscribe(channel);
    const first = firstOf(await publishMany(here.broker, channel, 1));
    await there.sink.received(channel, 1);
    await server.commands.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await eventually(async () => {
      await publishMany(here.broker, channel, 1);
    });
    await there.sink.until(
      () => there.sink.heads.some(({ head }) => head.id >= 1 && head.epoch === first.epoch),
      'the head of the channel',
    );
    await there.up();
    const seen = there.sink.of(channel).length;
    const position = await publishAgain(here, channel);
    await there.sink.received(channel, seen + 1);
    expect(there.sink.of(channel).at(-1)?.position).toEqual(position);
    const missed = await there.broker.history(channel, { ...first, id: 1 }, 100);
    expect(idsOf(eventsOf(missed))).toEqual(upTo(position.id, 2));
  });
});

describe('a Redis broker without Redis', () => {
  let own: RedisServer;

  beforeAll(async () => {
    own = await RedisServer.start();
  });
  afterEach(closeInstances);
  afterAll(async () => {
    await own.dispose();
  });

  /** Each call of the port that waits for Redis, and how it ends. */
  async function outcomes({ broker }: RedisInstance): Promise<unknown[]> {
    const channel = fresh('room:a');
    const calls = {
      publish: () => broker.publish({ channel, body: body(1) }),
      ephemeral: () => broker.publish({ channel: `room:cursor:${channel}`, body: body(1) }),
      subscribe: () => broker.subscribe(channel),
      head: () => broker.head(channel),
      history: () => broker.history(channel, { epoch: 'a.1', id: 0 }, 10),
      before: () => broker.before(channel, null, { events: 1, bytes: 1 }),
    };
    return Promise.all(
      Object.entries(calls).map(async ([name, call]) => {
        try {
          await within<unknown>(call(), 2_000, `${name} has not ended`);
          return `${name} is answered`;
        } catch (error) {
          return error instanceof BrokerUnavailable ? 'unavailable' : error;
        }
      }),
    );
  }

  it.each([
    ['killed', () => own.kill(), () => own.restart()],
    ['that hangs', async () => own.pause(), async () => own.resume()],
  ])('rejects everything with BrokerUnavailable within 2 s: %s', async (_what, takeAway, giveBack) => {
    const { here, there } = await start(own);
    await takeAway();
    expect(await outcomes(here)).toEqual(Array.from({ length: 6 }, () => 'unavailable'));
    await giveBack();
    const channel = fresh('room:a');
    expect((await publishAgain(here, channel)).id).toBeGreaterThan(0);
    await there.up();
    await there.broker.subscribe(channel);
    const position = await publishAgain(here, channel);
    await there.sink.received(channel, 1);
    expect(there.sink.of(channel)[0]?.position).toEqual(position);
  });

  it('forgets a channel that could not be subscribed', async () => {
    const { here } = await start(own);
    const [refused, held] = [fresh('room:a'), fresh('room:b')];
    await here.broker.subscribe(held);
    await own.kill();
    await eventually(() => {
      expect(here.broker.health().up).toBe(false);
    });
    await expect(here.broker.subscribe(refused)).rejects.toBeInstanceOf(BrokerUnavailable);
    await own.restart();
    await here.sink.until(
      () => here.sink.heads.some(({ channel }) => channel === held),
      'the head of the other',
    );
    await publishAgain(here, held);
    expect(here.sink.heads.map(({ channel }) => channel)).not.toContain(refused);
  });

  it('asks Redis no more than once about a message that only looks like one of ours', async () => {
    const { here } = await start(own);
    const channel = fresh('room:a');
    const hub = new Hub(here.broker, new FakeTelemetry(), new Turn(), (error) =>
      expect.unreachable(String(error)),
    );
    here.sink.next = hub;
    const held = await hub.acquire(channel);
    held.add(connect('alice').connection);
    const { epoch } = positionOf(await here.broker.publish({ channel, body: body(1) }));
    const calls = async (): Promise<number> =>
      Number(/cmdstat_evalsha:calls=(\d+)/.exec(await own.commands.info('commandstats'))?.[1] ?? 0);
    await own.commands.publish(here.keys.bus(channel), `1 1 999999 ${epoch} \n{"event":"chat"`);
    const before = await calls();
    for (let count = 0; count < 500; count += 1) await here.broker.head(channel);
    expect((await calls()) - before).toBeLessThan(510);
  });

  it('is not up before it has reached Redis, and then is by itself', async () => {
    const late = await RedisServer.reserve();
    try {
      const starting = start(late);
      await late.restart();
      const { here, there } = await starting;
      expect([here.broker.health().up, there.broker.health().up]).toEqual([true, true]);
    } finally {
      await closeInstances();
      await late.dispose();
    }
  });
});

describe('a Redis that comes back', () => {
  afterEach(closeInstances);

  async function withServer(
    settings: Record<string, string>,
    run: (world: {
      own: RedisServer;
      here: RedisInstance;
      there: RedisInstance;
      channel: string;
    }) => Promise<void>,
  ): Promise<void> {
    const own = await RedisServer.start(settings);
    try {
      const { here, there } = await start(own);
      const channel = fresh('room:a');
      await Promise.all([here.broker.subscribe(channel), there.broker.subscribe(channel)]);
      await run({ own, here, there, channel });
    } finally {
      await closeInstances();
      await own.dispose();
    }
  }

  /** Waits until an instance was told that the channel goes on at `id` of an epoch for which `holds`. */
  async function toldHead({ sink }: RedisInstance, channel: string, holds: (head: Position) => boolean) {
    const told = (): Position | undefined =>
      sink.heads.find((heard) => heard.channel === channel && holds(heard.head))?.head;
    await sink.until(
      () => told() !== undefined,
      () => `a head of ${channel}, got ${JSON.stringify(sink.heads)}`,
    );
    return told();
  }

  it('with everything keeps the epoch while all who have seen something say so', async () => {
    await withServer({ appendonly: 'yes', appendfsync: 'always' }, async ({ own, here, there, channel }) => {
      const last = lastOf(await publishMany(here.broker, channel, 5));
      await there.sink.received(channel, 5);
      await own.kill();
      await own.restart();
      await Promise.all([here.up(), there.up()]);
      expect(await toldHead(there, channel, ({ id }) => id === 5)).toEqual(last);
      const next = await publishAgain(here, channel);
      expect(next).toEqual({ epoch: last.epoch, id: 6 });
      await there.sink.received(channel, 6);
      expect(idsOf(eventsOf(await there.broker.history(channel, { ...last, id: 0 }, 10)))).toEqual(upTo(6));
    });
  });

  it('changes the epoch where an instance that may have seen more does not answer', async () => {
    await withServer({ appendonly: 'yes', appendfsync: 'always' }, async ({ own, here, there, channel }) => {
      const last = lastOf(await publishMany(here.broker, channel, 5));
      await there.crash();
      await own.kill();
      await own.restart();
      const next = await publishAgain(here, channel);
      expect(next.epoch).not.toBe(last.epoch);
      expect(next.id).toBe(1);
    });
  });

  it('without the last of what was acknowledged changes the epoch', async () => {
    await withServer({}, async ({ own, here, there, channel }) => {
      const third = lastOf(await publishMany(here.broker, channel, 3));
      await own.commands.save();
      await publishMany(here.broker, channel, 3);
      await there.sink.received(channel, 6);
      await own.kill();
      await own.restart();
      const next = await publishAgain(here, channel);
      expect(next.epoch).not.toBe(third.epoch);
      await eventually(async () => {
        expect(await here.broker.history(channel, third, 10)).toMatchObject({ kind: 'lost' });
      });
      await toldHead(there, channel, ({ epoch }) => epoch !== third.epoch);
    });
  });

  it('without data begins another epoch, and the sinks are told', async () => {
    await withServer({}, async ({ own, here, there, channel }) => {
      const last = lastOf(await publishMany(here.broker, channel, 3));
      await own.kill();
      await own.restart();
      for (const instance of [here, there]) {
        const head = await toldHead(instance, channel, ({ epoch }) => epoch !== last.epoch);
        expect(head?.id).toBe(0);
      }
      const next = await publishAgain(there, channel);
      expect(next.id).toBe(1);
      expect(next.epoch).not.toBe(last.epoch);
      await eventually(async () => {
        const history = await here.broker.history(channel, last, 10);
        expect(history).toMatchObject({ kind: 'lost', head: next });
      });
    });
  });

  it('emptied while it runs begins another epoch, and the sink is told', async () => {
    await withServer({}, async ({ own, here, there, channel }) => {
      const last = lastOf(await publishMany(here.broker, channel, 3));
      await there.sink.received(channel, 3);
      await own.commands.flushall();
      await expect(here.broker.publish({ channel, body: body('lost') })).rejects.toBeInstanceOf(
        BrokerUnavailable,
      );
      const head = await toldHead(here, channel, ({ epoch }) => epoch !== last.epoch);
      expect(head?.id).toBe(0);
      const next = await publishAgain(there, channel);
      expect(next.id).toBe(1);
      expect(next.epoch).not.toBe(last.epoch);
      await there.sink.until(
        () => there.sink.of(channel).at(-1)?.position?.epoch === next.epoch,
        'an event of the new epoch',
      );
    });
  });

  it('with another epoch orders it after all that went before', async () => {
    await withServer({}, async ({ own, here, channel }) => {
      const epochs = [(await publishAgain(here, channel)).epoch];
      for (let round = 0; round < 2; round += 1) {
        await own.commands.flushall();
        epochs.push((await publishAgain(here, channel)).epoch);
      }
      expect(epochs).toEqual([...new Set(epochs)].sort());
    });
  });
});
