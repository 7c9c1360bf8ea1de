import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { closeClients, notice } from '../support/client.js';
import { ready } from '../support/cluster.js';
import { eventually } from '../support/eventually.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { fresh } from '../support/names.js';
import { RedisServer } from '../support/redis-server.js';
import { startRedisCluster, startSentinel, type Topology } from '../support/redis-topologies.js';

describe.each([
  ['a Redis Cluster of three primaries', startRedisCluster],
  ['a primary that a sentinel names', startSentinel],
])('two instances over %s', (_name, start) => {
  let topology: Topology;
  let one: GatewayProcess;
  let other: GatewayProcess;

  beforeAll(async () => {
    topology = await start();
    const settings = { ...topology.settings, PRESENCE_GRACE_MS: '0' };
    [one, other] = await Promise.all([GatewayProcess.start(settings), GatewayProcess.start(settings)]);
    await Promise.all([ready(one), ready(other)]);
  });

  afterEach(closeClients);

  afterAll(async () => {
    await Promise.all([one.dispose(), other.dispose()]);
    await topology.dispose();
  });

  it('carry rooms, direct messages, broadcasts and presence, whichever slot they fall into', async () => {
    const [alice, bob] = await Promise.all([one.as(fresh('alice')), other.as(fresh('bob'))]);
    const rooms = Array.from({ length: 12 }, () => fresh('room'));
    for (const room of rooms) {
      for (const client of [alice, bob]) {
        expect(await client.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
      }
      expect(await alice.next(notice('user_joined', bob.userId, room))).toMatchObject({ room });
      const message = { type: 'room_message', room, content: 1, message_id: 'm' };
      expect(await alice.request(message)).toMatchObject({ event: 'ack', id: 1 });
      expect(await alice.request(message)).toMatchObject({ event: 'ack', id: 1, duplicate: true });
      expect(await bob.next('chat')).toMatchObject({ room, id: 1 });
    }
    for (let index = 0; index < 12; index += 1) {
      const target = await other.as(fresh('target'));
      await alice.next(notice('user_connected', target.userId));
      await alice.request({ type: 'direct_message', target_user: target.userId, content: index });
      expect(await target.next('chat')).toMatchObject({ direct: true, content: index, id: 1 });
    }
    await alice.request({ type: 'chat', content: 'everyone' });
    expect(await bob.next((message) => message['content'] === 'everyone')).toMatchObject({
      from: alice.userId,
    });
    await bob.close();
    expect(await alice.next(notice('user_disconnected', bob.userId))).toMatchObject({ user_id: bob.userId });
  });
});

describe('DURABILITY=replicated', () => {
  let primary: RedisServer;
  let replica: RedisServer;
  let gateway: GatewayProcess;

  beforeAll(async () => {
    primary = await RedisServer.start({ 'repl-diskless-sync-delay': '0' });
    replica = await RedisServer.start({ replicaof: `127.0.0.1 ${primary.port}` });
    await eventually(
      async () => {
        const state = await primary.commands.info('replication');
        if (!state.includes('state=online')) throw new Error(`the replica is not there: ${state}`);
      },
      { timeoutMs: 15_000 },
    );
    gateway = await GatewayProcess.start({ REDIS_URL: primary.url, DURABILITY: 'replicated' });
    await ready(gateway);
  });

  afterAll(async () => {
    await closeClients();
    await gateway.dispose();
    await replica.dispose();
    await primary.dispose();
  });

  it('acknowledges what a replica has, and nothing without one', async () => {
    const client = await gateway.as(fresh('alice'));
    const room = fresh('room');
    await client.request({ type: 'join_room', room });
    expect(await client.request({ type: 'room_message', room, content: 1 })).toMatchObject({
      event: 'ack',
      id: 1,
    });
    expect((await replica.keys('*')).filter((key) => key.includes(room)).length).toBeGreaterThan(0);
    replica.pause();
    const began = performance.now();
    expect(await client.request({ type: 'room_message', room, content: 2 })).toMatchObject({
      event: 'error',
      code: 'broker_unavailable',
    });
    expect(performance.now() - began).toBeLessThan(2_250);
    replica.resume();
    await eventually(async () => {
      expect(await client.request({ type: 'room_message', room, content: 3 })).toMatchObject({
        event: 'ack',
      });
    });
  });
});
