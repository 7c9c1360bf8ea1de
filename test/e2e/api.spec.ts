import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { Broker, BrokerUnavailable } from '../../src/core/broker.js';
import { IdempotencyStore } from '../../src/core/control.js';
import { Api, list, type Answer } from '../support/api.js';
import { notice, type Client } from '../support/client.js';
import { brokers, idsAfter, serveOver } from '../support/durable.js';
import { eventually } from '../support/eventually.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { serve } from '../support/gateway.js';
import { fresh } from '../support/names.js';
import { freePort, RedisServer } from '../support/redis-server.js';
import { forge, inSeconds, secret, token } from '../support/tokens.js';

const keys = 'all-key,publisher-key:publish,reader-key:read,controller-key:control';
const environment = {
  API_KEYS: keys,
  JWT_SECRET: secret,
  EPHEMERAL_CHANNELS: 'room:cursor:*',
  PRESENCE_GRACE_MS: '200',
};
const epoch = expect.any(String) as string;
const anyNumber = expect.any(Number) as number;

/** Every call of the API, with a body that is right, and the scope that it needs. */
const calls: [method: string, path: string, scope: 'publish' | 'read' | 'control', body?: object][] = [
  ['POST', '/publish', 'publish', { channel: 'room:calls', content: 1 }],
  ['POST', '/publish/batch', 'publish', { messages: [{ channel: 'room:calls', content: 1 }] }],
  ['GET', '/rooms', 'read'],
  ['GET', '/rooms/calls', 'read'],
  ['GET', '/rooms/calls/presence', 'read'],
  ['GET', '/rooms/calls/history', 'read'],
  ['GET', '/users/nobody', 'read'],
  ['GET', '/instances', 'read'],
  ['POST', '/users/nobody/disconnect', 'control', {}],
  ['PUT', '/users/nobody/rooms/calls', 'control'],
  ['DELETE', '/users/nobody/rooms/calls', 'control'],
  ['POST', '/tokens/revoke', 'control', { jti: 'nobodys' }],
];

const problem = (field: string): object => ({
  status: 400,
  body: {
    statusCode: 400,
    error: 'Bad Request',
    message: expect.stringMatching(new RegExp(`^${field} `)) as string,
    details: [{ field, problem: expect.any(String) as string }],
  },
});

describe.each(brokers)('publishing from a backend over %s', (_name, broker) => {
  const gateway = serveOver(broker, environment);
  const api = new Api(gateway);

  async function member(room: string): Promise<Client> {
    const client = await gateway().as(fresh('member'));
    await client.request({ type: 'join_room', room });
    return client;
  }

  it('reaches the members of a room, and answers the id and epoch of the event', async () => {
    const room = fresh('room');
    const client = await member(room);
    const content = { text: 'ü', list: [null, 1.5] };
    expect(await api.publish(`room:${room}`, { content })).toEqual({ id: 1, epoch });
    // Without `from` and `event`: no sender, and the default name.
    expect(await client.next('chat')).toEqual({ event: 'chat', content, room, id: 1, ts: anyNumber });
    expect(await api.publish(`room:${room}`, { content: null })).toEqual({ id: 2, epoch });
    expect(await client.next('chat')).toMatchObject({ content: null, id: 2 });
  });

  it('hands on from, event and message_id', async () => {
    const room = fresh('room');
    const client = await member(room);
    await api.publish(`room:${room}`, { content: 1, from: 'the shop', event: 'order.paid', message_id: 'm' });
    expect(await client.next('order.paid')).toEqual({
      event: 'order.paid',
      from: 'the shop',
      content: 1,
      message_id: 'm',
      room,
      id: 1,
      ts: anyNumber,
    });
  });

  it('to broadcast reaches everybody, to a user all of its connections and nobody else', async () => {
    const [user, content] = [fresh('user'), fresh('content')];
    const [tab, phone, other] = [
      await gateway().as(user),
      await gateway().as(user),
      await gateway().as(fresh('other')),
    ];
    expect(await api.publish('broadcast', { content })).toEqual({ id: anyNumber, epoch });
    for (const client of [tab, phone, other]) {
      const event = await client.next('chat');
      expect(event).toMatchObject({ content });
      expect([event['room'], event['direct'], event['from']]).toEqual([undefined, undefined, undefined]);
    }
    expect(await api.publish(`user:${user}`, { content: 'psst' })).toEqual({ id: 1, epoch });
    for (const client of [tab, phone]) {
      expect(await client.next('chat')).toMatchObject({ content: 'psst', direct: true, id: 1 });
    }
    expect(await other.settled('chat')).toEqual([]);
  });

  it('to a user who is not there is kept for a resume', async () => {
    const user = fresh('user');
    const { epoch: directEpoch } = await api.publish(`user:${user}`, { content: 'later' });
    const client = await gateway().as(user, {
      query: { lastDirectEventId: '0', directEpoch: String(directEpoch) },
    });
    expect(client.connected).toMatchObject({ recovered: true });
    expect(await client.next('chat')).toMatchObject({ content: 'later', direct: true });
  });

  it('leaves out the connection of exclude_connection, now and in its resume', async () => {
    const room = fresh('room');
    const [author, reader] = [await member(room), await member(room)];
    await api.publish(`room:${room}`, { content: 'own', exclude_connection: author.connectionId });
    await api.publish(`room:${room}`, { content: 'all' });
    expect(await author.next('chat')).toMatchObject({ content: 'all', id: 2 });
    expect((await reader.take('chat', 2)).map(({ content }) => content)).toEqual(['own', 'all']);
  });

  it('on an ephemeral channel is answered by {}', async () => {
    const room = `cursor:${fresh('room')}`;
    const client = await member(room);
    expect(await api.publish(`room:${room}`, { content: 1, message_id: 'm' })).toEqual({});
    const event = await client.next('chat');
    expect(event).toEqual({ event: 'chat', content: 1, message_id: 'm', room, ts: anyNumber });
  });

  it('with the message_id of an earlier event answers that one, with duplicate', async () => {
    const room = fresh('room');
    const client = await member(room);
    const first = await api.publish(`room:${room}`, { content: 1, message_id: 'm' });
    expect(await api.publish(`room:${room}`, { content: 1, message_id: 'm' })).toEqual({
      ...first,
      duplicate: true,
    });
    expect(await api.publish(`room:${room}`, { content: 2, message_id: 'n' })).toEqual({ id: 2, epoch });
    expect((await client.take('chat', 2)).map(({ id }) => id)).toEqual([1, 2]);
  });

  it('never meets the message_id of a user', async () => {
    const room = fresh('room');
    const client = await member(room);
    await client.request({ type: 'room_message', room, content: 1, message_id: 'm' });
    const from = client.userId;
    expect(await api.publish(`room:${room}`, { content: 2, message_id: 'm', from })).toEqual({
      id: 2,
      epoch,
    });
  });

  it.each([
    ['channel', undefined],
    ['channel', 'lobby'],
    ['channel', 'room:'],
    ['channel', 'room:no name'],
    ['channel', `room:${'x'.repeat(129)}`],
    ['channel', 'user:'],
    ['channel', 'user:a\u0000b'],
    ['channel', ['broadcast']],
    ['channel', { toString: 'broadcast' }],
    ['content', undefined],
    ['event', 'connected'],
    ['event', 'no name'],
    ['event', ''],
    ['event', null],
    ['from', ''],
    ['from', 7],
    ['message_id', ''],
    ['message_id', 'm'.repeat(65)],
    ['message_id', 1],
    ['exclude_connection', ''],
    ['exclude_connection', {}],
  ])('is 400 where %s is %j', async (field, value) => {
    const body = { channel: `room:${fresh('room')}`, content: 1, [field]: value };
    expect(await api.post('/publish', body)).toMatchObject(problem(field));
  });

  it('is 413 where the content is larger than a message may be', async () => {
    const body = { channel: `room:${fresh('room')}`, content: 'x'.repeat(65_536) };
    expect(await api.post('/publish', body)).toMatchObject({
      status: 413,
      body: { statusCode: 413, error: 'Payload Too Large', message: expect.any(String) as string },
    });
  });

  it('in a batch keeps the order, and a bad one does not stop the others', async () => {
    const room = fresh('room');
    const client = await member(room);
    const channel = `room:${room}`;
    const { results } = await api.ok('POST', '/publish/batch', {
      messages: [
        { channel, content: 0 },
        { channel: 'lobby', content: 1 },
        { channel: `room:cursor:${room}`, content: 2 },
        { channel },
        null,
        'text',
        [],
        { channel, content: 'x'.repeat(65_536) },
        { channel, content: 8, message_id: 'm' },
        { channel, content: 8, message_id: 'm' },
        { channel, content: 10, event: 'last' },
      ],
    });
    const bad = { error: { code: 'invalid_message', message: expect.any(String) as string } };
    expect(results).toMatchObject([
      { id: 1, epoch },
      { error: { ...bad.error, details: [{ field: 'channel' }] } },
      {},
      { error: { ...bad.error, details: [{ field: 'content' }] } },
      bad,
      bad,
      bad,
      bad,
      { id: 2, epoch },
      { id: 2, epoch, duplicate: true },
      { id: 3, epoch },
    ]);
    expect(results).toHaveProperty('2', {});
    await client.next('last');
    expect(client.unread('chat').map(({ content }) => content)).toEqual([0, 8]);
  });

  it('takes a thousand in one batch, numbered in their order', async () => {
    const room = fresh('room');
    const client = await member(room);
    const messages = Array.from({ length: 1_000 }, (_value, content) => ({
      channel: `room:${room}`,
      content,
    }));
    const body = await api.ok('POST', '/publish/batch', { messages });
    expect(list(body, 'results').map(({ id }) => id)).toEqual(idsAfter(0, 1_000));
    const events = await client.take('chat', 1_000);
    expect(events.map(({ content }) => content)).toEqual(messages.map(({ content }) => content));
    const over = [...messages, { channel: `room:${room}`, content: 0 }];
    expect(await api.post('/publish/batch', { messages: over })).toMatchObject(problem('messages'));
  });

  it.each([[undefined], [null], [{}], ['[]'], [7]])('is 400 where messages is %j', async (messages) => {
    expect(await api.post('/publish/batch', { messages })).toMatchObject(problem('messages'));
  });

  it('of an empty batch is an empty answer', async () => {
    expect(await api.ok('POST', '/publish/batch', { messages: [] })).toEqual({ results: [] });
  });
});

