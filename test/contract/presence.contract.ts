import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Broker } from '../../src/core/broker.js';
import type { PresenceEntry, PresenceStore } from '../../src/core/presence-store.js';
import type { PresenceMember } from '../../src/protocol/messages.js';
import { within } from '../support/eventually.js';
import { fresh } from '../support/names.js';
import type { RecordingSink } from './recording-sink.js';

export interface PresenceOptions {
  announceUsers: boolean;
  announceMembersMax: number;
}

/** A started store, and the broker through which its notices reach the sink. */
export interface PresenceInstance {
  store: PresenceStore;
  broker: Broker;
  sink: RecordingSink;
}

export interface PresenceFactory {
  name: string;
  create(options: PresenceOptions): Promise<PresenceInstance>;
  /** Ends everything that was created. */
  close(): Promise<void>;
}

export function entry(
  scope: PresenceEntry['scope'],
  userId: string,
  connections: number | null = 1,
  more: Partial<PresenceEntry> = {},
): PresenceEntry {
  return { scope, userId, name: undefined, connections, announce: true, ...more };
}

export interface Notice {
  event: string;
  user_id: string;
  room?: string;
}

/** The notices of a channel, closed as a frame closes them; the order of their keys is no promise. */
export function noticesOf(sink: RecordingSink, channel: string): Notice[] {
  return sink.of(channel).map(({ body }) => JSON.parse(`${body.toString('utf8')}}`) as Notice);
}

/** `+alice` and `-alice` for who came and went. */
export function comings(sink: RecordingSink, channel: string): string[] {
  return noticesOf(sink, channel).map(
    ({ event, user_id }) => `${/joined|user_connected/.test(event) ? '+' : '-'}${user_id}`,
  );
}

/** Every page of a room, one after the other. */
export async function walk(store: PresenceStore, room: string, limit: number): Promise<PresenceMember[][]> {
  const pages: PresenceMember[][] = [];
  let cursor: string | undefined;
  do {
    const page = await store.page(room, limit, cursor);
    pages.push(page.members);
    cursor = page.cursor;
  } while (cursor !== undefined);
  return pages;
}

