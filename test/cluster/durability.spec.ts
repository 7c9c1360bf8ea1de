import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { partitionOf, RedisKeys, slotOf } from '../../src/redis/redis-keys.js';
import { closeClients, number, text, type Client, type Message } from '../support/client.js';
import { ready } from '../support/cluster.js';
import { idsAfter, Scene, type ChannelKind } from '../support/durable.js';
import { eventually } from '../support/eventually.js';
import {
  startClusterWithReplica,
  startFailover,
  type ClusterWithReplica,
  type Failover,
} from '../support/failover.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { fresh } from '../support/names.js';
import { idsUsedTwice, Load, type Follower } from '../support/load.js';
import { RedisServer } from '../support/redis-server.js';

const clean = { lost: [], doubled: [], misordered: [], ghosts: [], leaks: [] };
const kinds: ChannelKind[] = ['room', 'broadcast', 'direct'];

const keys = new RedisKeys('fanfare');

function logKey(channel: string): string {
  return `${keys.channel(partitionOf(channel), channel)}:log`;
}

async function startGateways(count: number, settings: Record<string, string>): Promise<GatewayProcess[]> {
  const environment = {
    RATE_LIMIT_PER_SECOND: '0',
    ANNOUNCE_USERS: 'false',
    LOG_LEVEL: 'info',
    HISTORY_SIZE: '20000',
    ...settings,
  };
  const gateways = await Promise.all(Array.from({ length: count }, () => GatewayProcess.start(environment)));
  await Promise.all(gateways.map((gateway) => ready(gateway, 15_000)));
  return gateways;
}

function pair(gateways: readonly GatewayProcess[]): [GatewayProcess, GatewayProcess] {
  const [one, other] = gateways;
  if (one === undefined || other === undefined) throw new Error('two instances are needed');
  return [one, other];
}

function ofAll<T>(followers: readonly Follower[], field: (follower: Follower) => readonly T[]): T[] {
  return followers.flatMap((follower) => [...field(follower)]);
}

const closesOf = (followers: readonly Follower[]): number[] => ofAll(followers, ({ closes }) => closes);
const gapsOf = (followers: readonly Follower[]): Message[] => ofAll(followers, ({ gaps }) => gaps);

/** Acknowledged again: the link is up and everything is subscribed. */
async function publishes(scene: Scene, timeoutMs = 15_000): Promise<number> {
  return eventually(
    async () => {
      const ack = await scene.writer.request({ ...scene.address, content: 'again' });
      expect(ack.event).toBe('ack');
      return number(ack, 'id');
    },
    { timeoutMs, everyMs: 50 },
  );
}