describe.each(brokers)('Idempotency-Key over %s', (_name, broker) => {
  const gateway = serveOver(broker, { ...environment, API_KEYS: `${keys},second-key` });
  const api = new Api(gateway);
  const again = (key: string): Record<string, string> => ({ 'idempotency-key': key });

  it('gives the first answer again, with duplicate: true', async () => {
    const [room, key] = [fresh('room'), fresh('key')];
    const body = { channel: `room:${room}`, content: 1 };
    const first = await api.ok('POST', '/publish', body, again(key));
    expect(first).toEqual({ id: 1, epoch });
    for (let call = 0; call < 3; call += 1) {
      expect(await api.ok('POST', '/publish', body, again(key))).toEqual({ ...first, duplicate: true });
    }
    expect(await api.ok('GET', `/rooms/${room}`)).toMatchObject({ last_event_id: 1 });
  });

  it('gives a batch its results again', async () => {
    const [room, key] = [fresh('room'), fresh('key')];
    const body = { messages: [{ channel: `room:${room}`, content: 1 }, { channel: 'nope' }] };
    const first = await api.ok('POST', '/publish/batch', body, again(key));
    expect(list(first, 'results')).toHaveLength(2);
    expect(await api.ok('POST', '/publish/batch', body, again(key))).toEqual({ ...first, duplicate: true });
    expect(await api.ok('GET', `/rooms/${room}`)).toMatchObject({ last_event_id: 1 });
  });

  it('with another body is 409, and publishes nothing', async () => {
    const [room, key] = [fresh('room'), fresh('key')];
    const body = { channel: `room:${room}`, content: 1 };
    await api.ok('POST', '/publish', body, again(key));
    expect(await api.post('/publish', { ...body, content: 2 }, again(key))).toMatchObject({
      status: 409,
      body: { statusCode: 409, error: 'Conflict', message: expect.any(String) as string },
    });
    expect(await api.ok('GET', `/rooms/${room}`)).toMatchObject({ last_event_id: 1 });
  });

  it('belongs to one API key and one path', async () => {
    const [room, key] = [fresh('room'), fresh('key')];
    const body = { channel: `room:${room}`, content: 1 };
    const second = new Api(gateway, 'second-key');
    expect(await api.ok('POST', '/publish', body, again(key))).toEqual({ id: 1, epoch });
    expect(await second.ok('POST', '/publish', body, again(key))).toEqual({ id: 2, epoch });
    expect(await api.ok('POST', '/publish/batch', { messages: [body] }, again(key))).toEqual({
      results: [{ id: 3, epoch }],
    });
    expect(await api.ok('POST', '/publish', body)).toEqual({ id: 4, epoch });
  });

  it('lets one of a hundred concurrent twins act, and gives all its answer', async () => {
    const [room, key] = [fresh('room'), fresh('key')];
    const body = { channel: `room:${room}`, content: 1 };
    const answers = await Promise.all(
      Array.from({ length: 100 }, () => api.ok('POST', '/publish', body, again(key))),
    );
    for (const { id, epoch: theirs } of answers) expect([id, theirs]).toEqual([1, answers[0]?.['epoch']]);
    expect(answers.filter(({ duplicate }) => duplicate !== true)).toHaveLength(1);
    expect(list(await api.ok('GET', `/rooms/${room}/history`), 'events')).toHaveLength(1);
  });

  it('of a call that was refused can be used again', async () => {
    const [room, key] = [fresh('room'), fresh('key')];
    expect(await api.post('/publish', { channel: 'nope', content: 1 }, again(key))).toMatchObject({
      status: 400,
    });
    const answer = await api.ok('POST', '/publish', { channel: `room:${room}`, content: 1 }, again(key));
    expect(answer).toEqual({ id: 1, epoch });
  });

  it('works for every write', async () => {
    for (const [method, path, scope, body] of calls.filter(([, , needed]) => needed === 'control')) {
      const key = fresh(scope);
      const first = await api.ok(method, path, body, again(key));
      expect(await api.ok(method, path, body, again(key))).toEqual({ ...first, duplicate: true });
    }
  });

  it('does not make a read stale', async () => {
    const [user, key] = [fresh('user'), fresh('key')];
    expect(await api.ok('GET', `/users/${user}`, undefined, again(key))).toEqual({
      user_id: user,
      connections: [],
    });
    const client = await gateway().as(user);
    expect(await api.ok('GET', `/users/${user}`, undefined, again(key))).toMatchObject({
      connections: [{ connection_id: client.connectionId }],
    });
  });

  it.each([
    ['empty', ''],
    ['too long', 'k'.repeat(129)],
    ['with a blank inside', 'a b'],
  ])('is 400 where it is %s', async (_what, key) => {
    const body = { channel: `room:${fresh('room')}`, content: 1 };
    expect(await api.post('/publish', body, again(key))).toMatchObject({
      status: 400,
      body: { statusCode: 400, error: 'Bad Request', message: expect.any(String) as string },
    });
  });
});

