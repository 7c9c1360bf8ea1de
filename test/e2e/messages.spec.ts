import { describe, expect, it } from 'vitest';
import { notice, number, text, type Client, type Message } from '../support/client.js';
import { eventually } from '../support/eventually.js';
import { serve } from '../support/gateway.js';
import { fresh } from '../support/names.js';

const anyId = expect.any(Number) as number;
const anyText = expect.any(String) as string;

const from = (user: string) => (message: Message) => message['from'] === user;

describe('messages', () => {
  const gateway = serve({
    RATE_LIMIT_PER_SECOND: '0',
    JWT_SECRET: 'unused here, but long enough to be a key',
  });

  async function users(...names: string[]): Promise<Client[]> {
    return Promise.all(names.map((name) => gateway().as(fresh(name))));
  }

  async function members(room: string, ...names: string[]): Promise<Client[]> {
    const clients = await users(...names);
    for (const client of clients) {
      expect(await client.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
    }
    return clients;
  }

  describe('connected', () => {
    it('is the first message and tells all that a client needs', async () => {
      const client = await gateway().connect();
      expect(client.all[0]).toMatchObject({
        event: 'connected',
        connection_id: anyText,
        user_id: anyText,
        instance: anyText,
        last_event_id: anyId,
        epoch: anyText,
        last_direct_event_id: 0,
        direct_epoch: anyText,
        recovered: false,
        heartbeat_ms: 25_000,
        max_message_bytes: 65_536,
      });
      await client.fence();
      expect(client.all.filter((message) => message.event === 'connected')).toHaveLength(1);
    });

    it('gives the positions from which the live events go on', async () => {
      const [alice, bob] = (await users('alice', 'bob')) as [Client, Client];
      const broadcast = await alice.request({ type: 'chat', content: 1 });
      const direct = await alice.request({ type: 'direct_message', target_user: bob.userId, content: 1 });
      const tabs = [await gateway().as(bob.userId), await gateway().as(bob.userId)] as const;
      for (const tab of tabs) {
        expect(tab.connected).toMatchObject({
          last_event_id: broadcast['id'],
          last_direct_event_id: direct['id'],
          epoch: tabs[0].connected['epoch'],
          direct_epoch: tabs[0].connected['direct_epoch'],
        });
      }
    });

    it('at id 0 is followed by the first event of a channel without a gap', async () => {
      const [alice, bob] = (await users('alice', 'bob')) as [Client, Client];
      expect(bob.connected).toMatchObject({ last_direct_event_id: 0 });
      await alice.request({ type: 'direct_message', target_user: bob.userId, content: 1 });
      expect(await bob.next('chat')).toMatchObject({ direct: true, id: 1 });
      expect(await bob.settled('gap')).toEqual([]);
    });
  });

  describe('chat', () => {
    it('reaches everyone but the sending connection', async () => {
      const [alice, bob, carol] = (await users('alice', 'bob', 'carol')) as [Client, Client, Client];
      const tab = await gateway().as(alice.userId);
      const before = Date.now();
      const ack = await alice.request({ type: 'chat', content: 'hello' });
      expect(ack).toMatchObject({ event: 'ack', id: anyId });
      expect(ack['duplicate']).not.toBe(true);
      for (const reader of [bob, carol, tab]) {
        const event = await reader.next(from(alice.userId));
        expect(event).toMatchObject({ event: 'chat', from: alice.userId, content: 'hello', id: ack['id'] });
        expect(event).not.toHaveProperty('room');
        expect(event['direct']).not.toBe(true);
        expect(number(event, 'ts')).toBeGreaterThanOrEqual(before);
        expect(number(event, 'ts')).toBeLessThanOrEqual(Date.now());
      }
      expect(await alice.settled('chat')).toEqual([]);
    });

    it('with a room is a room_message', async () => {
      const room = fresh('room');
      const [alice, bob] = (await members(room, 'alice', 'bob')) as [Client, Client];
      const ack = await alice.request({ type: 'chat', room, content: 'hello' });
      expect(await bob.next('chat')).toMatchObject({
        from: alice.userId,
        room,
        content: 'hello',
        id: ack['id'],
      });
      expect(await alice.next('chat')).toMatchObject({ from: alice.userId, room, content: 'hello' });
      const [outsider] = (await users('outsider')) as [Client];
      expect(await outsider.request({ type: 'chat', room, content: 1 })).toMatchObject({
        event: 'error',
        code: 'not_in_room',
      });
    });
  });

  describe('content', () => {
    it.each([
      ['null', 'null'],
      ['true', 'true'],
      ['zero', '0'],
      ['an empty string', '""'],
      ['an empty list', '[]'],
      ['an empty object', '{}'],
      ['a fraction', '0.1'],
      ['the largest double', '1.7976931348623157e+308'],
      ['nested values', '{"a":[1,{"b":[null,"x"]}],"":false}'],
      ['emoji and line separators', JSON.stringify('😀\u2028\u2029\u0000\u001f"\\/')],
      ['a lone surrogate', '"\\ud800"'],
      [
        'keys of the prototype',
        '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":1}',
      ],
      ['keys of our own events', '{"event":"connected","from":"eve","id":-1,"type":"chat"}'],
      ['text that looks like JSON', JSON.stringify('","id":1,"from":"eve')],
    ])('may be %s and arrives as it was sent', async (_name, content) => {
      const [alice, bob] = (await users('alice', 'bob')) as [Client, Client];
      alice.send(
        `{"type":"direct_message","target_user":${JSON.stringify(bob.userId)},"content":${content}}`,
      );
      const event = await bob.next('chat');
      expect(event['from']).toBe(alice.userId);
      expect(JSON.stringify(event['content'])).toBe(JSON.stringify(JSON.parse(content)));
    });

    it('holds its numbers as IEEE doubles', async () => {
      const [alice, bob] = (await users('alice', 'bob')) as [Client, Client];
      alice.send(
        `{"type":"direct_message","target_user":"${bob.userId}","content":[9007199254740993,1e-400]}`,
      );
      expect((await bob.next('chat'))['content']).toEqual([9_007_199_254_740_992, 0]);
    });
  });

  describe('ref', () => {
    it.each([0, 1, -7, Number.MAX_SAFE_INTEGER, '', 'a', 'r'.repeat(64), '\ud800', '"}{', '__proto__'])(
      '%j comes back in every kind of reply',
      async (ref) => {
        const room = fresh('room');
        const [alice] = (await users('alice')) as [Client];
        const reply = async (message: object): Promise<Message> => {
          alice.send({ ...message, ref });
          return alice.next((candidate) => candidate['ref'] === ref);
        };
        expect(await reply({ type: 'ping' })).toMatchObject({ event: 'pong' });
        expect(await reply({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
        expect(await reply({ type: 'room_message', room, content: 1 })).toMatchObject({ event: 'ack' });
        expect(await reply({ type: 'presence', room })).toMatchObject({ event: 'presence' });
        expect(await reply({ type: 'leave_room', room })).toMatchObject({ event: 'left_room' });
        expect(await reply({ type: 'room_message', room, content: 1 })).toMatchObject({
          code: 'not_in_room',
        });
        expect(await reply({ type: 'nonsense' })).toMatchObject({ code: 'unknown_type' });
        expect(await reply({ type: 'chat' })).toMatchObject({ code: 'invalid_message' });
      },
    );

    it.each([['r'.repeat(65)], [1.5], [null], [true], [{}], [[1]]])(
      '%j is no ref: invalid_message',
      async (ref) => {
        const [alice] = (await users('alice')) as [Client];
        alice.send({ type: 'chat', content: 1, ref });
        expect(await alice.next('error')).toMatchObject({
          code: 'invalid_message',
          details: [{ field: 'ref', problem: anyText }],
        });
      },
    );

    it('left out means no ack, but errors come all the same', async () => {
      const [alice, bob] = (await users('alice', 'bob')) as [Client, Client];
      alice.send({ type: 'direct_message', target_user: bob.userId, content: 1 });
      await bob.next('chat');
      alice.send({ type: 'room_message', room: fresh('room'), content: 1 });
      const error = await alice.next('error');
      expect(error).toMatchObject({ code: 'not_in_room', message: anyText });
      expect(error).not.toHaveProperty('ref');
      expect(await alice.settled('ack')).toEqual([]);
    });

    it('left out of other messages leaves their replies without one', async () => {
      const room = fresh('room');
      const [alice] = (await users('alice')) as [Client];
      for (const [message, reply] of [
        [{ type: 'ping' }, 'pong'],
        [{ type: 'join_room', room }, 'joined_room'],
        [{ type: 'presence', room }, 'presence'],
        [{ type: 'leave_room', room }, 'left_room'],
      ] as const) {
        alice.send(message);
        expect(await alice.next(reply)).not.toHaveProperty('ref');
      }
    });
  });

  describe('join_room', () => {
    it('is answered by joined_room, then members and joiner get user_joined', async () => {
      const room = fresh('room');
      const [alice] = (await members(room, 'alice')) as [Client];
      const [bob] = (await users('bob')) as [Client];
      const reply = await bob.request({ type: 'join_room', room });
      expect(reply).toMatchObject({
        event: 'joined_room',
        room,
        last_event_id: 0,
        epoch: anyText,
        recovered: false,
        replayed: 0,
      });
      for (const member of [alice, bob]) {
        const joined = await member.next(notice('user_joined', bob.userId));
        expect(joined).toMatchObject({ room });
        expect(joined).not.toHaveProperty('id');
      }
      const events = bob.all.map((message) => message.event).filter((event) => event?.includes('joined'));
      expect(events).toEqual(['joined_room', 'user_joined']);
    });

    it('twice is no error and no news', async () => {
      const room = fresh('room');
      const [alice, bob] = (await members(room, 'alice', 'bob')) as [Client, Client];
      expect(await bob.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room', room });
      await alice.next(notice('user_joined', bob.userId));
      const [carol] = (await members(room, 'carol')) as [Client];
      const again = await alice.settled(notice('user_joined', bob.userId), () =>
        alice.next(notice('user_joined', carol.userId)),
      );
      expect(again).toEqual([]);
      await bob.request({ type: 'room_message', room, content: 'once' });
      await bob.next('chat');
      expect(await bob.settled('chat')).toEqual([]);
    });

    it('by a second tab is no news to the members', async () => {
      const room = fresh('room');
      const [alice, bob] = (await members(room, 'alice', 'bob')) as [Client, Client];
      await alice.next(notice('user_joined', bob.userId));
      const tab = await gateway().as(bob.userId);
      await tab.request({ type: 'join_room', room });
      const [carol] = (await members(room, 'carol')) as [Client];
      const again = await alice.settled(notice('user_joined', bob.userId), () =>
        alice.next(notice('user_joined', carol.userId)),
      );
      expect(again).toEqual([]);
      await alice.request({ type: 'room_message', room, content: 1 });
      expect(await tab.next('chat')).toMatchObject({ room });
    });

    it('tells where the live events go on', async () => {
      const room = fresh('room');
      const [alice] = (await members(room, 'alice')) as [Client];
      const { id } = await alice.request({ type: 'room_message', room, content: 1 });
      const [bob] = (await users('bob')) as [Client];
      const joined = await bob.request({ type: 'join_room', room });
      expect(joined).toMatchObject({ last_event_id: id, recovered: false, replayed: 0 });
      const next = await alice.request({ type: 'room_message', room, content: 2 });
      expect(await bob.next('chat')).toMatchObject({ id: next['id'], content: 2 });
      expect(number(next, 'id')).toBe(number(joined, 'last_event_id') + 1);
    });
  });

  describe('leave_room', () => {
    it('is answered by left_room; members get user_left, the leaver no more events', async () => {
      const room = fresh('room');
      const [alice, bob] = (await members(room, 'alice', 'bob')) as [Client, Client];
      expect(await bob.request({ type: 'leave_room', room })).toMatchObject({ event: 'left_room', room });
      expect(await alice.next(notice('user_left', bob.userId))).toMatchObject({ room });
      await alice.request({ type: 'room_message', room, content: 1 });
      expect(await bob.settled('chat')).toEqual([]);
      expect(await bob.request({ type: 'room_message', room, content: 1 })).toMatchObject({
        code: 'not_in_room',
      });
    });

    it('by one of two tabs is no news, by the last one it is', async () => {
      const room = fresh('room');
      const [alice, bob] = (await members(room, 'alice', 'bob')) as [Client, Client];
      const tab = await gateway().as(bob.userId);
      await tab.request({ type: 'join_room', room });
      await bob.request({ type: 'leave_room', room });
      await alice.request({ type: 'room_message', room, content: 1 });
      expect(await tab.next('chat')).toMatchObject({ room });
      expect(await alice.settled(notice('user_left', bob.userId))).toEqual([]);
      await tab.request({ type: 'leave_room', room });
      expect(await alice.next(notice('user_left', bob.userId))).toMatchObject({ room });
    });

    it('leaves the other rooms alone', async () => {
      const [one, other] = [fresh('one'), fresh('other')];
      const [alice, bob] = (await members(one, 'alice', 'bob')) as [Client, Client];
      await alice.request({ type: 'join_room', room: other });
      await bob.request({ type: 'join_room', room: other });
      await bob.request({ type: 'leave_room', room: one });
      await alice.request({ type: 'room_message', room: other, content: 1 });
      expect(await bob.next('chat')).toMatchObject({ room: other });
    });
  });

  describe('room_message', () => {
    it('reaches every member, the sender included, and nobody else', async () => {
      const room = fresh('room');
      const [alice, bob] = (await members(room, 'alice', 'bob')) as [Client, Client];
      const [outsider] = (await users('outsider')) as [Client];
      const tab = await gateway().as(bob.userId);
      const ack = await alice.request({ type: 'room_message', room, content: { text: 'hi' } });
      for (const reader of [alice, bob]) {
        expect(await reader.next('chat')).toMatchObject({
          from: alice.userId,
          room,
          content: { text: 'hi' },
          id: ack['id'],
          ts: anyId,
        });
      }
      expect(await outsider.settled('chat')).toEqual([]);
      expect(await tab.settled('chat')).toEqual([]);
    });

    it('is for members only', async () => {
      const [alice] = (await users('alice')) as [Client];
      expect(await alice.request({ type: 'room_message', room: fresh('room'), content: 1 })).toMatchObject({
        event: 'error',
        code: 'not_in_room',
        message: anyText,
      });
    });
  });

  describe('direct_message', () => {
    it('reaches every connection of that user and nobody else', async () => {
      const [alice, bob, carol] = (await users('alice', 'bob', 'carol')) as [Client, Client, Client];
      const tab = await gateway().as(bob.userId);
      const ack = await alice.request({ type: 'direct_message', target_user: bob.userId, content: 'psst' });
      expect(ack).toMatchObject({ event: 'ack', id: anyId });
      for (const reader of [bob, tab]) {
        const event = await reader.next('chat');
        expect(event).toMatchObject({
          from: alice.userId,
          direct: true,
          content: 'psst',
          id: ack['id'],
          ts: anyId,
        });
        expect(event).not.toHaveProperty('room');
      }
      expect(await carol.settled('chat')).toEqual([]);
      expect(await alice.settled('chat')).toEqual([]);
    });

    it('to oneself reaches the other tabs', async () => {
      const [alice] = (await users('alice')) as [Client];
      const tab = await gateway().as(alice.userId);
      await alice.request({ type: 'direct_message', target_user: alice.userId, content: 'note' });
      expect(await tab.next('chat')).toMatchObject({ from: alice.userId, direct: true, content: 'note' });
    });

    it('to somebody who is not there is acknowledged like any other', async () => {
      const [alice] = (await users('alice')) as [Client];
      const target = fresh('nobody');
      const first = await alice.request({ type: 'direct_message', target_user: target, content: 1 });
      const second = await alice.request({ type: 'direct_message', target_user: target, content: 2 });
      expect([first['id'], second['id']]).toEqual([1, 2]);
      const late = await gateway().as(target);
      expect(late.connected).toMatchObject({ last_direct_event_id: 2 });
    });

    it.each(['__proto__', 'constructor', 'a:b', 'a}{b', 'room:x', '*', '💥', 'a b'])(
      'reaches a user with the name %j',
      async (name) => {
        const [alice] = (await users('alice')) as [Client];
        const target = await gateway().as(name);
        await alice.request({ type: 'direct_message', target_user: name, content: 1 });
        expect(await target.next('chat')).toMatchObject({ from: alice.userId, direct: true });
      },
    );
  });

  describe('message_id', () => {
    const channels = ['chat', 'room_message', 'direct_message'] as const;

    interface Scene {
      alice: Client;
      /** A second connection of alice. */
      tab: Client;
      bob: Client;
      message: Message;
    }

    async function scene(type: (typeof channels)[number]): Promise<Scene> {
      const room = fresh('room');
      const [alice, bob] = (await members(room, 'alice', 'bob')) as [Client, Client];
      const tab = await gateway().as(alice.userId);
      await tab.request({ type: 'join_room', room });
      const fields = { chat: {}, room_message: { room }, direct_message: { target_user: bob.userId } };
      return { alice, tab, bob, message: { type, ...fields[type], content: 1, message_id: fresh('m') } };
    }

    it.each(channels)('makes a second %s a duplicate, from any connection of the user', async (type) => {
      const { alice, tab, bob, message } = await scene(type);
      const first = await alice.request(message);
      expect(first).toMatchObject({ event: 'ack', id: anyId });
      expect(first['duplicate']).not.toBe(true);
      const second = await alice.request(message);
      expect(second).toMatchObject({ event: 'ack', id: first['id'], duplicate: true });
      expect(await tab.request(message)).toMatchObject({ event: 'ack', id: first['id'], duplicate: true });
      const received = await bob.next(from(alice.userId));
      expect(received).toMatchObject({ id: first['id'], message_id: message['message_id'] });
      expect(await bob.settled(from(alice.userId))).toEqual([]);
    });

    it.each(channels)('lets exactly one of many concurrent %s through', async (type) => {
      const { alice, bob, message } = await scene(type);
      const acks = await Promise.all(Array.from({ length: 20 }, () => alice.request(message)));
      expect(new Set(acks.map((ack) => ack['id'])).size).toBe(1);
      expect(acks.filter((ack) => ack['duplicate'] !== true)).toHaveLength(1);
      await bob.next(from(alice.userId));
      expect(await bob.settled(from(alice.userId))).toEqual([]);
    });

    it('is told apart by user and by channel', async () => {
      const [one, other] = [fresh('one'), fresh('other')];
      const [alice, bob] = (await members(one, 'alice', 'bob')) as [Client, Client];
      await alice.request({ type: 'join_room', room: other });
      const message_id = fresh('m');
      const acks = [
        await alice.request({ type: 'room_message', room: one, content: 1, message_id }),
        await bob.request({ type: 'room_message', room: one, content: 2, message_id }),
        await alice.request({ type: 'room_message', room: other, content: 3, message_id }),
        await alice.request({ type: 'direct_message', target_user: bob.userId, content: 4, message_id }),
        await alice.request({ type: 'chat', content: 5, message_id }),
      ];
      expect(acks.map((ack) => [ack.event, ack['duplicate'] ?? false])).toEqual(
        acks.map(() => ['ack', false]),
      );
    });

    it('of a message that was refused stays free', async () => {
      const room = fresh('room');
      const [alice] = (await users('alice')) as [Client];
      const message = { type: 'room_message', room, content: 1, message_id: fresh('m') };
      expect(await alice.request(message)).toMatchObject({ code: 'not_in_room' });
      await alice.request({ type: 'join_room', room });
      const ack = await alice.request(message);
      expect(ack).toMatchObject({ event: 'ack', id: 1 });
      expect(ack['duplicate']).not.toBe(true);
    });

    it.each(['}{', ':*', 'a:b:c', '\u0000', '💥', 'm'.repeat(64), '__proto__'])(
      'may be %j',
      async (message_id) => {
        const room = fresh('room');
        const [alice] = (await members(room, 'alice')) as [Client];
        const first = await alice.request({ type: 'room_message', room, content: 1, message_id });
        const second = await alice.request({ type: 'room_message', room, content: 1, message_id });
        expect(first).toMatchObject({ event: 'ack', id: 1 });
        expect(second).toMatchObject({ event: 'ack', id: 1, duplicate: true });
        expect(await alice.next('chat')).toMatchObject({ message_id });
      },
    );
  });

  describe('event', () => {
    it.each(['note', 'x', 'a.b:c-d_e', 'E9', 'e'.repeat(64), 'chat', '__proto__', 'constructor'])(
      '%s is the name that the receivers see',
      async (event) => {
        const room = fresh('room');
        const [alice, bob] = (await members(room, 'alice', 'bob')) as [Client, Client];
        const ack = await alice.request({ type: 'room_message', room, event, content: 1 });
        expect(ack).toMatchObject({ event: 'ack' });
        expect(await bob.next(from(alice.userId))).toMatchObject({ event, room, content: 1, id: ack['id'] });
      },
    );

    it('works for chat and direct_message, too', async () => {
      const [alice, bob] = (await users('alice', 'bob')) as [Client, Client];
      await alice.request({ type: 'chat', event: 'typing', content: 1 });
      expect(await bob.next('typing')).toMatchObject({ from: alice.userId });
      await alice.request({ type: 'direct_message', target_user: bob.userId, event: 'typing', content: 1 });
      expect(await bob.next('typing')).toMatchObject({ from: alice.userId, direct: true });
    });

    it.each([
      'connected',
      'user_connected',
      'user_disconnected',
      'text',
      'user_joined',
      'user_left',
      'joined_room',
      'left_room',
      'presence',
      'history',
      'pong',
      'ack',
      'error',
      'gap',
      'reconnect',
      '',
      'e'.repeat(65),
      'a b',
      'é',
      'a/b',
      'a\n',
      5,
      null,
      {},
    ])('%j is reserved or no name: invalid_message', async (event) => {
      const [alice, bob] = (await users('alice', 'bob')) as [Client, Client];
      const reply = await alice.request({
        type: 'direct_message',
        target_user: bob.userId,
        event,
        content: 1,
      });
      expect(reply).toMatchObject({
        event: 'error',
        code: 'invalid_message',
        details: [{ field: 'event', problem: anyText }],
      });
      expect(await bob.settled(from(alice.userId))).toEqual([]);
    });
  });

  describe('names and fields', () => {
    const good = { room: 'a', content: 1, target_user: 'bob', token: 'x' };
    const wrong: [string, object, string][] = [
      ['chat', {}, 'content'],
      ['chat', { content: 1, room: 7 }, 'room'],
      ['join_room', {}, 'room'],
      ['leave_room', {}, 'room'],
      ['presence', {}, 'room'],
      ['presence', { room: 'a', limit: 0 }, 'limit'],
      ['presence', { room: 'a', limit: 1001 }, 'limit'],
      ['presence', { room: 'a', limit: 1.5 }, 'limit'],
      ['presence', { room: 'a', limit: '10' }, 'limit'],
      ['presence', { room: 'a', cursor: {} }, 'cursor'],
      ['room_message', { content: 1 }, 'room'],
      ['room_message', { room: 'a' }, 'content'],
      ['direct_message', { content: 1 }, 'target_user'],
      ['direct_message', { target_user: 'bob' }, 'content'],
      ['auth', {}, 'token'],
      ['auth', { token: 7 }, 'token'],
      ...['chat', 'room_message', 'direct_message'].flatMap((type): [string, object, string][] => [
        [type, { ...good, message_id: 'm'.repeat(65) }, 'message_id'],
        [type, { ...good, message_id: 7 }, 'message_id'],
        [type, { ...good, message_id: null }, 'message_id'],
      ]),
      ...['join_room', 'leave_room', 'presence', 'room_message', 'chat'].flatMap((type) =>
        ['', 'r'.repeat(129), 'a b', 'ü', '*', 'a\n', 'a{b}', '\ud800', null, 7, ['a'], { a: 1 }].map(
          (room): [string, object, string] => [type, { ...good, room }, 'room'],
        ),
      ),
      ...[
        '',
        'u'.repeat(129),
        '😀'.repeat(129),
        'a\u0000',
        'a\n',
        '\u007f',
        '\u0085',
        null,
        7,
        ['a'],
        {},
      ].map((target_user): [string, object, string] => [
        'direct_message',
        { ...good, target_user },
        'target_user',
      ]),
    ];

    it.each(wrong)('%s with %j is invalid_message for %s', async (type, fields, field) => {
      const [alice] = (await users('alice')) as [Client];
      const reply = await alice.request({ type, ...fields });
      expect(reply).toMatchObject({ event: 'error', code: 'invalid_message', message: anyText });
      expect(reply['details']).toEqual([expect.objectContaining({ field, problem: anyText })]);
    });

    it('every wrong field is named', async () => {
      const [alice] = (await users('alice')) as [Client];
      const reply = await alice.request({ type: 'room_message', room: '', message_id: 7, event: 'ack' });
      const details = reply['details'] as { field: string }[];
      expect(details.map(({ field }) => field).sort()).toEqual(['content', 'event', 'message_id', 'room']);
    });

    it.each([
      'a',
      'r'.repeat(128),
      'Az09._:@/-',
      '__proto__',
      'constructor',
      '.',
      '..',
      'a//b',
      '-',
      'room:room:x',
    ])('the room name %s is taken', async (room) => {
      const [alice] = (await users('alice')) as [Client];
      expect(await alice.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room', room });
      await alice.request({ type: 'room_message', room, content: 1 });
      expect(await alice.next('chat')).toMatchObject({ room });
      expect(await alice.request({ type: 'presence', room })).toMatchObject({ room, count: 1 });
      expect(await alice.request({ type: 'leave_room', room })).toMatchObject({ event: 'left_room', room });
    });

    it('fields that the gateway does not know are ignored', async () => {
      const room = fresh('room');
      const [alice] = (await members(room, 'alice')) as [Client];
      const extra = { id: -1, from: 'eve', ts: 0, epoch: 'x', user_id: 'eve', colour: { deep: [1] } };
      expect(await alice.request({ type: 'room_message', room, content: 1, ...extra })).toMatchObject({
        event: 'ack',
      });
      const event = await alice.next('chat');
      expect(event).toMatchObject({ from: alice.userId, id: 1 });
      expect(event).not.toHaveProperty('colour');
    });
  });

  describe('ping and pong', () => {
    it('ping is answered by pong, pong by nothing', async () => {
      const [alice] = (await users('alice')) as [Client];
      expect(await alice.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
      const before = alice.all.length;
      alice.send({ type: 'pong' });
      alice.send({ type: 'pong', ref: 'unanswered' });
      await alice.fence();
      expect(alice.all.slice(before).map((message) => message['ref'])).not.toContain('unanswered');
      expect(alice.all.slice(before).filter((message) => message.event === 'error')).toEqual([]);
    });
  });

  describe('the order', () => {
    it('of one connection is kept, and the ids go up by one', async () => {
      const room = fresh('room');
      const [alice, bob] = (await members(room, 'alice', 'bob')) as [Client, Client];
      const acks: Promise<Message>[] = [];
      for (let index = 0; index < 500; index += 1) {
        acks.push(alice.request({ type: 'room_message', room, content: index }));
      }
      const expected = Array.from({ length: 500 }, (_value, index) => index);
      for (const reader of [alice, bob]) {
        const events = await reader.take('chat', 500);
        expect(events.map((event) => event['content'])).toEqual(expected);
        expect(events.map((event) => event['id'])).toEqual(expected.map((index) => index + 1));
      }
      expect((await Promise.all(acks)).map((ack) => ack['id'])).toEqual(expected.map((index) => index + 1));
    });

    it('puts a join and a leave before the later messages for that room', async () => {
      const room = fresh('room');
      const [alice] = (await users('alice')) as [Client];
      const replies = await Promise.all([
        alice.request({ type: 'room_message', room, content: 0 }),
        alice.request({ type: 'join_room', room }),
        alice.request({ type: 'room_message', room, content: 1 }),
        alice.request({ type: 'room_message', room, content: 2 }),
        alice.request({ type: 'leave_room', room }),
        alice.request({ type: 'room_message', room, content: 3 }),
        alice.request({ type: 'join_room', room }),
        alice.request({ type: 'room_message', room, content: 4 }),
      ]);
      expect(replies.map((reply) => reply['code'] ?? reply.event)).toEqual([
        'not_in_room',
        'joined_room',
        'ack',
        'ack',
        'left_room',
        'not_in_room',
        'joined_room',
        'ack',
      ]);
      const events = await alice.take('chat', 3);
      expect(events.map((event) => event['content'])).toEqual([1, 2, 4]);
      expect(events.map((event) => event['id'])).toEqual([1, 2, 3]);
    });

    it('is the same for all readers of a channel', async () => {
      const room = fresh('room');
      const clients = await members(room, 'a', 'b', 'c', 'd');
      await Promise.all(
        clients.flatMap((client) =>
          Array.from({ length: 50 }, (_value, content) =>
            client.request({ type: 'room_message', room, content }),
          ),
        ),
      );
      const logs = await Promise.all(clients.map((client) => client.take('chat', 200)));
      const order = logs[0]?.map((event) => [event['id'], event['from'], event['content']]);
      for (const log of logs) {
        expect(log.map((event) => [event['id'], event['from'], event['content']])).toEqual(order);
      }
      expect(order?.map(([id]) => id)).toEqual(Array.from({ length: 200 }, (_value, index) => index + 1));
    });

    it('numbers broadcast, each room and each user apart', async () => {
      const [one, other] = [fresh('one'), fresh('other')];
      const [alice, bob] = (await members(one, 'alice', 'bob')) as [Client, Client];
      await alice.request({ type: 'join_room', room: other });
      const ids = [
        await alice.request({ type: 'room_message', room: one, content: 1 }),
        await alice.request({ type: 'room_message', room: one, content: 1 }),
        await alice.request({ type: 'room_message', room: other, content: 1 }),
        await alice.request({ type: 'direct_message', target_user: bob.userId, content: 1 }),
        await alice.request({ type: 'direct_message', target_user: fresh('nobody'), content: 1 }),
      ].map((ack) => number(ack, 'id'));
      expect(ids).toEqual([1, 2, 1, 1, 1]);
      const first = await alice.request({ type: 'chat', content: 1 });
      const second = await bob.request({ type: 'chat', content: 1 });
      expect(number(second, 'id')).toBe(number(first, 'id') + 1);
    });

    it('outlives the last member of a room', async () => {
      const room = fresh('room');
      const [alice] = (await members(room, 'alice')) as [Client];
      const before = await alice.request({ type: 'room_message', room, content: 1 });
      await alice.request({ type: 'leave_room', room });
      const joined = await alice.request({ type: 'join_room', room });
      expect(joined).toMatchObject({ last_event_id: before['id'] });
    });
  });

  describe('errors', () => {
    const marker = 'SECRET-MARKER';

    it.each([
      ['no JSON', `{"type":"${marker}"`, 'invalid_json'],
      ['no object', `"${marker}"`, 'invalid_message'],
      ['no type', `{"${marker}":"${marker}"}`, 'invalid_message'],
      ['an unknown type', `{"type":"${marker}"}`, 'unknown_type'],
      ['a wrong room', `{"type":"join_room","room":"${marker} ${marker}"}`, 'invalid_message'],
      ['a wrong field', `{"type":"join_room","room":["${marker}"],"${marker}":1}`, 'invalid_message'],
      ['a wrong event', `{"type":"chat","content":"${marker}","event":"${marker} "}`, 'invalid_message'],
      ['no member', `{"type":"room_message","room":"${marker}","content":"${marker}"}`, 'not_in_room'],
      ['a bad token', `{"type":"auth","token":"${marker}"}`, 'unauthorized'],
    ])('for %s echo nothing of it', async (_name, frame, code) => {
      const [alice] = (await users('alice')) as [Client];
      alice.send(frame);
      const error = await alice.next('error');
      expect(error).toMatchObject({ event: 'error', code, message: anyText });
      expect(JSON.stringify(error)).not.toContain(marker);
    });
  });
});

describe('IDEMPOTENCY_TTL_SECONDS', () => {
  const gateway = serve({ IDEMPOTENCY_TTL_SECONDS: '1', RATE_LIMIT_PER_SECOND: '0' });

  it('ends the time in which a message_id is remembered', async () => {
    const room = fresh('room');
    const alice = await gateway().as(fresh('alice'));
    await alice.request({ type: 'join_room', room });
    const message = { type: 'room_message', room, content: 1, message_id: 'm' };
    expect(await alice.request(message)).toMatchObject({ id: 1 });
    expect(await alice.request(message)).toMatchObject({ id: 1, duplicate: true });
    const again = await eventually(async () => {
      const ack = await alice.request(message);
      if (ack['duplicate'] === true) throw new Error('still a duplicate');
      return ack;
    });
    expect(again).toMatchObject({ event: 'ack', id: 2 });
  });
});

describe('an ephemeral channel', () => {
  const gateway = serve({ EPHEMERAL_CHANNELS: 'room:cursor:*,user:volatile*', RATE_LIMIT_PER_SECOND: '0' });

  it('has no ids, no epoch and no duplicates, and keeps the order', async () => {
    const room = `cursor:${fresh('room')}`;
    const [alice, bob] = (await Promise.all([gateway().as(fresh('alice')), gateway().as(fresh('bob'))])) as [
      Client,
      Client,
    ];
    for (const client of [alice, bob]) {
      expect(await client.request({ type: 'join_room', room })).toMatchObject({
        event: 'joined_room',
        last_event_id: null,
        epoch: null,
        recovered: false,
        replayed: 0,
      });
    }
    const contents = Array.from({ length: 100 }, (_value, index) => index);
    const acks = await Promise.all(
      contents.map((content) => alice.request({ type: 'room_message', room, content, message_id: 'same' })),
    );
    for (const ack of acks) {
      expect(ack).toMatchObject({ event: 'ack' });
      expect(ack['id'] ?? null).toBeNull();
      expect(ack['duplicate']).not.toBe(true);
    }
    const events = await bob.take('chat', 100);
    expect(events.map((event) => event['content'])).toEqual(contents);
    for (const event of events) {
      expect(event).toMatchObject({ from: alice.userId, room, message_id: 'same', ts: anyId });
      expect(event['id'] ?? null).toBeNull();
    }
  });

  it('may be the direct messages of a user', async () => {
    const target = await gateway().as(fresh('volatile'));
    expect(target.connected).toMatchObject({
      last_direct_event_id: null,
      direct_epoch: null,
      epoch: anyText,
    });
    const alice = await gateway().as(fresh('alice'));
    const ack = await alice.request({ type: 'direct_message', target_user: target.userId, content: 1 });
    expect(ack['id'] ?? null).toBeNull();
    expect(await target.next('chat')).toMatchObject({ direct: true, content: 1 });
  });

  it('is one by its whole name only', async () => {
    const alice = await gateway().as(fresh('alice'));
    for (const room of ['cursor', `x:cursor:${fresh('room')}`, fresh('room')]) {
      const joined = await alice.request({ type: 'join_room', room });
      expect(joined).toMatchObject({ last_event_id: 0, epoch: anyText });
      expect(text(joined, 'epoch')).not.toBe('');
    }
  });
});

describe('an ephemeral broadcast', () => {
  const gateway = serve({ EPHEMERAL_CHANNELS: 'broadcast' });

  it('has no position and still reaches everyone', async () => {
    const [alice, bob] = (await Promise.all([gateway().as('alice'), gateway().as('bob')])) as [
      Client,
      Client,
    ];
    expect(alice.connected).toMatchObject({ last_event_id: null, epoch: null, direct_epoch: anyText });
    expect(await alice.request({ type: 'chat', content: 1 })).toMatchObject({ event: 'ack' });
    expect(await bob.next('chat')).toMatchObject({ from: 'alice', content: 1 });
  });
});
