import type { ServerResponse } from 'node:http';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Api } from '../support/api.js';
import { closeClients, type Client, type Message } from '../support/client.js';
import { eventually } from '../support/eventually.js';
import { Gateway } from '../support/gateway.js';
import { json, LocalServer } from '../support/local-server.js';
import { fresh } from '../support/names.js';
import { secret, token } from '../support/tokens.js';

interface Question {
  user: string;
  action: string;
  channel: string;
}

type Decide = (question: Question, response: ServerResponse) => void;

const outcome = (reply: Message): unknown => (reply.event === 'error' ? reply['code'] : reply.event);

describe('AUTHORIZE_URL', () => {
  let hook: LocalServer;
  let gateway: Gateway;
  let asked: Question[] = [];
  let decide: Decide;
  const headers: unknown[] = [];

  const allow = (ttl?: number): Decide => {
    const answer = ttl === undefined ? { allow: true } : { allow: true, ttl_s: ttl };
    return (_question, response) => json(response, answer);
  };
  const refuse: Decide = (_question, response) => json(response, { allow: false });

  beforeAll(async () => {
    hook = await LocalServer.start((request, body, response) => {
      headers.push([request.method, request.headers['content-type']]);
      const question = JSON.parse(body) as Question;
      asked.push(question);
      decide(question, response);
    });
    gateway = await Gateway.start({
      JWT_SECRET: secret,
      AUTHORIZE_URL: `${hook.url}/authorize`,
      API_KEYS: 'all-key',
      RATE_LIMIT_PER_SECOND: '0',
      ANNOUNCE_USERS: 'false',
      LOG_LEVEL: 'fatal',
    });
  });

  beforeEach(() => {
    asked = [];
    decide = allow(0);
  });

  afterEach(closeClients);

  afterAll(async () => {
    await gateway.close();
    await hook.dispose();
  });

  async function outcomes(client: Client, room: string): Promise<unknown[]> {
    return [
      await client.request({ type: 'join_room', room }),
      await client.request({ type: 'room_message', room, content: 1 }),
      await client.request({ type: 'presence', room }),
      await client.request({ type: 'history', room }),
      await client.request({ type: 'direct_message', target_user: 'bob', content: 1 }),
      await client.request({ type: 'chat', content: 1 }),
    ].map(outcome);
  }

  const everything = ['joined_room', 'ack', 'presence', 'history', 'ack', 'ack'];

  it('is asked by POST what the user wants to do and where, and its yes is enough', async () => {
    const [user, room] = [fresh('user'), fresh('room')];
    const client = await gateway.bearing(token(user));
    // Whoever has joined is looked at once more when the join is done; the hook may be asked twice for it.
    expect(await outcomes(client, room)).toEqual(everything);
    const channel = `room:${room}`;
    const questions = asked.map(({ user: who, action, channel: where }) => [who, action, where].join(' '));
    expect(new Set(questions)).toEqual(
      new Set([
        `${user} join ${channel}`,
        `${user} publish ${channel}`,
        `${user} presence ${channel}`,
        `${user} history ${channel}`,
        `${user} publish user:bob`,
        `${user} publish broadcast`,
      ]),
    );
    expect(asked.map((question) => Object.keys(question).join())).toEqual(
      asked.map(() => 'user,action,channel'),
    );
    expect(new Set(headers.map((header) => JSON.stringify(header)))).toEqual(
      new Set(['["POST","application/json"]']),
    );
  });

  it('is asked for users without a token, too', async () => {
    const client = await gateway.as(fresh('user'));
    decide = refuse;
    expect(await outcomes(client, fresh('room'))).toEqual(everything.map(() => 'forbidden'));
    expect(new Set(asked.map(({ user }) => user))).toEqual(new Set([client.userId]));
  });

  it('is not asked where the token says yes or no', async () => {
    const room = fresh('room');
    const all = { join: ['*'], publish: ['*'], presence: ['*'], history: ['*'] };
    const may = await gateway.bearing(token(fresh('may'), { rooms: all, direct: ['*'], broadcast: true }));
    decide = refuse;
    expect(await outcomes(may, room)).toEqual(everything);
    const none = { join: [], publish: [], presence: [], history: [] };
    const mayNot = await gateway.bearing(token(fresh('not'), { rooms: none, direct: [], broadcast: false }));
    decide = allow();
    expect(await outcomes(mayNot, room)).toEqual(everything.map(() => 'forbidden'));
    expect(asked).toEqual([]);
  });

  it('is asked only for what a token leaves open', async () => {
    const room = fresh('room');
    const client = await gateway.bearing(token(fresh('user'), { rooms: { join: ['*'] }, broadcast: true }));
    decide = ({ action }, response) => json(response, { allow: action === 'publish', ttl_s: 0 });
    expect(await outcomes(client, room)).toEqual([
      'joined_room',
      'ack',
      'forbidden',
      'forbidden',
      'ack',
      'ack',
    ]);
    expect(asked.map(({ action, channel }) => `${action} ${channel}`)).toEqual([
      `publish room:${room}`,
      `presence room:${room}`,
      `history room:${room}`,
      'publish user:bob',
    ]);
  });

  it('what it says holds for ttl_s, by user, action and channel', async () => {
    const target = fresh('target');
    const send = { type: 'direct_message', target_user: target, content: 1 };
    const client = await gateway.as(fresh('user'));
    decide = allow(300);
    for (let index = 0; index < 20; index += 1) expect(outcome(await client.request(send))).toBe('ack');
    expect(asked).toHaveLength(1);
    decide = refuse;
    expect(outcome(await client.request(send))).toBe('ack');
    expect(outcome(await (await gateway.as(fresh('other'))).request(send))).toBe('forbidden');
    const elsewhere = { ...send, target_user: fresh('elsewhere') };
    expect(outcome(await client.request(elsewhere))).toBe('forbidden');
    expect(asked).toHaveLength(3);
  });

  it('with ttl_s 0 is asked each time, and a no is not for ever', async () => {
    const client = await gateway.as(fresh('user'));
    const send = { type: 'direct_message', target_user: fresh('target'), content: 1 };
    decide = (_question, response) => json(response, { allow: false, ttl_s: 0 });
    expect(outcome(await client.request(send))).toBe('forbidden');
    decide = allow(0);
    expect(outcome(await client.request(send))).toBe('ack');
    decide = (_question, response) => json(response, { allow: false, ttl_s: 0 });
    expect(outcome(await client.request(send))).toBe('forbidden');
    expect(asked).toHaveLength(3);
  });

  it('an answer is asked again when its ttl_s is over', async () => {
    const client = await gateway.as(fresh('user'));
    const send = { type: 'direct_message', target_user: fresh('target'), content: 1 };
    decide = allow(0.3);
    expect(outcome(await client.request(send))).toBe('ack');
    decide = refuse;
    await eventually(async () => {
      expect(outcome(await client.request(send))).toBe('forbidden');
    });
    expect(asked).toHaveLength(2);
  });

  it('is asked once for what many want to know at the same time', async () => {
    const waiting: ServerResponse[] = [];
    decide = (_question, response) => waiting.push(response);
    const user = fresh('user');
    const clients = await Promise.all(Array.from({ length: 10 }, () => gateway.as(user)));
    const target = fresh('target');
    const replies = clients.map((client) =>
      client.request({ type: 'direct_message', target_user: target, content: 1 }),
    );
    await eventually(() => {
      expect(waiting).toHaveLength(1);
    });
    await (await gateway.as(fresh('later'))).fence();
    for (const response of waiting) json(response, { allow: true });
    expect((await Promise.all(replies)).map(outcome)).toEqual(clients.map(() => 'ack'));
    expect(asked).toHaveLength(1);
  });

  const malformed: [string, Decide][] = [
    ['500', (_question, response) => json(response, { allow: true }, 500)],
    ['401', (_question, response) => json(response, { allow: true }, 401)],
    ['no JSON', (_question, response) => response.end('yes')],
    ['an empty body', (_question, response) => response.end()],
    ['null', (_question, response) => json(response, null)],
    ['no allow', (_question, response) => json(response, { allowed: true })],
    ['"true"', (_question, response) => json(response, { allow: 'true' })],
    ['1', (_question, response) => json(response, { allow: 1 })],
    ['a list', (_question, response) => json(response, [{ allow: true }])],
    ['a ttl_s that is no number', (_question, response) => json(response, { allow: true, ttl_s: '5' })],
    ['a redirect', (_question, response) => response.writeHead(307, { location: hook.url }).end()],
    ['a cut', (_question, response) => response.destroy()],
  ];

  it.each(malformed)('refuses where the answer is %s, and does not keep that', async (_what, decision) => {
    const client = await gateway.as(fresh('user'));
    const send = { type: 'direct_message', target_user: fresh('target'), content: 1 };
    decide = decision;
    expect(outcome(await client.request(send))).toBe('forbidden');
    decide = allow();
    expect(outcome(await client.request(send))).toBe('ack');
  });

  it('refuses after 2 s without an answer, and holds up nobody else', async () => {
    const [client, other] = [await gateway.as(fresh('user')), await gateway.as(fresh('other'))];
    decide = ({ channel }, response) => {
      if (channel === 'broadcast') json(response, { allow: true });
    };
    const began = performance.now();
    const slow = client.request({ type: 'direct_message', target_user: fresh('target'), content: 1 });
    expect(outcome(await other.request({ type: 'chat', content: 1 }))).toBe('ack');
    expect(performance.now() - began).toBeLessThan(1_500);
    expect(outcome(await slow)).toBe('forbidden');
    expect(performance.now() - began).toBeGreaterThan(1_900);
    expect(performance.now() - began).toBeLessThan(4_000);
  });

  it('while it does not answer, each message still is answered within 5 s', async () => {
    const client = await gateway.as(fresh('user'));
    decide = ({ channel }, response) => {
      if (channel === 'broadcast') json(response, { allow: true });
    };
    const began = performance.now();
    const sent = Array.from({ length: 4 }, () =>
      client.request({ type: 'direct_message', target_user: fresh('target'), content: 1 }, 15_000),
    );
    sent.push(client.request({ type: 'chat', content: 1 }, 15_000));
    const tookMs = await Promise.all(sent.map(async (reply) => reply.then(() => performance.now() - began)));
    expect(Math.max(...tookMs)).toBeLessThan(5_000);
  });

  it('keeps the order of messages while it is asked', async () => {
    const room = fresh('room');
    const rooms = { join: ['*'] };
    const [writer, reader] = [
      await gateway.bearing(token(fresh('writer'), { rooms })),
      await gateway.bearing(token(fresh('reader'), { rooms })),
    ];
    for (const client of [writer, reader]) await client.request({ type: 'join_room', room });
    const waiting: ServerResponse[] = [];
    decide = (_question, response) => waiting.push(response);
    const first = Array.from({ length: 20 }, (_value, index) => index);
    for (const content of first) writer.send({ type: 'room_message', room, content });
    await eventually(() => {
      expect(waiting).toHaveLength(1);
    });
    // Kept for the next ones: they must not overtake those that wait.
    for (const response of waiting) json(response, { allow: true });
    for (let content = 20; content < 40; content += 1) {
      writer.send({ type: 'room_message', room, content });
    }
    const events = await reader.take('chat', 40);
    expect(events.map(({ content }) => content)).toEqual(Array.from({ length: 40 }, (_value, at) => at));
  });

  it('lets a message for a room wait for the join before it that is being asked about', async () => {
    const room = fresh('room');
    const client = await gateway.as(fresh('user'));
    const waiting: ServerResponse[] = [];
    decide = ({ action }, response) => {
      if (action === 'join') waiting.push(response);
      else json(response, { allow: true });
    };
    const joined = client.request({ type: 'join_room', room });
    const sent = client.request({ type: 'room_message', room, content: 1 });
    await eventually(() => {
      expect(waiting).toHaveLength(1);
    });
    for (const response of waiting) json(response, { allow: true });
    expect([outcome(await joined), outcome(await sent)]).toEqual(['joined_room', 'ack']);
    expect(await client.next('chat')).toMatchObject({ content: 1 });
  });

  it('is asked again on a resume', async () => {
    const room = fresh('room');
    const client = await gateway.as(fresh('user'));
    const { last_event_id: id, epoch } = await client.request({ type: 'join_room', room });
    await client.cut();
    decide = (_question, response) => json(response, { allow: false, ttl_s: 0 });
    const back = await gateway.as(client.userId);
    const resume = { type: 'join_room', room, last_event_id: id, epoch };
    expect(outcome(await back.request(resume))).toBe('forbidden');
    decide = allow(0);
    expect(outcome(await back.request(resume))).toBe('joined_room');
  });

  it('is asked again after auth, and what it no longer allows is left', async () => {
    const [user, stays, goes, placed] = [fresh('user'), fresh('stays'), fresh('goes'), fresh('placed')];
    const client = await gateway.bearing(token(user));
    for (const room of [stays, goes]) await client.request({ type: 'join_room', room });
    await new Api(() => gateway).ok('PUT', `/users/${user}/rooms/${placed}`);
    await client.next('joined_room');
    decide = ({ channel }, response) => json(response, { allow: channel === `room:${stays}`, ttl_s: 0 });
    asked = [];
    expect(await client.request({ type: 'auth', token: token(user) })).toMatchObject({ event: 'ack' });
    expect(await client.next('left_room')).toEqual({ event: 'left_room', room: goes });
    expect(client.unread('left_room')).toEqual([]);
    expect(new Set(asked.map(({ channel }) => channel))).toEqual(new Set([`room:${stays}`, `room:${goes}`]));
    const connections = await new Api(() => gateway).ok('GET', `/users/${user}`);
    expect(connections).toMatchObject({
      connections: [{ rooms: expect.arrayContaining([stays, placed]) as string[] }],
    });
  });

  it('a connection that goes while it is asked joins nothing', async () => {
    const room = fresh('room');
    const client = await gateway.as(fresh('user'));
    const waiting: ServerResponse[] = [];
    decide = (_question, response) => waiting.push(response);
    client.send({ type: 'join_room', room });
    await eventually(() => {
      expect(waiting).toHaveLength(1);
    });
    await client.cut();
    for (const response of waiting) json(response, { allow: true });
    const other = await gateway.as(fresh('other'));
    decide = allow(0);
    await other.request({ type: 'join_room', room });
    const api = new Api(() => gateway);
    expect(await api.ok('GET', `/rooms/${room}`)).toMatchObject({ members: 1, connections: 1 });
  });
});