describe.each(brokers)('looking into rooms over %s', (_name, broker) => {
  const gateway = serveOver(broker, environment);
  const api = new Api(gateway);

  async function join(room: string, users: readonly string[]): Promise<Client[]> {
    const clients = await Promise.all(users.map((user) => gateway().as(user)));
    await Promise.all(clients.map((client) => client.request({ type: 'join_room', room })));
    await eventually(async () => {
      expect(await api.ok('GET', `/rooms/${room}`)).toMatchObject({ connections: users.length });
    });
    return clients;
  }

  it('an empty room is all zeros', async () => {
    const room = fresh('room');
    expect(await api.ok('GET', `/rooms/${room}`)).toEqual({
      room,
      members: 0,
      connections: 0,
      last_event_id: 0,
      epoch,
    });
    expect(await api.ok('GET', `/rooms/${room}/presence`)).toEqual({ room, count: 0, members: [] });
    expect(await api.ok('GET', `/rooms/${room}/history`)).toEqual({ room, events: [], more: false, epoch });
  });

  it('an ephemeral room has null for id and epoch', async () => {
    const room = `cursor:${fresh('room')}`;
    await api.publish(`room:${room}`);
    expect(await api.ok('GET', `/rooms/${encodeURIComponent(room)}`)).toEqual({
      room,
      members: 0,
      connections: 0,
      last_event_id: null,
      epoch: null,
    });
    expect(await api.ok('GET', `/rooms/${room}/history`)).toEqual({
      room,
      events: [],
      more: false,
      epoch: null,
    });
  });

  it('members are users, counted once however many connections they have', async () => {
    const [room, alice, bob] = [fresh('room'), fresh('alice'), fresh('bob')];
    await join(room, [alice, alice, bob]);
    await api.publish(`room:${room}`);
    expect(await api.ok('GET', `/rooms/${room}`)).toEqual({
      room,
      members: 2,
      connections: 3,
      last_event_id: 1,
      epoch,
    });
    expect(await api.ok('GET', `/rooms/${room}/presence`)).toEqual({
      room,
      count: 2,
      members: [
        { user_id: alice, connections: 2 },
        { user_id: bob, connections: 1 },
      ],
    });
  });

  it('shows the names that tokens give', async () => {
    const [room, user] = [fresh('room'), fresh('user')];
    const client = await gateway().bearing(token(user, { name: 'Ünal "the" First' }));
    await client.request({ type: 'join_room', room });
    await eventually(async () => {
      expect(await api.ok('GET', `/rooms/${room}/presence`)).toEqual({
        room,
        count: 1,
        members: [{ user_id: user, name: 'Ünal "the" First', connections: 1 }],
      });
    });
  });

  it('presence is paged: every member once, in one order', async () => {
    const room = fresh('room');
    const users = Array.from({ length: 23 }, () => fresh('user')).sort();
    await join(room, users);
    for (const limit of [1, 5, 22, 23, 24]) {
      const seen: unknown[] = [];
      let cursor = '';
      do {
        const page = await api.ok('GET', `/rooms/${room}/presence?limit=${limit}${cursor}`);
        expect(page['count']).toBe(23);
        const members = list(page, 'members');
        expect(members.length).toBeLessThanOrEqual(limit);
        seen.push(...members.map(({ user_id: user }) => user));
        cursor = typeof page['cursor'] === 'string' ? `&cursor=${encodeURIComponent(page['cursor'])}` : '';
      } while (cursor !== '');
      expect(seen).toEqual(users);
    }
  });

  it('the list of rooms is paged: every room with a member once, and gone when it is left', async () => {
    const client = await gateway().as(fresh('user'));
    const rooms = Array.from({ length: 23 }, () => fresh('listed'));
    for (const room of rooms) await client.request({ type: 'join_room', room });
    const walk = async (limit: number): Promise<Record<string, unknown>[]> => {
      const seen: Record<string, unknown>[] = [];
      let cursor = '';
      do {
        const page = await api.ok('GET', `/rooms?limit=${limit}${cursor}`);
        expect(list(page, 'rooms').length).toBeLessThanOrEqual(limit);
        seen.push(...list(page, 'rooms'));
        cursor = typeof page['cursor'] === 'string' ? `&cursor=${encodeURIComponent(page['cursor'])}` : '';
      } while (cursor !== '');
      return seen.filter(({ room }) => String(room).startsWith('listed-'));
    };
    for (const limit of [1, 7, 1_000]) {
      await eventually(async () => {
        const seen = await walk(limit);
        expect(seen).toHaveLength(rooms.length);
        expect(new Set(seen.map(({ room }) => room))).toEqual(new Set(rooms));
        for (const entry of seen) expect(entry).toEqual({ room: entry['room'], members: 1 });
      });
    }
    for (const room of rooms) await client.request({ type: 'leave_room', room });
    await eventually(async () => {
      expect(await walk(7)).toEqual([]);
    });
  });

  it('history has the events as readers got them, paged by before and limit', async () => {
    const room = fresh('room');
    const [reader] = await join(room, [fresh('reader')]);
    const messages = Array.from({ length: 120 }, (_value, content) => ({ channel: `room:${room}`, content }));
    await api.ok('POST', '/publish/batch', { messages });
    const events = await reader?.take('chat', 120);
    expect(await api.ok('GET', `/rooms/${room}/history`)).toEqual({
      room,
      events: events?.slice(70),
      more: true,
      epoch,
    });
    expect(await api.ok('GET', `/rooms/${room}/history?before=21&limit=100`)).toEqual({
      room,
      events: events?.slice(0, 20),
      more: false,
      epoch,
    });
    expect(await api.ok('GET', `/rooms/${room}/history?before=0`)).toMatchObject({ events: [], more: false });
  });

  it.each([
    ['/rooms?limit=0', 'limit'],
    ['/rooms?limit=1001', 'limit'],
    ['/rooms?limit=1.5', 'limit'],
    ['/rooms?limit=-1', 'limit'],
    ['/rooms?limit=ten', 'limit'],
    ['/rooms?limit=1&limit=2', 'limit'],
    ['/rooms?cursor=a&cursor=b', 'cursor'],
    [`/rooms?cursor=${'c'.repeat(1_025)}`, 'cursor'],
    ['/rooms/x/presence?limit=0', 'limit'],
    ['/rooms/x/presence?limit=1001', 'limit'],
    ['/rooms/x/history?limit=0', 'limit'],
    ['/rooms/x/history?limit=101', 'limit'],
    ['/rooms/x/history?before=-1', 'before'],
    ['/rooms/x/history?before=9007199254740992', 'before'],
    ['/rooms/x/history?before=$', 'before'],
    ['/rooms/no%20name', 'room'],
    ['/rooms/%00', 'room'],
    ['/rooms/%D7%90/presence', 'room'],
    ['/rooms/a*/history', 'room'],
  ])('%s is 400', async (path, field) => {
    expect(await api.get(path)).toMatchObject(problem(field));
  });

  it.each([
    ['no position', 'x'],
    ['one below all', '-1000000000 a'],
    ['one above all', '1e9 a'],
    ['one between two', '0.5 a'],
    ['something else', '\u0000{}'],
  ])('a cursor that names %s is answered at once, by 400 or a page', async (_what, text) => {
    const cursor = Buffer.from(text).toString('base64url');
    for (const path of ['/rooms', '/rooms/x/presence']) {
      const answer = await api.get(`${path}?cursor=${cursor}`);
      expect([200, 400]).toContain(answer.status);
    }
  });

  it('takes the longest room and user names there are', async () => {
    const [room, user] = ['r/'.repeat(64), '\u{1f600}'.repeat(128)];
    const client = await gateway().as(user);
    expect(await api.ok('GET', `/users/${encodeURIComponent(user)}`)).toMatchObject({
      user_id: user,
      connections: [{ connection_id: client.connectionId }],
    });
    expect(await api.ok('GET', `/rooms/${encodeURIComponent(room)}`)).toMatchObject({ room });
    const path = `/users/${encodeURIComponent(user)}/rooms/${encodeURIComponent(room)}`;
    expect(await api.ok('PUT', path)).toEqual({ connections: 1 });
    expect(await client.next('joined_room')).toMatchObject({ room });
  });
});