describe('two instances over one Redis behind a proxy', () => {
  let redis: RedisServer;
  let proxy: FaultProxy;
  let one: GatewayProcess;
  let other: GatewayProcess;

  beforeAll(async () => {
    redis = await RedisServer.start();
    proxy = await FaultProxy.start(redis.port);
    [one, other] = pair(await startGateways(2, { REDIS_URL: proxy.url }));
  });
  afterEach(async () => {
    proxy.release();
    await closeClients();
    // What is unsubscribed later would be swallowed by the next test, and its line rebuilt for that.
    await eventually(
      async () => {
        const buses = await redis.subscriptions('fanfare:*:bus');
        const left = buses.filter((bus) => /:(?:room|user):/.test(bus));
        if (left.length > 0) throw new Error(`still subscribed: ${left.join()}`);
      },
      { timeoutMs: 10_000 },
    );
    await Promise.all([ready(one), ready(other)]);
  });
  afterAll(async () => {
    await Promise.all([one.dispose(), other.dispose()]);
    await proxy.dispose();
    await redis.dispose();
  });

  it(
    'lose and double nothing, and close nobody, while their subscriptions are killed again and again',
    { timeout: 40_000 },
    async () => {
      const load = new Load(200);
      const followers = await load.follow([one, other], 10);
      const writers = await Promise.all([load.writer(one), load.writer(other)]);
      load.start(writers);
      await load.flows(20);
      let killed = 0;
      for (let round = 0; round < 10; round += 1) {
        killed += Number(await redis.commands.call('CLIENT', 'KILL', 'TYPE', 'pubsub'));
        await pause(500);
      }
      expect(killed).toBeGreaterThanOrEqual(10);
      await load.flows(20);
      await load.stop();
      const [writer] = writers;
      if (writer === undefined) throw new Error('nobody writes');
      await load.settle(writer, followers);
      expect(load.checker.verdict()).toEqual(clean);
      expect([closesOf(followers), gapsOf(followers)]).toEqual([[], []]);
      expect(writers.map(({ closedWith }) => closedWith)).toEqual([undefined, undefined]);
    },
  );

  it(
    'heal by the next event when what the subscriptions bring is swallowed, and clients notice nothing',
    { timeout: 30_000 },
    async () => {
      const load = new Load(100);
      const followers = await load.follow([one, other], 6);
      const writer = await load.writer(one);
      load.start([writer]);
      await load.flows(20);
      const before = proxy.swallowedBytes;
      proxy.swallow('subscriber');
      await load.flows(250);
      await load.stop();
      expect(proxy.swallowedBytes - before).toBeGreaterThan(10_000);
      expect(ofAll(followers, ({ reads }) => reads).length).toBeLessThan(6 * load.acknowledged.length);
      proxy.release();
      await load.settle(writer, followers);
      expect(load.checker.verdict()).toEqual(clean);
      expect([closesOf(followers), gapsOf(followers)]).toEqual([[], []]);
    },
  );

  it(
    'hand a client that comes from the one nothing twice while the other is deaf',
    { timeout: 30_000 },
    async () => {
      const scene = await Scene.open(one, 'room');
      const { client } = await scene.read();
      // The other instance has the room open, and a connection of the same user; then it does not hear any more.
      const [stranger, elsewhere] = await Promise.all([other.as(fresh('stranger')), other.as(scene.user)]);
      await scene.join(stranger);
      await scene.publish(3);
      await Promise.all([stranger, client].map((member) => member.take('chat', 3)));
      proxy.swallow('subscriber');
      const [last = 0] = (await scene.publish(5)).slice(-1);
      // All eight were seen elsewhere: `last` is no id ahead of the channel, and none of them was missed.
      const again = await scene.join(elsewhere, { id: last });
      expect(again.recovered).toBe(true);
      proxy.release();
      const { story, marker } = await scene.whole(elsewhere);
      expect(story).toEqual(['reply', marker]);
      expect((await scene.whole(stranger)).story).toEqual(['reply', ...idsAfter(0, marker + 1)]);
    },
  );

  it(
    'find a subscription that swallows everything, rebuild it, and bring a last event that no other follows',
    { timeout: 30_000 },
    async () => {
      const scene = await Scene.open(one, 'room');
      const { client } = await scene.read({}, other);
      await scene.publish(2);
      await client.take('chat', 2);
      proxy.swallow('subscriber');
      await scene.publish(3);
      await client.next((message) => message['id'] === 5 && message['room'] === scene.room, 15_000);
      expect(scene.story(client)).toEqual(['reply', 1, 2, 3, 4, 5]);
      expect(client.closedWith).toBeUndefined();
      await Promise.all([ready(one), ready(other)]);
    },
  );

  it(
    'store one event for each of 500 publishes whose answer was lost and that were repeated',
    { timeout: 40_000 },
    async () => {
      const scene = await Scene.open(one, 'room');
      const { client } = await scene.read({}, other);
      const { writer, room } = scene;
      const log = logKey(`room:${room}`);
      let duplicates = 0;
      for (let round = 0; round < 5; round += 1) {
        const messages = Array.from({ length: 100 }, (_value, index) => ({
          ...scene.address,
          content: `${round}-${index}`,
          message_id: `${round}-${index}`,
        }));
        const stored = Number(await redis.commands.xlen(log));
        proxy.swallow('commands');
        const lost = Promise.all(messages.map((message) => writer.request(message)));
        await eventually(
          async () => {
            expect(await redis.commands.xlen(log)).toBe(stored + 100);
          },
          { everyMs: 5 },
        );
        proxy.cut('commands');
        const answers = await lost;
        expect(new Set(answers.map(({ code }) => code))).toEqual(new Set(['broker_unavailable']));
        const repeats = await Promise.all(
          messages.map((message) =>
            eventually(
              async () => {
                const reply = await writer.request(message);
                expect(reply.event).toBe('ack');
                return reply;
              },
              { timeoutMs: 10_000, everyMs: 50 },
            ),
          ),
        );
        duplicates += repeats.filter(({ duplicate }) => duplicate === true).length;
        expect(repeats.map(({ id }) => id)).toEqual(idsAfter(round * 100, round * 100 + 100));
      }
      expect(duplicates).toBe(500);
      expect(await redis.commands.xlen(log)).toBe(500);
      const { story } = await scene.whole(client);
      expect(story).toEqual(['reply', ...idsAfter(0, 501)]);
    },
  );

  it('refuse what a full Redis can not store, go on reading, and recover', { timeout: 30_000 }, async () => {
    const scene = await Scene.open(one, 'room');
    const { client } = await scene.read({}, other);
    const ids = await scene.publish(5);
    await client.take('chat', 5);
    await redis.commands.config('SET', 'maxmemory', '1mb');
    const answers: Message[] = [];
    try {
      for (let index = 0; index < 50; index += 1) {
        answers.push(
          await scene.writer.request({ ...scene.address, content: index, message_id: `m-${index}` }),
        );
      }
      const page = await client.request({ type: 'history', room: scene.room });
      expect(page).toMatchObject({ event: 'history', more: false });
      expect((page['events'] as Message[]).map(({ id }) => id)).toEqual(ids);
      const late = await scene.read({ id: 2 }, other);
      expect(late).toMatchObject({ recovered: true, replayed: 3 });
      expect((await late.client.take('chat', 3)).map(({ id }) => id)).toEqual([3, 4, 5]);
    } finally {
      await redis.commands.config('SET', 'maxmemory', '0');
    }
    expect(new Set(answers.map(({ code }) => code))).toEqual(new Set(['broker_unavailable']));
    expect(await publishes(scene)).toBe(6);
    expect(await scene.writer.request({ ...scene.address, content: 'm-0', message_id: 'm-0' })).toMatchObject(
      {
        event: 'ack',
        id: 7,
      },
    );
    expect((await scene.whole(client)).story).toEqual(['reply', ...idsAfter(0, 8)]);
  });
});

