import { describe, expect, it } from 'vitest';
import { notice, type Client, type Message } from '../support/client.js';
import { serve } from '../support/gateway.js';
import { fresh } from '../support/names.js';
import { inSeconds, secret, token } from '../support/tokens.js';

const outcome = (reply: Message): unknown => reply['code'] ?? reply.event;

describe('the life of a token', () => {
  const gateway = serve({ JWT_SECRET: secret });

  it('ends the connection with 4001 at exp, not before', async () => {
    const exp = inSeconds(2);
    const client = await gateway().bearing(token('alice', { exp }));
    expect((await client.closed).code).toBe(4001);
    expect(Date.now()).toBeGreaterThanOrEqual(exp * 1000 - 50);
    expect(Date.now()).toBeLessThan(exp * 1000 + 1_500);
  });

  it('is prolonged by auth: the other connection of the same token shows that its time has come', async () => {
    const brief = token(fresh('alice'), { exp: inSeconds(2) });
    const [client, clock] = (await Promise.all([gateway().bearing(brief), gateway().bearing(brief)])) as [
      Client,
      Client,
    ];
    expect(await client.request({ type: 'auth', token: token(client.userId) })).toMatchObject({
      event: 'ack',
    });
    expect((await clock.closed).code).toBe(4001);
    expect(await client.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
    expect(client.closedWith).toBeUndefined();
  });

  it('is shortened by auth, too', async () => {
    const client = await gateway().bearing(token('alice'));
    expect(
      await client.request({ type: 'auth', token: token('alice', { exp: inSeconds(2) }) }),
    ).toMatchObject({
      event: 'ack',
    });
    expect((await client.closed).code).toBe(4001);
  });

  it('has no end without an exp', async () => {
    const user = fresh('alice');
    const [client, clock] = (await Promise.all([
      gateway().bearing(token(user, { exp: undefined })),
      gateway().bearing(token(user, { exp: inSeconds(2) })),
    ])) as [Client, Client];
    expect((await clock.closed).code).toBe(4001);
    expect(await client.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
  });

  it('may be longer than a timer can hold', async () => {
    const client = await gateway().bearing(token('alice', { exp: inSeconds(60 * 60 * 24 * 365) }));
    for (let index = 0; index < 3; index += 1) await client.fence();
    expect(client.closedWith).toBeUndefined();
  });
});

describe('auth', () => {
  const gateway = serve({ JWT_SECRET: secret });

  it.each([
    ['garbage', 'garbage'],
    ['an empty token', ''],
    ['a token of another secret', token('alice', {}, 'another secret of thirty-two bytes or more')],
    ['an expired token', token('alice', { exp: inSeconds(-5) })],
  ])('with %s is unauthorized, and the connection lives on', async (_name, bad) => {
    const client = await gateway().bearing(token('alice'));
    expect(await client.request({ type: 'auth', token: bad })).toMatchObject({
      event: 'error',
      code: 'unauthorized',
    });
    expect(await client.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
  });

  it('with the token of somebody else is forbidden, and the connection lives on as it was', async () => {
    const client = await gateway().bearing(token('alice', { broadcast: false }));
    expect(await client.request({ type: 'auth', token: token('bob') })).toMatchObject({
      event: 'error',
      code: 'forbidden',
    });
    expect(await client.request({ type: 'chat', content: 1 })).toMatchObject({ code: 'forbidden' });
  });

  it('gives the new rights at once', async () => {
    const client = await gateway().bearing(token('alice', { broadcast: false }));
    const replies = await Promise.all([
      client.request({ type: 'chat', content: 1 }),
      client.request({ type: 'auth', token: token('alice', { broadcast: true }) }),
      client.request({ type: 'chat', content: 2 }),
      client.request({ type: 'auth', token: token('alice', { broadcast: false }) }),
      client.request({ type: 'chat', content: 3 }),
    ]);
    expect(replies.map(outcome)).toEqual(['forbidden', 'ack', 'ack', 'ack', 'forbidden']);
  });

  it('takes the connection out of the rooms that it may no longer join', async () => {
    const [kept, lost] = [fresh('kept'), fresh('lost')];
    const observer = await gateway().as(fresh('observer'));
    const client = await gateway().bearing(token(fresh('alice')));
    for (const member of [observer, client]) {
      for (const room of [kept, lost]) await member.request({ type: 'join_room', room });
    }
    const narrowed = token(client.userId, { rooms: { join: ['kept-*'] } });
    expect(await client.request({ type: 'auth', token: narrowed })).toMatchObject({ event: 'ack' });
    const left = await client.next('left_room');
    expect(left).toMatchObject({ room: lost });
    expect(left).not.toHaveProperty('ref');
    expect(await observer.next(notice('user_left', client.userId))).toMatchObject({ room: lost });
    await observer.request({ type: 'room_message', room: lost, content: 1 });
    await observer.request({ type: 'room_message', room: kept, content: 2 });
    expect(await client.next('chat')).toMatchObject({ room: kept, content: 2 });
    expect(await client.settled('chat')).toEqual([]);
    expect(client.unread('left_room')).toEqual([]);
    expect(await client.request({ type: 'room_message', room: lost, content: 3 })).toMatchObject({
      code: 'not_in_room',
    });
    expect(await client.request({ type: 'join_room', room: lost })).toMatchObject({ code: 'forbidden' });
  });
});

describe('rights with ROOM_POLICY=open', () => {
  const gateway = serve({ JWT_SECRET: secret });

  async function bearing(claims: object): Promise<Client> {
    return gateway().bearing(token(fresh('user'), claims));
  }

  it.each([
    [['team:*'], 'team:a', true],
    [['team:*'], 'team:', true],
    [['team:*'], 'team:a/b:c@d', true],
    [['team:*'], 'team', false],
    [['team:*'], 'xteam:a', false],
    [['team:*'], 'Team:a', false],
    [['*'], 'anything/at.all', true],
    [['*:public'], 'a:b:public', true],
    [['*:public'], 'a:public:b', false],
    [['a*c*e'], 'abcde', true],
    [['a*c*e'], 'ace', true],
    [['a*c*e'], 'aec', false],
    [['a*a'], 'a', false],
    [['**'], 'x', true],
    [['a.c'], 'a.c', true],
    [['a.c'], 'abc', false],
    [['a-z'], 'm', false],
    [['[a-z]'], 'm', false],
    [['a|b'], 'b', false],
    [['.*'], 'x', false],
    [['^a$', 'b'], 'a', false],
    [['x', 'y', 'a'], 'a', true],
    [[''], 'a', false],
    [[], 'a', false],
  ])('the patterns %j let nobody but their own join %s', async (join, room, isAllowed) => {
    const client = await bearing({ rooms: { join } });
    const reply = await client.request({ type: 'join_room', room });
    expect(outcome(reply)).toBe(isAllowed ? 'joined_room' : 'forbidden');
  });

  it('a pattern that takes a naive matcher years is decided at once', async () => {
    const client = await bearing({ rooms: { join: [`${'a*'.repeat(40)}b`] } });
    const reply = await client.request({ type: 'join_room', room: 'a'.repeat(128) }, 1_000);
    expect(outcome(reply)).toBe('forbidden');
  });

  it('publish is asked for messages to a room', async () => {
    const room = fresh('room');
    const silent = await bearing({ rooms: { publish: ['other-*'] } });
    const other = await bearing({ rooms: { publish: ['room-*'] } });
    for (const client of [silent, other])
      expect(outcome(await client.request({ type: 'join_room', room }))).toBe('joined_room');
    expect(outcome(await silent.request({ type: 'room_message', room, content: 1 }))).toBe('forbidden');
    expect(outcome(await silent.request({ type: 'chat', room, content: 1 }))).toBe('forbidden');
    expect(outcome(await other.request({ type: 'room_message', room, content: 2 }))).toBe('ack');
    expect(await silent.next('chat')).toMatchObject({ content: 2 });
    expect(await silent.settled('chat')).toEqual([]);
  });

  it('presence is asked for presence', async () => {
    const room = fresh('room');
    const client = await bearing({ rooms: { presence: ['other-*'] } });
    await client.request({ type: 'join_room', room });
    expect(outcome(await client.request({ type: 'presence', room }))).toBe('forbidden');
    const open = await bearing({ rooms: { presence: ['room-*'] } });
    await open.request({ type: 'join_room', room });
    expect(outcome(await open.request({ type: 'presence', room }))).toBe('presence');
  });

  it.each([
    ['room_message', { rooms: { publish: [] } }],
    ['chat', { rooms: { publish: [] } }],
    ['presence', { rooms: { presence: [] } }],
  ])('forbidden comes before not_in_room for %s', async (type, claims) => {
    const room = fresh('room');
    const refused = await bearing(claims);
    const free = await bearing({});
    expect(outcome(await refused.request({ type, room, content: 1 }))).toBe('forbidden');
    expect(outcome(await free.request({ type, room, content: 1 }))).toBe('not_in_room');
  });

  it('direct is asked for direct messages', async () => {
    const client = await bearing({ direct: ['friend-*', 'bob'] });
    const say = (target_user: string): Promise<Message> =>
      client.request({ type: 'direct_message', target_user, content: 1 });
    expect(outcome(await say('bob'))).toBe('ack');
    expect(outcome(await say(fresh('friend')))).toBe('ack');
    expect(outcome(await say('carol'))).toBe('forbidden');
    expect(outcome(await say('bobby'))).toBe('forbidden');
    expect(outcome(await say(client.userId))).toBe('forbidden');
  });

  it('broadcast is asked for chat and for text', async () => {
    const user = fresh('user');
    const reader = await gateway().as(fresh('reader'));
    const silent = await gateway().bearing(token(user, { broadcast: false }), {}, `/ws/${user}`);
    expect(outcome(await silent.request({ type: 'chat', content: 1 }))).toBe('forbidden');
    silent.send('plain text');
    expect(await silent.next('error')).toMatchObject({ code: 'forbidden' });
    expect(await reader.settled('chat')).toEqual([]);
    expect(reader.unread('text')).toEqual([]);
    const loud = await bearing({ broadcast: true });
    expect(outcome(await loud.request({ type: 'chat', content: 2 }))).toBe('ack');
  });

  it('what the token does not say is allowed', async () => {
    const room = fresh('room');
    const client = await bearing({ rooms: { join: ['room-*'] } });
    const replies = [
      await client.request({ type: 'join_room', room }),
      await client.request({ type: 'room_message', room, content: 1 }),
      await client.request({ type: 'presence', room }),
      await client.request({ type: 'direct_message', target_user: 'bob', content: 1 }),
      await client.request({ type: 'chat', content: 1 }),
    ];
    expect(replies.map(outcome)).toEqual(['joined_room', 'ack', 'presence', 'ack', 'ack']);
  });

  it('a refusal is the same whether the room or user exists or not', async () => {
    const room = fresh('room');
    const owner = await gateway().as(fresh('owner'));
    await owner.request({ type: 'join_room', room });
    const client = await bearing({ rooms: { join: [], publish: [], presence: [] }, direct: [] });
    const bare = async (message: object): Promise<Message> => ({
      ...(await client.request(message)),
      ref: undefined,
    });
    for (const type of ['join_room', 'room_message', 'presence']) {
      const there = await bare({ type, room, content: 1 });
      expect(outcome(there)).toBe('forbidden');
      expect(await bare({ type, room: fresh('nowhere'), content: 1 })).toEqual(there);
    }
    const there = await bare({ type: 'direct_message', target_user: owner.userId, content: 1 });
    expect(outcome(there)).toBe('forbidden');
    expect(await bare({ type: 'direct_message', target_user: fresh('nobody'), content: 1 })).toEqual(there);
  });

  it('users with different patterns never see each other’s rooms', async () => {
    const rooms = Array.from(
      { length: 10 },
      (_value, index) => `${index % 2 === 0 ? 'red' : 'blue'}:${fresh('room')}`,
    );
    const red = await bearing({ rooms: { join: ['red:*'], publish: ['red:*'] } });
    const blue = await bearing({ rooms: { join: ['blue:*'], publish: ['blue:*'] } });
    await Promise.all(
      [red, blue].flatMap((client) => rooms.map((room) => client.request({ type: 'join_room', room }))),
    );
    await Promise.all(
      [red, blue].flatMap((client) =>
        rooms.map((room) => client.request({ type: 'room_message', room, content: 1 })),
      ),
    );
    await Promise.all([red.fence(), blue.fence()]);
    const seen = (client: Client, colour: string): Message[] =>
      client.all.filter(
        (message) => typeof message['room'] === 'string' && message['room'].startsWith(colour),
      );
    expect(seen(red, 'red').length).toBeGreaterThan(0);
    expect(seen(blue, 'blue').length).toBeGreaterThan(0);
    expect(seen(red, 'blue').filter((message) => message.event !== 'error')).toEqual([]);
    expect(seen(blue, 'red').filter((message) => message.event !== 'error')).toEqual([]);
  });

  it.each([
    ['rooms as a string', { rooms: '*' }],
    ['join as a string', { rooms: { join: 'room-*' } }],
    ['join as a list of numbers', { rooms: { join: [1] } }],
    ['join as an object', { rooms: { join: { 0: 'room-*' } } }],
    ['join as null', { rooms: { join: null } }],
    ['join as true', { rooms: { join: true } }],
  ])('malformed rights (%s) grant nothing', async (_name, claims) => {
    const granted = bearing(claims).then(
      (client) => client.request({ type: 'join_room', room: fresh('room') }).then(outcome),
      () => 'refused before the upgrade',
    );
    expect(['forbidden', 'refused before the upgrade']).toContain(await granted);
  });
});

describe('rights with ROOM_POLICY=closed', () => {
  const gateway = serve({ JWT_SECRET: secret, ROOM_POLICY: 'closed' });

  async function outcomes(client: Client): Promise<unknown[]> {
    const room = 'room:a';
    return [
      await client.request({ type: 'join_room', room }),
      await client.request({ type: 'room_message', room, content: 1 }),
      await client.request({ type: 'presence', room }),
      await client.request({ type: 'direct_message', target_user: 'bob', content: 1 }),
      await client.request({ type: 'chat', content: 1 }),
    ].map(outcome);
  }

  const all = ['joined_room', 'ack', 'presence', 'ack', 'ack'];
  const none = ['forbidden', 'forbidden', 'forbidden', 'forbidden', 'forbidden'];

  it.each([
    ['nothing', {}, none],
    ['an empty rooms', { rooms: {} }, none],
    ['the right to join', { rooms: { join: ['room:*'] } }, ['joined_room', ...none.slice(1)]],
    ['the right to publish', { rooms: { publish: ['*'] } }, ['forbidden', 'not_in_room', ...none.slice(2)]],
    ['the right to direct messages', { direct: ['b*'] }, [...none.slice(0, 3), 'ack', 'forbidden']],
    ['the right to broadcast', { broadcast: true }, [...none.slice(0, 4), 'ack']],
    [
      'every right',
      { rooms: { join: ['*'], publish: ['*'], presence: ['*'] }, direct: ['*'], broadcast: true },
      all,
    ],
  ])('a token that says %s allows just that', async (_name, claims, expected) => {
    expect(await outcomes(await gateway().bearing(token(fresh('user'), claims)))).toEqual(expected);
  });

  it('an anonymous user may do nothing', async () => {
    expect(await outcomes(await gateway().as(fresh('user')))).toEqual(none);
  });
});