describe.each(brokers)('control over connections over %s', (_name, broker) => {
  const gateway = serveOver(broker, { ...environment, ROOM_POLICY: 'closed', MAX_ROOMS_PER_CONNECTION: '2' });
  const api = new Api(gateway);

  it('a user has its connections, with their rooms and since when', async () => {
    const [user, room] = [fresh('user'), fresh('room')];
    expect(await api.ok('GET', `/users/${user}`)).toEqual({ user_id: user, connections: [] });
    const before = Date.now();
    const tab = await gateway().bearing(token(user, { rooms: { join: ['*'] } }));
    const phone = await gateway().bearing(token(user));
    await tab.request({ type: 'join_room', room });
    const answer = await api.ok('GET', `/users/${user}`);
    const connections = list(answer, 'connections');
    expect(answer['user_id']).toBe(user);
    const instance = tab.connected['instance'];
    const at = anyNumber;
    const expected = [
      { connection_id: tab.connectionId, instance, rooms: [room], connected_at: at },
      { connection_id: phone.connectionId, instance, rooms: [], connected_at: at },
    ];
    expect(connections).toHaveLength(2);
    expect(connections).toEqual(expect.arrayContaining(expected));
    for (const { connected_at: connectedAt } of connections) {
      expect(connectedAt).toBeGreaterThanOrEqual(before);
      expect(connectedAt).toBeLessThanOrEqual(Date.now());
    }
  });

  it('the instance is listed with its connections', async () => {
    const client = await gateway().as(fresh('user'));
    expect(await api.ok('GET', '/instances')).toEqual({
      instances: [{ instance: client.connected['instance'], connections: 1, started_at: anyNumber }],
    });
  });

  it('disconnect closes every connection of the user with 4503 and the reason, and nobody else', async () => {
    const user = fresh('user');
    const [tab, phone, other] = [
      await gateway().as(user),
      await gateway().as(user),
      await gateway().as(fresh('other')),
    ];
    const body = { reason: 'banned: ü' };
    expect(await api.ok('POST', `/users/${user}/disconnect`, body)).toEqual({ connections: 2 });
    expect(await tab.closed).toEqual({ code: 4503, reason: 'banned: ü' });
    expect(await phone.closed).toEqual({ code: 4503, reason: 'banned: ü' });
    await other.fence();
    expect(await api.ok('POST', `/users/${user}/disconnect`)).toEqual({ connections: 0 });
    // It is no ban: the user may come back.
    expect((await gateway().as(user)).userId).toBe(user);
  });

  it('disconnect needs no reason, and no body', async () => {
    for (const body of [undefined, {}, '']) {
      const client = await gateway().as(fresh('user'));
      expect(await api.ok('POST', `/users/${client.userId}/disconnect`, body)).toEqual({ connections: 1 });
      expect(await client.closed).toMatchObject({ code: 4503 });
    }
  });

  it.each([[7], ['x'.repeat(124)], ['\u{1f600}'.repeat(31)], [{}], [null]])(
    'a reason %j is 400, and closes nothing',
    async (reason) => {
      const client = await gateway().as(fresh('user'));
      const answer = await api.post(`/users/${client.userId}/disconnect`, { reason });
      expect(answer).toMatchObject(problem('reason'));
      await client.fence();
    },
  );

  it('PUT puts all connections of a user into the room, whatever the rights and limits', async () => {
    const [user, room] = [fresh('user'), fresh('room')];
    const [tab, phone] = [await gateway().as(user), await gateway().bearing(token(user))];
    expect(await tab.request({ type: 'join_room', room })).toMatchObject({ code: 'forbidden' });
    expect(await api.ok('PUT', `/users/${user}/rooms/${room}`)).toEqual({ connections: 2 });
    for (const client of [tab, phone]) {
      expect(await client.next('joined_room')).toEqual({
        event: 'joined_room',
        room,
        last_event_id: 0,
        epoch,
        recovered: false,
        replayed: 0,
      });
    }
    await api.publish(`room:${room}`, { content: 'hello' });
    for (const client of [tab, phone]) expect(await client.next('chat')).toMatchObject({ content: 'hello' });
    for (const extra of [fresh('room'), fresh('room'), fresh('room')]) {
      expect(await api.ok('PUT', `/users/${user}/rooms/${extra}`)).toEqual({ connections: 2 });
      expect(await tab.next('joined_room')).toMatchObject({ room: extra });
    }
    // What a member may do in the room is still the token's to say.
    expect(await tab.request({ type: 'room_message', room, content: 1 })).toMatchObject({
      code: 'forbidden',
    });
  });

  it('PUT announces the user to the members, once', async () => {
    const [user, room] = [fresh('user'), fresh('room')];
    const member = await gateway().bearing(token(fresh('member'), { rooms: { join: ['*'] } }));
    await member.request({ type: 'join_room', room });
    const tabs = [await gateway().as(user), await gateway().as(user)];
    await api.ok('PUT', `/users/${user}/rooms/${room}`);
    await api.ok('PUT', `/users/${user}/rooms/${room}`);
    await Promise.all(tabs.map((tab) => tab.next('joined_room')));
    await member.next(notice('user_joined', user, room));
    await api.publish(`room:${room}`, { content: 'mark' });
    expect(await member.settled(notice('user_joined', user, room), () => member.next('chat'))).toEqual([]);
  });

  it('PUT into a room of a user who is not there is no error, and DELETE neither', async () => {
    const path = `/users/${fresh('user')}/rooms/${fresh('room')}`;
    expect(await api.ok('PUT', path)).toEqual({ connections: 0 });
    expect(await api.ok('DELETE', path)).toEqual({ connections: 0 });
  });

  it('a connection that a backend put into a room stays in it after an auth', async () => {
    const [user, room, own] = [fresh('user'), fresh('room'), fresh('own')];
    const client = await gateway().bearing(token(user, { rooms: { join: ['own-*'] } }));
    await client.request({ type: 'join_room', room: own });
    await api.ok('PUT', `/users/${user}/rooms/${room}`);
    await client.next('joined_room');
    expect(await client.request({ type: 'auth', token: token(user) })).toMatchObject({ event: 'ack' });
    // The room that its token had opened is left, the backend's is not.
    expect(await client.next('left_room')).toEqual({ event: 'left_room', room: own });
    await api.publish(`room:${room}`, { content: 'still here' });
    expect(await client.next('chat')).toMatchObject({ content: 'still here' });
    expect(client.unread('left_room')).toEqual([]);
  });

  it('DELETE takes all connections out, each told by left_room, and announces it', async () => {
    const [user, room] = [fresh('user'), fresh('room')];
    const rights = { rooms: { join: ['*'], publish: ['*'] } };
    const member = await gateway().bearing(token(fresh('member'), rights));
    const tabs = [await gateway().bearing(token(user, rights)), await gateway().bearing(token(user, rights))];
    for (const client of [member, ...tabs]) await client.request({ type: 'join_room', room });
    expect(await api.ok('DELETE', `/users/${user}/rooms/${room}`)).toEqual({ connections: 2 });
    for (const tab of tabs) expect(await tab.next('left_room')).toEqual({ event: 'left_room', room });
    await member.next(notice('user_left', user, room));
    await api.publish(`room:${room}`, { content: 1 });
    await member.next('chat');
    for (const tab of tabs) expect(await tab.settled('chat')).toEqual([]);
    // It is no ban: who has the right may join again.
    expect(await tabs[0]?.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
  });

  it('a room that a backend took the connection out of is the token’s to allow again', async () => {
    const [user, room] = [fresh('user'), fresh('room')];
    const client = await gateway().bearing(token(user));
    await api.ok('PUT', `/users/${user}/rooms/${room}`);
    await client.next('joined_room');
    await api.ok('DELETE', `/users/${user}/rooms/${room}`);
    await client.next('left_room');
    expect(await client.request({ type: 'join_room', room })).toMatchObject({ code: 'forbidden' });
  });
});

describe.each(brokers)('revoking tokens over %s', (_name, broker) => {
  const gateway = serveOver(broker, environment);
  const api = new Api(gateway);
  const bearer = (jwt: string): { headers: Record<string, string> } => ({
    headers: { authorization: `Bearer ${jwt}` },
  });

  it('by jti closes its connections with 4001, and refuses it from then on', async () => {
    const [user, jti] = [fresh('user'), fresh('jti')];
    const [revoked, kept] = [token(user, { jti }), token(user, { jti: fresh('jti') })];
    const [victim, survivor, anonymous] = [
      await gateway().bearing(revoked),
      await gateway().bearing(kept),
      await gateway().as(user),
    ];
    expect(await api.ok('POST', '/tokens/revoke', { jti })).toEqual({});
    expect(await victim.closed).toMatchObject({ code: 4001 });
    expect(await gateway().refused('/ws', bearer(revoked))).toMatchObject({ status: 401 });
    for (const client of [survivor, anonymous]) await client.fence();
    expect((await gateway().bearing(kept)).userId).toBe(user);
  });

  it('by jti refuses it in an auth, too', async () => {
    const [user, jti] = [fresh('user'), fresh('jti')];
    const client = await gateway().bearing(token(user));
    await api.ok('POST', '/tokens/revoke', { jti });
    const auth = { type: 'auth', token: token(user, { jti }) };
    expect(await client.request(auth)).toMatchObject({ code: 'unauthorized' });
    await client.fence();
  });

  it('by jti does not touch a connection that has another token by now', async () => {
    const [user, jti] = [fresh('user'), fresh('jti')];
    const client = await gateway().bearing(token(user, { jti }));
    await client.request({ type: 'auth', token: token(user, { jti: fresh('jti') }) });
    await api.ok('POST', '/tokens/revoke', { jti });
    await client.fence();
    expect(client.closedWith).toBeUndefined();
  });

  it('by sub and issued_before concerns older tokens and those without iat, and no newer ones', async () => {
    const user = fresh('user');
    const at = inSeconds(-100);
    const [older, same, newer, without] = [
      token(user, { iat: at - 1 }),
      token(user, { iat: at }),
      token(user, { iat: at + 1 }),
      signedWithoutIat(user),
    ];
    const closing = [await gateway().bearing(older), await gateway().bearing(without)];
    const staying = [await gateway().bearing(same), await gateway().bearing(newer), await gateway().as(user)];
    const other = await gateway().bearing(token(fresh('other'), { iat: at - 1 }));
    expect(await api.ok('POST', '/tokens/revoke', { sub: user, issued_before: at })).toEqual({});
    for (const client of closing) expect(await client.closed).toMatchObject({ code: 4001 });
    for (const client of [...staying, other]) await client.fence();
    for (const jwt of [older, without]) {
      expect(await gateway().refused('/ws', bearer(jwt))).toMatchObject({ status: 401 });
    }
    for (const jwt of [same, newer]) expect((await gateway().bearing(jwt)).userId).toBe(user);
  });

  it('by sub alone means: issued before now', async () => {
    const user = fresh('user');
    const old = token(user, { iat: inSeconds(-1) });
    const client = await gateway().bearing(old);
    await api.ok('POST', '/tokens/revoke', { sub: user });
    expect(await client.closed).toMatchObject({ code: 4001 });
    expect(await gateway().refused('/ws', bearer(old))).toMatchObject({ status: 401 });
    const later = token(user, { iat: inSeconds(2) });
    expect((await gateway().bearing(later)).userId).toBe(user);
  });

  it('an older revocation of a user does not undo a newer one', async () => {
    const user = fresh('user');
    const at = inSeconds(-100);
    await api.ok('POST', '/tokens/revoke', { sub: user, issued_before: at });
    await api.ok('POST', '/tokens/revoke', { sub: user, issued_before: at - 50 });
    const jwt = token(user, { iat: at - 10 });
    expect(await gateway().refused('/ws', bearer(jwt))).toMatchObject({ status: 401 });
  });

  it.each(['jti', 'sub'])('a revocation by %s is not shortened by a later, shorter one', async (by) => {
    const [user, jti] = [fresh('user'), fresh('jti')];
    const subject = by === 'jti' ? { jti } : { sub: user, issued_before: inSeconds(10) };
    await api.ok('POST', '/tokens/revoke', subject);
    await api.ok('POST', '/tokens/revoke', { ...subject, expires_at: inSeconds(-1) });
    expect(await gateway().refused('/ws', bearer(token(user, { jti })))).toMatchObject({ status: 401 });
  });

  it('holds until expires_at', async () => {
    const [user, jti] = [fresh('user'), fresh('jti')];
    const jwt = token(user, { jti });
    const endsAt = Date.now() / 1000 + 1;
    await api.ok('POST', '/tokens/revoke', { jti, expires_at: endsAt });
    const client = await eventually(() => gateway().bearing(jwt));
    expect(client.userId).toBe(user);
    expect(Date.now() / 1000).toBeGreaterThanOrEqual(endsAt);
  });

  it.each([
    ['jti', {}],
    ['jti', { jti: '' }],
    ['jti', { jti: 'j'.repeat(257) }],
    ['jti', { jti: 7 }],
    ['sub', { jti: 'j', sub: 's' }],
    ['sub', { sub: '' }],
    ['sub', { sub: 'a\u0001' }],
    ['issued_before', { sub: 's', issued_before: '1' }],
    ['issued_before', { sub: 's', issued_before: -1 }],
    ['expires_at', { jti: 'j', expires_at: 'tomorrow' }],
    ['expires_at', { jti: 'j', expires_at: 0 }],
  ])('is 400 for %s in %j', async (field, body) => {
    expect(await api.post('/tokens/revoke', body)).toMatchObject(problem(field));
  });
});

describe('who may call the API', () => {
  const gateway = serve(environment);

  it.each(calls)('%s %s answers 200 to a key with its scope, 403 to others', async (...call) => {
    const [method, path, scope, body] = call;
    for (const key of ['publisher-key', 'reader-key', 'controller-key', 'all-key']) {
      const { status, body: answer } = await new Api(gateway, key).call(method, path, body);
      const may = key === 'all-key' || key.startsWith(scope === 'control' ? 'controll' : scope.slice(0, 4));
      const message = expect.any(String) as string;
      const refusal = { statusCode: 403, error: 'Forbidden', message };
      expect([key, status]).toEqual([key, may ? 200 : 403]);
      expect(answer).toEqual(may ? answer : refusal);
    }
  });

  it.each([
    ['no key', {}],
    ['an unknown key', { authorization: 'Bearer nobodys-key' }],
    ['a part of a key', { authorization: 'Bearer all' }],
    ['a longer key', { authorization: 'Bearer all-key-' }],
    ['a key with its scopes', { authorization: 'Bearer reader-key:read' }],
    ['an empty key', { authorization: 'Bearer ' }],
    ['a user’s token', { authorization: `Bearer ${token('alice')}` }],
    ['another scheme', { authorization: 'Basic all-key' }],
    ['two keys', { authorization: 'Bearer all-key, Bearer all-key' }],
  ])('with %s every call is 401', async (_what, headers) => {
    for (const [method, path, , body] of calls) {
      const answer = await new Api(gateway, '').call(method, path, body, headers);
      expect(answer).toMatchObject({
        status: 401,
        body: { statusCode: 401, error: 'Unauthorized', message: expect.any(String) as string },
      });
      expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer/);
    }
  });

  it.each([
    ['a bad body', '{', 'application/json'],
    ['a body of another type', '<x/>', 'application/xml'],
    ['a body that is too large', 'x'.repeat(9_000_000), 'application/json'],
  ])('without a key %s is 401 as well', async (_what, body, type) => {
    const answer = await new Api(gateway, '').call('POST', '/publish', body, { 'content-type': type });
    expect(answer.status).toBe(401);
  });

  it.each([
    ['GET', '/nope'],
    ['GET', '/instances/'],
    ['GET', '/publish'],
    ['PATCH', '/rooms/x'],
    ['POST', '/users/a/rooms/b'],
  ])('%s %s is 404', async (method, path) => {
    const answer = await new Api(gateway).call(method, path);
    expect(answer).toMatchObject({ status: 404, body: { statusCode: 404, error: 'Not Found' } });
  });
});