describe('a Redis that is started again', () => {
  let redis: RedisServer;
  let gateways: GatewayProcess[] = [];

  async function start(settings: Record<string, string>): Promise<[GatewayProcess, GatewayProcess]> {
    redis = await RedisServer.start(settings);
    gateways = await startGateways(2, { REDIS_URL: redis.url });
    return pair(gateways);
  }

  afterEach(async () => {
    await closeClients();
    await Promise.all(gateways.map((gateway) => gateway.dispose()));
    await redis.dispose();
  });

  const aof = { appendonly: 'yes', appendfsync: 'always' };

  it(
    'and has lost nothing keeps the epoch, and no client is told anything',
    { timeout: 40_000 },
    async () => {
      const [one, other] = await start(aof);
      const scenes = await Promise.all(kinds.map((kind) => Scene.open(one, kind)));
      const readers = await Promise.all(scenes.map((scene) => scene.read({}, other)));
      for (const scene of scenes) await scene.publish(5);
      await redis.kill();
      await redis.restart();
      for (const [index, scene] of scenes.entries()) {
        const { client, position } = readers[index] ?? (await scene.read());
        expect(await publishes(scene)).toBe(position.id + 6);
        const { story, marker } = await scene.whole(client);
        expect(story).toEqual(['reply', ...idsAfter(position.id, marker)]);
        const again = await scene.read({ id: position.id + 2, epoch: position.epoch }, one);
        expect(again.recovered).toBe(true);
        expect((await scene.whole(again.client)).story).toEqual([
          'reply',
          ...idsAfter(position.id + 2, marker + 1),
        ]);
        expect(client.closedWith).toBeUndefined();
      }
    },
  );

  it('without its data is told to every member by one gap in each channel', { timeout: 40_000 }, async () => {
    const [one, other] = await start({});
    const scenes = await Promise.all(kinds.map((kind) => Scene.open(one, kind)));
    const clients = await Promise.all(
      Array.from({ length: 6 }, async (_value, index) => {
        const client = await (index % 2 === 0 ? one : other).as(scenes[2]?.user ?? 'reader');
        await scenes[0]?.join(client);
        return client;
      }),
    );
    for (const scene of scenes) await scene.publish(4);
    const heads = await Promise.all(scenes.map(async (scene) => (await scene.read()).position));
    for (const client of clients) await client.take('chat', 12);
    await redis.kill();
    await redis.restart();
    for (const client of clients) await client.take('gap', 3, 15_000);
    for (const [index, scene] of scenes.entries()) {
      expect(await publishes(scene)).toBe(1);
      const [marker = 0] = (await scene.publish(2)).slice(-1);
      expect(marker).toBe(3);
      const { id, epoch } = heads[index] ?? { id: 0, epoch: '' };
      for (const client of clients) {
        await client.next(
          (message) => scene.isHere(message) && message['content'] === 'event' && message['id'] === 3,
        );
        const gaps = client.all.filter((message) => message.event === 'gap' && scene.isHere(message));
        expect(gaps).toEqual([
          { event: 'gap', ...scene.fields, after: id, next: 1, epoch: expect.any(String) as string },
        ]);
        const life = text(gaps[0] ?? {}, 'epoch').split('.')[0];
        expect(life).not.toBe(epoch.split('.')[0]);
        expect(scene.story(client).slice(-3)).toEqual([1, 2, 3]);
      }
      const again = await scene.read({ id, epoch }, other);
      expect(again.recovered).toBe(false);
      const { story } = await scene.whole(again.client);
      expect(story).toEqual(['reply', { after: id, next: 4, epoch: again.position.epoch }, 4]);
    }
    expect(clients.map(({ closedWith }) => closedWith)).toEqual(clients.map(() => undefined));
  });

  it(
    'with all instances, even with its data, is told to everyone who resumes',
    { timeout: 40_000 },
    async () => {
      const [one, other] = await start(aof);
      const scenes = await Promise.all(kinds.map((kind) => Scene.open(one, kind)));
      for (const scene of scenes) await scene.publish(5);
      const readers = await Promise.all(scenes.map((scene) => scene.read({}, other)));
      await Promise.all([...gateways.map((gateway) => gateway.stop('SIGKILL')), redis.kill()]);
      await redis.restart();
      gateways = await startGateways(2, { REDIS_URL: redis.url });
      const [third, fourth] = pair(gateways);
      for (const [index, scene] of scenes.entries()) {
        const { position } = readers[index] ?? (await scene.read());
        for (const [door, point] of [
          [third, position],
          [fourth, { ...position, id: position.id - 2 }],
        ] as const) {
          const again = await scene.read(point, door);
          expect(again).toMatchObject({ recovered: false, position: { id: 0 } });
          const gap = { after: point.id, next: 1, epoch: again.position.epoch };
          await again.client.next('gap');
          expect(scene.story(again.client)).toEqual(['reply', gap]);
          expect(gap.epoch.split('.')[0]).not.toBe(position.epoch.split('.')[0]);
        }
      }
    },
  );
});