/** What every presence store promises, of one instance. */
export function presenceContract(factory: PresenceFactory): void {
  describe(`a ${factory.name} presence store`, () => {
    let instance: PresenceInstance;
    let store: PresenceStore;

    beforeAll(async () => {
      instance = await factory.create({ announceUsers: true, announceMembersMax: 3 });
      store = instance.store;
    });
    afterAll(async () => {
      await factory.close();
    });

    /** A room that is listened to. */
    async function listened(): Promise<{ room: string; scope: `room:${string}` }> {
      const room = fresh('a');
      await instance.broker.subscribe(`room:${room}`);
      return { room, scope: `room:${room}` };
    }

    /** Notices are not numbered: a notice of our own, sent last, shows that all before it have come. */
    async function told(scope: `room:${string}`): Promise<string[]> {
      const mark = fresh('mark');
      await instance.broker.publish({ channel: scope, body: `{"event":"mark","user_id":"${mark}"` });
      await instance.sink.until(
        () => instance.sink.bodies(scope).some((text) => text.includes(mark)),
        `the mark in ${scope}`,
      );
      return comings(instance.sink, scope).filter((coming) => !coming.includes('mark-'));
    }

    describe('tells the members of a room', () => {
      it('that a user came and that it went, once', async () => {
        const { room, scope } = await listened();
        for (const connections of [1, 2, 1, 0, 1, null, null])
          await store.write([entry(scope, 'alice', connections)]);
        expect(await told(scope)).toEqual(['+alice', '-alice']);
        expect(noticesOf(instance.sink, scope).slice(0, 2)).toEqual([
          { event: 'user_joined', user_id: 'alice', room },
          { event: 'user_left', user_id: 'alice', room },
        ]);
      });

      it('in the order of what was written, also in one call', async () => {
        const { scope } = await listened();
        await store.write([entry(scope, 'a'), entry(scope, 'b'), entry(scope, 'a', null), entry(scope, 'c')]);
        await store.write([entry(scope, 'b', null), entry(scope, 'a')]);
        expect(await told(scope)).toEqual(['+a', '+b', '-a', '+c', '-b', '+a']);
      });

      it('without a position and to everyone', async () => {
        const { scope } = await listened();
        await store.write([entry(scope, 'alice')]);
        await told(scope);
        expect(instance.sink.of(scope)[0]).toMatchObject({ position: null, exclude: '' });
      });

      it('nothing where it was asked not to', async () => {
        const { scope } = await listened();
        await store.write([entry(scope, 'alice', 1, { announce: false })]);
        await store.write([entry(scope, 'alice', null, { announce: false })]);
        expect(await told(scope)).toEqual([]);
      });

      it('nothing about a user who was not there', async () => {
        const { room, scope } = await listened();
        await store.write([entry(scope, 'nobody', null)]);
        expect(await told(scope)).toEqual([]);
        expect(await store.page(room, 10, undefined)).toEqual({ count: 0, members: [] });
      });

      it('only up to the number of members that may be told, coming and going', async () => {
        const { scope } = await listened();
        for (const user of ['a', 'b', 'c', 'd', 'e']) await store.write([entry(scope, user)]);
        expect(await told(scope)).toEqual(['+a', '+b', '+c']);
        for (const user of ['e', 'd', 'a']) await store.write([entry(scope, user, null)]);
        expect(await told(scope)).toEqual(['+a', '+b', '+c', '-a']);
      });

      it.each(['a b', 'ä:{}"\\/', '👩‍👩‍👧', '%41', 'a\u2028b', '1 2 3', '*'])(
        'the id as it is: %s',
        async (userId) => {
          const { room, scope } = await listened();
          await store.write([entry(scope, userId)]);
          await told(scope);
          expect(noticesOf(instance.sink, scope)[0]).toEqual({ event: 'user_joined', user_id: userId, room });
          expect((await store.page(room, 10, undefined)).members).toEqual([
            { user_id: userId, connections: 1 },
          ]);
        },
      );
    });

    describe('tells everybody else', () => {
      it('that a user connected and disconnected, once', async () => {
        const userId = fresh('alice');
        for (const connections of [1, 2, 0, null]) await store.write([entry('cluster', userId, connections)]);
        const mine = () => instance.sink.of('broadcast').filter(({ body }) => body.includes(userId));
        await instance.sink.until(() => mine().length >= 2, 'two notices');
        expect(mine().map(({ position, exclude }) => ({ position, exclude }))).toEqual([
          { position: null, exclude: `user:${userId}` },
          { position: null, exclude: `user:${userId}` },
        ]);
        expect(noticesOf(instance.sink, 'broadcast').filter(({ user_id }) => user_id === userId)).toEqual([
          { event: 'user_connected', user_id: userId },
          { event: 'user_disconnected', user_id: userId },
        ]);
      });

      it('nothing where users are not announced', async () => {
        const quiet = await factory.create({ announceUsers: false, announceMembersMax: 3 });
        await quiet.broker.subscribe('broadcast');
        await quiet.broker.subscribe('room:a');
        await quiet.store.write([entry('cluster', 'alice'), entry('room:a', 'alice')]);
        await quiet.store.write([entry('cluster', 'alice', null), entry('room:a', 'alice', null)]);
        await quiet.broker.publish({ channel: 'broadcast', body: '{"event":"mark"' });
        await quiet.sink.until(() => quiet.sink.bodies('broadcast').includes('{"event":"mark"'), 'the mark');
        await quiet.sink.until(() => quiet.sink.of('room:a').length >= 2, 'the notices of the room');
        expect(comings(quiet.sink, 'room:a')).toEqual(['+alice', '-alice']);
        expect(quiet.sink.of('broadcast')).toHaveLength(1);
      });
    });

    describe('shows in a page', () => {
      it('the connections that were written last, and the name that was given', async () => {
        const { room, scope } = await listened();
        await store.write([entry(scope, 'alice', 3, { name: 'Alice' }), entry(scope, 'bob', 1)]);
        await store.write([entry(scope, 'alice', 2)]);
        expect(await store.page(room, 10, undefined)).toEqual({
          count: 2,
          members: [
            { user_id: 'alice', name: 'Alice', connections: 2 },
            { user_id: 'bob', connections: 1 },
          ],
        });
        await store.write([entry(scope, 'alice', 2, { name: 'Alice B.' })]);
        expect((await store.page(room, 1, undefined)).members[0]?.name).toBe('Alice B.');
      });

      it('a user in the grace as a member without a connection', async () => {
        const { room, scope } = await listened();
        await store.write([entry(scope, 'alice', 1)]);
        await store.write([entry(scope, 'alice', 0)]);
        expect(await store.page(room, 10, undefined)).toEqual({
          count: 1,
          members: [{ user_id: 'alice', connections: 0 }],
        });
      });

      it('a user once, however often the same was written', async () => {
        const { room, scope } = await listened();
        const before = await store.totals();
        for (let count = 0; count < 5; count += 1)
          await store.write([entry(scope, 'alice', 2), entry(scope, 'alice', 2)]);
        expect(await store.page(room, 10, undefined)).toEqual({
          count: 1,
          members: [{ user_id: 'alice', connections: 2 }],
        });
        expect(await store.totals()).toEqual({ ...before, rooms: before.rooms + 1 });
        await store.write([entry(scope, 'alice', null)]);
        expect(await store.page(room, 10, undefined)).toEqual({ count: 0, members: [] });
      });

      it('a name no longer once its user has gone', async () => {
        const { room, scope } = await listened();
        await store.write([entry(scope, 'alice', 1, { name: 'Alice' })]);
        await store.write([entry(scope, 'alice', null)]);
        await store.write([entry(scope, 'alice', 1)]);
        expect((await store.page(room, 10, undefined)).members).toEqual([
          { user_id: 'alice', connections: 1 },
        ]);
      });

      it.each([1, 2, 6, 7, 12, 13, 1_000])('exactly %d members where there are so many', async (limit) => {
        const { room, scope } = await listened();
        const users = ['b', 'a', 'Z', 'ä', 'aa', 'a b', '😀', '{x}', '\uffee', 'z', '0', 'a:b', '日本'];
        await store.write(users.map((user) => entry(scope, user, 1, { announce: false })));
        const pages = await walk(store, room, limit);
        const sizes = pages.map((page) => page.length);
        expect(sizes.slice(0, -1).every((size) => size === limit)).toBe(true);
        expect(sizes.at(-1)).toBe(users.length % limit === 0 ? limit : users.length % limit);
        const inOrder = users.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
        expect(pages.flat().map(({ user_id }) => user_id)).toEqual(inOrder);
      });

      it('the number of all members, on every page', async () => {
        const { room, scope } = await listened();
        await store.write(['a', 'b', 'c'].map((user) => entry(scope, user, 1, { announce: false })));
        const first = await store.page(room, 2, undefined);
        const second = await store.page(room, 2, first.cursor);
        expect([first.count, second.count, second.cursor]).toEqual([3, 3, undefined]);
      });

      it('those who follow a member, also where that one has gone', async () => {
        const { room, scope } = await listened();
        await store.write(['a', 'b', 'c', 'd'].map((user) => entry(scope, user, 1, { announce: false })));
        const { cursor } = await store.page(room, 2, undefined);
        await store.write([entry(scope, 'b', null), entry(scope, 'aa', 1)]);
        expect((await store.page(room, 10, cursor)).members.map(({ user_id }) => user_id)).toEqual([
          'c',
          'd',
        ]);
      });

      it.each(['', '!!!', 'AAAA', Buffer.from('\uffff\uffff').toString('base64url'), 'x'.repeat(1_024)])(
        'something sensible for a cursor that somebody made up: %j',
        async (cursor) => {
          const { room, scope } = await listened();
          await store.write([entry(scope, 'a'), entry(scope, 'b')]);
          const { count, members } = await store.page(room, 10, cursor);
          expect(count).toBe(2);
          expect(members.length).toBeLessThanOrEqual(2);
        },
      );

      it('nobody of a room that nobody is in', async () => {
        expect(await store.page(fresh('empty'), 10, undefined)).toEqual({ count: 0, members: [] });
      });

      it('each room apart', async () => {
        const [one, other] = [await listened(), await listened()];
        await store.write([entry(one.scope, 'alice'), entry(other.scope, 'bob'), entry('cluster', 'carol')]);
        expect((await store.page(one.room, 10, undefined)).members.map(({ user_id }) => user_id)).toEqual([
          'alice',
        ]);
        await store.write([entry('cluster', 'carol', null)]);
      });
    });

    describe('lists rooms', () => {
      const rooms = ['b', 'a', 'Z', 'a:b', 'a/b', '@', 'room:a', '-', 'c', '0'];

      async function withRooms(): Promise<PresenceStore> {
        const own = await factory.create({ announceUsers: false, announceMembersMax: 0 });
        await own.store.write(rooms.map((room) => entry(`room:${room}`, 'alice')));
        await own.store.write([entry('room:a', 'bob', 2), entry('cluster', 'alice', 3)]);
        return own.store;
      }

      it.each([1, 3, 5, 9, 10, 11])('exactly %d at a time, each once and with its members', async (limit) => {
        const own = await withRooms();
        const pages: { room: string; members: number }[][] = [];
        let cursor: string | undefined;
        do {
          const page = await own.rooms(limit, cursor);
          pages.push(page.rooms);
          cursor = page.cursor;
        } while (cursor !== undefined);
        expect(pages.slice(0, -1).every((page) => page.length === limit)).toBe(true);
        expect(pages.at(-1)).toHaveLength(rooms.length % limit === 0 ? limit : rooms.length % limit);
        const found = pages.flat();
        expect(found.map(({ room }) => room).toSorted()).toEqual(rooms.toSorted());
        expect(found.filter(({ members }) => members !== 1)).toEqual([{ room: 'a', members: 2 }]);
        expect((await own.rooms(100, undefined)).rooms).toEqual(found);
      });

      it.each(['', 'a', '-1000000 a', '9999 a', '1e9 a', 'NaN', '0', '\u0000'])(
        'in no time for a cursor that somebody made up: %j',
        async (text) => {
          const own = await withRooms();
          const cursor = Buffer.from(text).toString('base64url');
          const page = await within(own.rooms(5, cursor), 1_000, 'the store is still looking');
          expect(page.rooms.length).toBeLessThanOrEqual(5);
          expect(page.rooms.every(({ room }) => rooms.includes(room))).toBe(true);
        },
      );

      it('of which the last member has gone no longer', async () => {
        const own = await withRooms();
        for (const room of rooms) await own.write([entry(`room:${room}`, 'alice', null)]);
        expect(await own.rooms(10, undefined)).toEqual({ rooms: [{ room: 'a', members: 1 }] });
        await own.write([entry('room:a', 'bob', null)]);
        expect(await own.rooms(10, undefined)).toEqual({ rooms: [] });
      });

      it('with the members and connections of one', async () => {
        const own = await withRooms();
        expect(await own.counts('a')).toEqual({ members: 2, connections: 3 });
        await own.write([entry('room:a', 'bob', 1), entry('room:a', 'alice', 0)]);
        expect(await own.counts('a')).toEqual({ members: 2, connections: 1 });
        expect(await own.counts('nobody is here')).toEqual({ members: 0, connections: 0 });
      });
    });

    describe('counts', () => {
      it('open connections, the users and rooms that have one, and this instance', async () => {
        const own = await factory.create({ announceUsers: true, announceMembersMax: 3 });
        expect(await own.store.totals()).toEqual({ connections: 0, users: 0, rooms: 0, instances: 1 });
        await own.store.write([entry('cluster', 'alice', 2), entry('cluster', 'bob', 1)]);
        await own.store.write([
          entry('room:a', 'alice', 2),
          entry('room:a', 'bob', 1),
          entry('room:b', 'bob', 1),
        ]);
        expect(await own.store.totals()).toEqual({ connections: 3, users: 2, rooms: 2, instances: 1 });
      });

      it('nobody who only has the grace left', async () => {
        const own = await factory.create({ announceUsers: true, announceMembersMax: 3 });
        await own.store.write([entry('cluster', 'alice', 2), entry('room:a', 'alice', 2)]);
        await own.store.write([entry('cluster', 'alice', 0), entry('room:a', 'alice', 0)]);
        expect(await own.store.totals()).toEqual({ connections: 0, users: 0, rooms: 0, instances: 1 });
        await own.store.write([entry('cluster', 'alice', 1), entry('room:a', 'alice', 1)]);
        expect(await own.store.totals()).toEqual({ connections: 1, users: 1, rooms: 1, instances: 1 });
      });

      it('back to zero when all have gone, in whatever order', async () => {
        const own = await factory.create({ announceUsers: true, announceMembersMax: 3 });
        const users = ['a', 'b', 'c'];
        const scopes = ['cluster', 'room:a', 'room:b'] as const;
        for (const user of users) for (const scope of scopes) await own.store.write([entry(scope, user, 2)]);
        for (const scope of scopes)
          for (const user of users) await own.store.write([entry(scope, user, null)]);
        expect(await own.store.totals()).toEqual({ connections: 0, users: 0, rooms: 0, instances: 1 });
      });
    });
  });
}