describe('without API_KEYS', () => {
  const gateway = serve({ JWT_SECRET: secret });
  const api = new Api(gateway);

  it.each(calls)('%s %s is 404', async (method, path, _scope, body) => {
    expect(await api.call(method, path, body)).toMatchObject({
      status: 404,
      body: { statusCode: 404, error: 'Not Found', message: expect.any(String) as string },
    });
  });

  it('a bad body is 404, too', async () => {
    expect(await api.post('/publish', '{')).toMatchObject({ status: 404 });
  });
});

describe('with INTERNAL_PORT', () => {
  let gateway: GatewayProcess;

  beforeAll(async () => {
    gateway = await GatewayProcess.start({ API_KEYS: keys, INTERNAL_PORT: '0', LOG_LEVEL: 'info' });
  });

  afterAll(async () => {
    await gateway.dispose();
  });

  it.each(calls)('%s %s is served there alone', async (method, path, _scope, body) => {
    const [inside, outside] = [
      new Api(() => ({ url: gateway.internalUrl })),
      new Api(() => ({ url: gateway.url })),
    ];
    expect(await inside.call(method, path, body)).toMatchObject({ status: 200 });
    expect(await outside.call(method, path, body)).toMatchObject({
      status: 404,
      body: { statusCode: 404, error: 'Not Found', message: expect.any(String) as string },
    });
  });

  it('the public port reads no body for the API', async () => {
    const outside = new Api(() => ({ url: gateway.url }));
    expect(await outside.post('/publish', '{')).toMatchObject({ status: 404 });
  });
});