describe('kill -9 of one of two instances under load', () => {
  let redis: RedisServer;
  let one: GatewayProcess;
  let other: GatewayProcess;

  beforeAll(async () => {
    redis = await RedisServer.start();
    [one, other] = pair(await startGateways(2, { REDIS_URL: redis.url }));
  });
  afterAll(async () => {
    await closeClients();
    await Promise.all([one.dispose(), other.dispose()]);
    await redis.dispose();
  });

  it('loses and doubles nothing for 40 clients that resume on the other', { timeout: 30_000 }, async () => {
    const load = new Load(100);
    const followers = await load.follow([one, other], 40);
    const [survivor, victim] = [await load.writer(other), await load.writer(one)];
    load.start([survivor, victim]);
    await load.flows(100);
    await one.stop('SIGKILL');
    await eventually(
      () => {
        expect(ofAll(followers, ({ recoveries }) => recoveries)).toEqual(
          Array.from({ length: 20 }, () => true),
        );
      },
      { timeoutMs: 15_000 },
    );
    await load.flows(100);
    await load.stop();
    await load.settle(survivor, followers);
    expect(load.checker.verdict()).toEqual(clean);
    expect(closesOf(followers)).toEqual(Array.from({ length: 20 }, () => 1006));
    expect(gapsOf(followers)).toEqual([]);
    expect(idsUsedTwice(followers)).toEqual([]);
  });
});

