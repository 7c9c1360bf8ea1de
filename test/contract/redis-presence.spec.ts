import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { BrokerUnavailable } from '../../src/core/broker.js';
import type { PresenceScope } from '../../src/core/presence-store.js';
import { eventually, within } from '../support/eventually.js';
import { fresh } from '../support/names.js';
import { RedisServer } from '../support/redis-server.js';
import { comings, entry, presenceContract, walk } from './presence.contract.js';
import { RedisInstance } from './redis-instance.js';

let server: RedisServer;
const instances: RedisInstance[] = [];

async function start(count: number, on: RedisServer = server): Promise<RedisInstance[]> {
  const prefix = fresh('t');
  const started: RedisInstance[] = [];
  for (let at = 0; at < count; at += 1) {
    const instance = await RedisInstance.start(on, { prefix, announceUsers: true, announceMembersMax: 50 });
    instances.push(instance);
    started.push(instance);
  }
  return started;
}

async function pair(): Promise<{ here: RedisInstance; there: RedisInstance }> {
  const [here, there] = await start(2);
  if (here === undefined || there === undefined) throw new Error('two were asked for');
  return { here, there };
}

async function closeInstances(): Promise<void> {
  await Promise.all(instances.splice(0).map((instance) => instance.close()));
}

/** The keys that entries leave, in all of the prefix. */
function presenceKeys({ keys }: RedisInstance): Promise<string[]> {
  return server
    .keys(`${keys.prefix}:*`)
    .then((found) => found.filter((key) => /:(?:presence|entries|rooms)\b/.test(key)));
}

/** The lease of an instance, as it stands in the set of all. */
async function leaseOf({ keys, name }: RedisInstance): Promise<string> {
  const leases = await server.commands.zrange(keys.leases, '0', '-1');
  const lease = leases.find((candidate) => candidate.startsWith(`${name}/`));
  if (lease === undefined) throw new Error(`${name} has no lease`);
  return lease;
}

beforeAll(async () => {
  server = await RedisServer.start();
});
afterAll(async () => {
  await server.dispose();
});

presenceContract({
  name: 'Redis',
  create: async ({ announceUsers, announceMembersMax }) => {
    const instance = await RedisInstance.start(server, { announceUsers, announceMembersMax });
    instances.push(instance);
    return { store: instance.presence, broker: instance.broker, sink: instance.sink };
  },
  close: closeInstances,
});