describe('a body that is not what it should be', () => {
  const gateway = serve(environment);
  const api = new Api(gateway);
  const nested = (levels: number): string =>
    `{"channel":"room:deep","content":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}`;
  const bad = {
    status: 400,
    body: { statusCode: 400, error: 'Bad Request', message: expect.any(String) as string },
  };

  it.each([
    ['no JSON', '{"channel":"room:x","content":1'],
    ['a bare word', 'content'],
    ['NaN', '{"channel":"room:x","content":NaN}'],
    ['a list', '[{"channel":"room:x","content":1}]'],
    ['a string', '"room:x"'],
    ['null', 'null'],
    ['a number', '7'],
    ['empty', ''],
    ['65 levels deep', nested(65)],
    ['a million levels deep', '['.repeat(1_000_000)],
  ])('is 400 where it is %s', async (_what, body) => {
    expect(await api.post('/publish', body)).toMatchObject(bad);
  });

  it('may be 64 levels deep', async () => {
    expect(await api.post('/publish', nested(64))).toMatchObject({ status: 200 });
  });

  it.each(['application/xml', 'application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data'])(
    'is 400 where it is %s, and publishes nothing',
    async (type) => {
      const room = fresh('room');
      const body = type.endsWith('urlencoded')
        ? `channel=room:${room}&content=1`
        : `{"channel":"room:${room}","content":1}`;
      expect(await api.post('/publish', body, { 'content-type': type })).toMatchObject(bad);
      expect(await api.ok('GET', `/rooms/${room}`)).toMatchObject({ last_event_id: 0 });
    },
  );

  it('is JSON with a charset, too', async () => {
    const body = { channel: `room:${fresh('room')}`, content: 1 };
    const headers = { 'content-type': 'application/json; charset=utf-8' };
    expect(await api.post('/publish', body, headers)).toMatchObject({ status: 200 });
  });

  it('is 413 where it is larger than 8 MiB, and the instance goes on', async () => {
    const body = `{"messages":["${'x'.repeat(8 * 1024 * 1024)}"]}`;
    expect(await api.post('/publish/batch', body)).toMatchObject({
      status: 413,
      body: { statusCode: 413, error: 'Payload Too Large', message: expect.any(String) as string },
    });
    expect(await api.get('/instances')).toMatchObject({ status: 200 });
  });

  it('finds no meaning in __proto__ and constructor, and hands them on in content', async () => {
    const room = fresh('room');
    const client = await gateway().as(fresh('user'));
    await client.request({ type: 'join_room', room });
    const hostile = `{"__proto__":{"channel":"room:${room}","from":"root"},"content":1}`;
    expect(await api.post('/publish', hostile)).toMatchObject(bad);
    const content = '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}';
    const carried = `{"channel":"room:${room}","content":${content},"__proto__":{"event":"evil"}}`;
    expect(await api.post('/publish', carried)).toMatchObject({ status: 200 });
    const event = await client.next('chat');
    expect(JSON.stringify(event['content'])).toBe(content);
    expect(Reflect.get({}, 'polluted')).toBeUndefined();
    const batch = `{"messages":[${carried}],"__proto__":{"messages":[]}}`;
    expect(await api.post('/publish/batch', batch)).toMatchObject({
      status: 200,
      body: { results: [{ id: 2 }] },
    });
  });

  it('never echoes what was in it', async () => {
    const marker = fresh('marker');
    const answers: Answer[] = [
      await api.post('/publish', { channel: marker, content: 1, event: `${marker} ${marker}` }),
      await api.post('/publish', `{"${marker}`),
      await api.post('/tokens/revoke', { jti: [marker] }),
      await api.get(`/rooms/${marker}%20`),
      await api.get(`/rooms?limit=${marker}`),
    ];
    for (const { status, body } of answers) {
      expect(status).toBe(400);
      expect(JSON.stringify(body)).not.toContain(marker);
    }
  });
});