describe('a failover after the replication link was cut', () => {
  let topology: Failover;
  let gateways: GatewayProcess[] = [];

  afterEach(async () => {
    await closeClients();
    await Promise.all(gateways.map((gateway) => gateway.dispose()));
    await topology.dispose();
  });

  interface Ending {
    readonly load: Load;
    readonly followers: Follower[];
    readonly writer: Client;
    /** Acknowledged before the primary's end, and not in what the replica is promoted with. */
    readonly missing: unknown[];
  }

  /** Cuts the link, goes on until `after`, kills the primary; resolves when the replica serves. */
  async function failOver(durability: string, after: (load: Load) => Promise<void>): Promise<Ending> {
    topology = await startFailover();
    const { primary, replica, link } = topology;
    gateways = await startGateways(2, { ...topology.settings, DURABILITY: durability });
    const [one, other] = pair(gateways);
    const load = new Load(100);
    const followers = await load.follow([one, other], 6);
    const writer = await load.writer(one);
    load.start([writer]);
    await load.flows(100);
    link.swallow();
    await after(load);
    const acknowledged = [...load.acknowledged];
    primary.commands.disconnect();
    await primary.kill();
    const kept = await replica.commands.xrange(logKey(`room:${load.room}`), '-', '+');
    const contents = kept.map(([, fields]) => fields.join(' ')).join('\n');
    await Promise.all(gateways.map((gateway) => ready(gateway, 25_000)));
    const missing = acknowledged.filter(
      ({ publisher, counter }) => !contents.includes(`"publisher":"${publisher}","counter":${counter}}`),
    );
    return { load, followers, writer, missing };
  }

  it(
    'that has lost acknowledged events is told to every client, and no id is used twice in an epoch',
    { timeout: 60_000 },
    async () => {
      const { load, followers, writer, missing } = await failOver('primary', (cut) => cut.flows(30));
      expect(missing.length).toBeGreaterThanOrEqual(20);
      await load.flows(30, 20_000);
      await load.stop();
      await load.settle(writer, followers);
      const { doubled, misordered, ghosts } = load.checker.verdict();
      expect({ doubled, misordered, ghosts }).toEqual({ doubled: [], misordered: [], ghosts: [] });
      expect(followers.map(({ gaps }) => gaps.length)).toEqual(followers.map(() => 1));
      expect([idsUsedTwice(followers), closesOf(followers)]).toEqual([[], []]);
    },
  );

  it('has lost nothing that was acknowledged with DURABILITY=replicated', { timeout: 60_000 }, async () => {
    const { load, followers, writer, missing } = await failOver('replicated', () => pause(300));
    expect(missing).toEqual([]);
    await load.stop();
    // The new primary has no replica: what is published to it can not be acknowledged.
    expect(await load.publish(writer, load.checker.attempt('late', `room:${load.room}`))).toBe(false);
    const { doubled, misordered, ghosts } = load.checker.verdict();
    expect({ doubled, misordered, ghosts }).toEqual({ doubled: [], misordered: [], ghosts: [] });
    expect([idsUsedTwice(followers), closesOf(followers)]).toEqual([[], []]);
  });
});