describe('two Redis presence stores', () => {
  afterEach(closeInstances);

  it('tell of a user’s first entry and of the last one, once, wherever they are', async () => {
    const { here, there } = await pair();
    const scope = 'room:a';
    await Promise.all([here.broker.subscribe(scope), there.broker.subscribe(scope)]);
    const steps = [
      [here, 1],
      [there, 1],
      [here, 2],
      [here, null],
      [there, 3],
      [there, null],
      [there, 1],
    ] as const;
    for (const [{ presence }, connections] of steps)
      await presence.write([entry(scope, 'alice', connections), entry('cluster', 'alice', connections)]);
    for (const { sink } of [here, there]) {
      for (const channel of [scope, 'broadcast']) {
        await sink.until(() => sink.of(channel).length >= 3, `three notices of ${channel}`);
        expect(comings(sink, channel)).toEqual(['+alice', '-alice', '+alice']);
      }
    }
  });

  it('tell once of a user who comes to both in the same moment', async () => {
    const { here, there } = await pair();
    const users = Array.from({ length: 40 }, (_, at) => `user ${at}`);
    await here.broker.subscribe('room:a');
    const writeAll = (connections: number | null): Promise<unknown> =>
      Promise.all(
        [here, there].flatMap(({ presence }) =>
          users.map((user) => presence.write([entry('room:a', user, connections)])),
        ),
      );
    await writeAll(1);
    await here.sink.until(() => here.sink.of('room:a').length >= 40, 'forty users');
    await writeAll(null);
    await here.sink.until(() => here.sink.of('room:a').length >= 80, 'forty users gone');
    const told = comings(here.sink, 'room:a');
    expect(told.slice(0, 40).toSorted()).toEqual(users.map((user) => `+${user}`).toSorted());
    expect(told.slice(40).toSorted()).toEqual(users.map((user) => `-${user}`).toSorted());
    expect(await presenceKeys(here)).toEqual([]);
  });

  it('add up a user’s connections, and count the user once', async () => {
    const { here, there } = await pair();
    await here.presence.write([entry('cluster', 'alice', 2), entry('room:a', 'alice', 2, { name: 'Alice' })]);
    await there.presence.write([
      entry('cluster', 'alice', 3),
      entry('room:a', 'alice', 3),
      entry('room:a', 'bob'),
    ]);
    for (const { presence } of [here, there]) {
      expect(await presence.page('a', 10, undefined)).toEqual({
        count: 2,
        members: [
          { user_id: 'alice', name: 'Alice', connections: 5 },
          { user_id: 'bob', connections: 1 },
        ],
      });
      expect(await presence.totals()).toEqual({ connections: 5, users: 1, rooms: 1, instances: 2 });
    }
    await here.presence.write([entry('room:a', 'alice', null), entry('cluster', 'alice', null)]);
    expect((await there.presence.page('a', 10, undefined)).members[0]).toMatchObject({ connections: 3 });
    expect(await there.presence.totals()).toEqual({ connections: 3, users: 1, rooms: 1, instances: 2 });
  });

  it('leave no key behind when all have gone', async () => {
    const { here, there } = await pair();
    const scopes: PresenceScope[] = ['cluster', 'room:a', 'room:b:c'];
    for (const connections of [2, 0, 1, null]) {
      for (const { presence } of [here, there]) {
        await presence.write(scopes.map((scope) => entry(scope, 'alice', connections, { name: 'Alice' })));
        await presence.write(scopes.map((scope) => entry(scope, 'ä {b}', connections)));
      }
    }
    expect(await presenceKeys(here)).toEqual([]);
    expect(await here.presence.totals()).toEqual({ connections: 0, users: 0, rooms: 0, instances: 2 });
  });

  it('keep the users of one instance from the names of another key', async () => {
    const { here } = await pair();
    const nasty = ['members', ':members', '{1}:life', '*', 'a:meta', '../x', '%2e'];
    await here.presence.write(nasty.map((user) => entry('room:a', user)));
    expect((await walk(here.presence, 'a', 3)).flat().map(({ user_id }) => user_id)).toEqual(
      nasty.toSorted(),
    );
    const found = await presenceKeys(here);
    await here.presence.write(nasty.map((user) => entry('room:a', user, null)));
    expect(found.length).toBeLessThan(10);
    expect(await presenceKeys(here)).toEqual([]);
  });

  it('keep any text as a name, what is no character as the sign for that', async () => {
    const { here, there } = await pair();
    const names = ['"quoted" \\ {}', 'a\u0000b\n', 'Zoë 🎉', 'half \ud83c'];
    await here.presence.write(names.map((name, at) => entry('room:named', `user-${at}`, 1, { name })));
    const { members } = await there.presence.page('named', 10, undefined);
    expect(members.map(({ name }) => name)).toEqual([...names.slice(0, 3), 'half \ufffd']);
  });

  it('give the lease back when they stop', async () => {
    const { here, there } = await pair();
    await there.presence.stop();
    expect(await here.presence.totals()).toMatchObject({ instances: 1 });
  });
});

describe('a Redis presence store whose entries are gone', () => {
  afterEach(closeInstances);

  it('says so when Redis has lost everything, and that nobody was told', async () => {
    const { here } = await pair();
    expect(here.lost).toEqual([false]);
    await server.commands.flushall();
    await eventually(
      () => {
        expect(here.lost).toEqual([false, false]);
      },
      { timeoutMs: 8_000 },
    );
    await here.presence.write([entry('room:a', 'alice')]);
    expect(await here.presence.totals()).toMatchObject({ rooms: 1 });
    expect((await here.presence.page('a', 10, undefined)).count).toBe(1);
  });

  it('says so when others have taken it for dead, and that they were told', async () => {
    const { here } = await pair();
    const lease = await leaseOf(here);
    await server.commands.set(here.keys.reaped(lease), '1');
    await server.commands.zrem(here.keys.leases, lease);
    await eventually(
      () => {
        expect(here.lost).toEqual([false, true]);
      },
      { timeoutMs: 8_000 },
    );
    expect(await server.commands.zrange(here.keys.leases, '0', '-1')).toContain(`${here.name}/1`);
  });
});