describe('while Redis is away', () => {
  const single = calls.filter(([, path]) => path !== '/publish/batch');
  let away: GatewayProcess;

  beforeAll(async () => {
    const unreachable = `redis://127.0.0.1:${await freePort()}`;
    away = await GatewayProcess.start({ API_KEYS: keys, REDIS_URL: unreachable, LOG_LEVEL: 'info' });
  });

  afterAll(async () => {
    await away.dispose();
  });

  it.each(single)('%s %s is 503 with Retry-After, in time', async (method, path, _scope, body) => {
    const began = performance.now();
    const answer = await new Api(() => away).call(method, path, body);
    expect(performance.now() - began).toBeLessThan(3_000);
    expect(answer).toMatchObject({
      status: 503,
      body: { statusCode: 503, error: 'Service Unavailable', message: expect.any(String) as string },
    });
    expect(answer.headers.get('retry-after')).toMatch(/^\d+$/);
  });
});

describe('a call whose outcome is not known', () => {
  const gateway = serve(environment);
  const api = new Api(gateway);

  afterEach(() => {
    vi.restoreAllMocks();
  });

  it('is 503, and its repeat with the same Idempotency-Key publishes nothing twice', async () => {
    const [room, key] = [fresh('room'), { 'idempotency-key': fresh('key') }];
    const broker = gateway().app.get(Broker);
    const publish = broker.publish.bind(broker);
    vi.spyOn(broker, 'publish').mockImplementationOnce(async (publication) => {
      await publish(publication);
      throw new BrokerUnavailable(new Error('the reply was lost'));
    });
    const body = { channel: `room:${room}`, content: 1 };
    expect(await api.post('/publish', body, key)).toMatchObject({ status: 503 });
    expect(await api.post('/publish', body, key)).toMatchObject({ status: 200, body: { id: 1 } });
    expect(await api.ok('GET', `/rooms/${room}`)).toMatchObject({ last_event_id: 1 });
  });

  it('because its answer could not be kept does not publish twice either', async () => {
    const [room, key] = [fresh('room'), { 'idempotency-key': fresh('key') }];
    const store = gateway().app.get(IdempotencyStore);
    vi.spyOn(store, 'finish').mockRejectedValueOnce(new BrokerUnavailable(new Error('away')));
    const body = { channel: `room:${room}`, content: 1 };
    expect([200, 503]).toContain((await api.post('/publish', body, key)).status);
    expect(await api.post('/publish', body, key)).toMatchObject({ status: 200, body: { id: 1 } });
    expect(await api.ok('GET', `/rooms/${room}`)).toMatchObject({ last_event_id: 1 });
  });

  it('in a batch is tried again with the same Idempotency-Key, the others are not published twice', async () => {
    const [room, key] = [fresh('room'), { 'idempotency-key': fresh('key') }];
    const broker = gateway().app.get(Broker);
    const channel = `room:${room}`;
    const messages = [1, 2, 3].map((content) => ({ channel, content }));
    vi.spyOn(broker, 'publish').mockRejectedValueOnce(new BrokerUnavailable(new Error('away')));
    const failed = { error: { code: 'broker_unavailable', message: expect.any(String) as string } };
    const first = await api.post('/publish/batch', { messages }, key);
    expect(first.status === 503 ? [failed] : list(first.body, 'results')).toContainEqual(failed);
    const again = await api.ok('POST', '/publish/batch', { messages }, key);
    expect(list(again, 'results').filter(({ error }) => error !== undefined)).toEqual([]);
    expect(await api.ok('GET', `/rooms/${room}`)).toMatchObject({ last_event_id: 3 });
  });
});