describe('a server that comes back as primary with less than it had, and no connection is cut', () => {
  let redis: RedisServer;
  let behind: RedisServer;
  let link: FaultProxy;
  let gateways: GatewayProcess[] = [];

  async function replicates({ commands }: RedisServer): Promise<void> {
    await eventually(
      async () => {
        const info = await commands.info('replication');
        if (!info.includes('master_link_status:up')) throw new Error(info);
      },
      { timeoutMs: 15_000 },
    );
  }

  beforeAll(async () => {
    redis = await RedisServer.start({ 'repl-diskless-sync-delay': '0' });
    link = await FaultProxy.start(redis.port);
    behind = await RedisServer.start({
      replicaof: `127.0.0.1 ${link.port}`,
      'repl-diskless-sync-delay': '0',
    });
    await replicates(behind);
    gateways = await startGateways(2, { REDIS_URL: redis.url });
  }, 40_000);
  afterAll(async () => {
    await closeClients();
    await Promise.all(gateways.map((gateway) => gateway.dispose()));
    await behind.dispose();
    await link.dispose();
    await redis.dispose();
  });

  it('gives no id twice in an epoch, and every member is told by a gap', { timeout: 40_000 }, async () => {
    const [one, other] = pair(gateways);
    const scene = await Scene.open(one, 'room');
    const { client, position } = await scene.read({}, other);
    await scene.publish(3);
    const log = logKey(`room:${scene.room}`);
    await eventually(async () => {
      expect(await behind.commands.xlen(log)).toBe(3);
    });
    link.swallow();
    await scene.publish(3);
    await client.take('chat', 6);
    await behind.commands.replicaof('NO', 'ONE');
    await redis.commands.replicaof('127.0.0.1', behind.port);
    await replicates(redis);
    expect(await redis.commands.xlen(log)).toBe(3);
    await redis.commands.replicaof('NO', 'ONE');
    expect(await publishes(scene)).toBe(1);
    const { story, marker } = await scene.whole(client);
    const { epoch } = (await scene.read()).position;
    expect(epoch.split('.')[0]).not.toBe(position.epoch.split('.')[0]);
    const gap = expect.objectContaining({ after: 6, next: 1 }) as unknown;
    expect(story).toEqual(['reply', ...idsAfter(0, 6), gap, ...idsAfter(0, marker)]);
    expect(client.closedWith).toBeUndefined();
  });
});

describe('a Redis Cluster of three primaries under load', () => {
  let topology: ClusterWithReplica;
  let gateways: GatewayProcess[] = [];

  beforeAll(async () => {
    topology = await startClusterWithReplica();
    gateways = await startGateways(2, topology.settings);
  }, 60_000);
  afterEach(closeClients);
  afterAll(async () => {
    await Promise.all(gateways.map((gateway) => gateway.dispose()));
    await topology.dispose();
  });

  /** Loads of which some live on the first primary, and some elsewhere. */
  async function run(fault: (loads: readonly Load[]) => Promise<void>): Promise<unknown[]> {
    const [one, other] = pair(gateways);
    const loads = Array.from({ length: 8 }, () => new Load(20));
    const crews = await Promise.all(
      loads.map(async (load) => ({
        load,
        followers: await load.follow([one, other], 2),
        writer: await load.writer(other),
      })),
    );
    for (const { load, writer } of crews) load.start([writer]);
    await Promise.all(loads.map((load) => load.flows(20)));
    await fault(loads);
    await Promise.all(loads.map((load) => load.flows(20, 20_000)));
    await Promise.all(loads.map((load) => load.stop()));
    for (const { load, followers, writer } of crews) await load.settle(writer, followers);
    return crews.map(({ load, followers }) => ({
      ...load.checker.verdict(),
      twice: idsUsedTwice(followers),
      closes: closesOf(followers),
    }));
  }

  const untouched = Array.from({ length: 8 }, () => ({ ...clean, twice: [], closes: [] }));

  it('loses nothing untold while a slot is moved', { timeout: 60_000 }, async () => {
    const results = await run(async ([first]) => {
      if (first === undefined) throw new Error('there is no load');
      await topology.move(slotOf(keys.bus(`room:${first.room}`)));
    });
    expect(results).toEqual(untouched);
  });

  it('loses nothing untold while a replica is promoted', { timeout: 60_000 }, async () => {
    expect(await run(async () => topology.promote())).toEqual(untouched);
  });
});