describe('the entries of a dead instance', () => {
  afterEach(closeInstances);

  it('are taken out entry by entry, once, and told once', async () => {
    const [dead, ended, here, there] = await start(4);
    if (!dead || !ended || !here || !there) throw new Error('four were asked for');
    const gone = Array.from({ length: 30 }, (_, at) => `gone ${at}`).toSorted();
    await here.broker.subscribe('room:a');
    await dead.presence.write(gone.map((user) => entry('room:a', user, 2, { announce: false })));
    await dead.presence.write(gone.map((user) => entry('cluster', user, 2, { announce: false })));
    // Whoever is elsewhere too stays; whoever is only there goes.
    await here.presence.write([
      entry('room:a', 'gone 0'),
      entry('room:b', 'here'),
      entry('cluster', 'gone 0'),
    ]);
    await there.presence.write([entry('room:a', 'gone 1'), entry('cluster', 'gone 1')]);
    const left = gone.filter((user) => user !== 'gone 0' && user !== 'gone 1').map((user) => `-${user}`);
    // One that ends in order leaves its users to their grace.
    await ended.presence.write([entry('room:a', 'ended', 1, { announce: false })]);
    await ended.presence.write([entry('cluster', 'ended', 1, { announce: false })]);
    left.push('-ended');
    left.sort();
    const leases = [await leaseOf(dead), await leaseOf(ended)];
    await dead.crash();
    await ended.close();
    expect((await here.presence.page('a', 1, undefined)).members).toEqual([
      { user_id: 'ended', connections: 1 },
    ]);
    await eventually(
      async () => {
        expect(await here.presence.totals()).toEqual({ connections: 2, users: 2, rooms: 2, instances: 2 });
      },
      { timeoutMs: 30_000, everyMs: 250 },
    );
    expect((await walk(there.presence, 'a', 1)).flat()).toEqual([
      { user_id: 'gone 0', connections: 1 },
      { user_id: 'gone 1', connections: 1 },
    ]);
    await eventually(async () => {
      const found = await server.commands.zrange(here.keys.leases, '0', '-1');
      expect(found.filter((lease) => leases.includes(lease))).toEqual([]);
    });
    await here.presence.write([entry('room:a', 'last')]);
    await here.sink.until(() => comings(here.sink, 'room:a').includes('+last'), 'the last notice');
    expect(
      comings(here.sink, 'room:a')
        .filter((told) => told !== '+last')
        .toSorted(),
    ).toEqual(left);
    for (const { sink } of [here, there]) expect(comings(sink, 'broadcast').toSorted()).toEqual(left);
    for (const lease of leases)
      expect(await server.keys(`${here.keys.prefix}:*:entries:${lease}`)).toEqual([]);
  }, 40_000);
});

describe('a Redis presence store without Redis', () => {
  afterEach(closeInstances);

  it.each(['killed', 'that hangs'])('rejects with BrokerUnavailable within 2 s: %s', async (what) => {
    const own = await RedisServer.start();
    try {
      const [here] = await start(1, own);
      if (here === undefined) throw new Error('one was asked for');
      if (what === 'killed') await own.kill();
      else own.pause();
      const { presence } = here;
      const calls: Promise<unknown>[] = [
        presence.write([entry('room:a', 'alice')]),
        presence.page('a', 10, undefined),
        presence.rooms(10, undefined),
        presence.counts('a'),
      ];
      const ended = within(Promise.allSettled(calls), 2_000, 'the store has not answered');
      for (const result of await ended)
        expect(result).toMatchObject({
          status: 'rejected',
          reason: expect.any(BrokerUnavailable) as unknown,
        });
    } finally {
      if (what === 'that hangs') own.resume();
      await closeInstances();
      await own.dispose();
    }
  });
});