describe('a batch while Redis is away', () => {
  let away: GatewayProcess;

  beforeAll(async () => {
    const unreachable = `redis://127.0.0.1:${await freePort()}`;
    away = await GatewayProcess.start({ API_KEYS: keys, REDIS_URL: unreachable, LOG_LEVEL: 'info' });
  });

  afterAll(async () => {
    await away.dispose();
  });

  it('is 503, or has broker_unavailable for each, in time', async () => {
    const messages = Array.from({ length: 100 }, (_value, content) => ({ channel: 'room:x', content }));
    const began = performance.now();
    const { status, body } = await new Api(() => away).post('/publish/batch', { messages });
    expect(performance.now() - began).toBeLessThan(3_000);
    const codes = status === 503 ? [] : list(body, 'results').map((result) => result['error']);
    const failed = { code: 'broker_unavailable', message: expect.any(String) as string };
    expect(codes).toEqual(status === 503 ? [] : messages.map(() => failed));
  });
});

describe('a Redis that hangs', () => {
  let redis: RedisServer;
  let gateway: GatewayProcess;

  beforeAll(async () => {
    redis = await RedisServer.start();
    gateway = await GatewayProcess.start({ API_KEYS: keys, REDIS_URL: redis.url, LOG_LEVEL: 'info' });
  });

  afterAll(async () => {
    await gateway.dispose();
    await redis.dispose();
  });

  it('makes calls 503 within 3 s, and a repeat with the same key publishes once', async () => {
    const api = new Api(() => gateway);
    const [room, key] = [fresh('room'), fresh('key')];
    const body = { channel: `room:${room}`, content: 1 };
    await eventually(async () => api.ok('POST', '/publish', { ...body, channel: `room:${fresh('first')}` }));
    redis.pause();
    const began = performance.now();
    const answers = await Promise.all([
      api.post('/publish', body, { 'idempotency-key': key }),
      api.get(`/rooms/${room}`),
      api.get('/rooms'),
      api.get('/instances'),
    ]);
    const tookMs = performance.now() - began;
    redis.resume();
    expect(answers.map(({ status }) => status)).toEqual([503, 503, 503, 503]);
    expect(tookMs).toBeLessThan(3_000);
    await eventually(async () => api.ok('POST', '/publish', body, { 'idempotency-key': key }), {
      timeoutMs: 15_000,
      everyMs: 100,
    });
    const history = await eventually(async () => api.ok('GET', `/rooms/${room}/history`));
    expect(list(history, 'events')).toHaveLength(1);
  });
});

/** jsonwebtoken would add an `iat`. */
function signedWithoutIat(user: string): string {
  return forge({ alg: 'HS256', typ: 'JWT' }, { sub: user, exp: inSeconds(3600) });
}
