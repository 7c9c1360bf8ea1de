import { describe, expect, it } from 'vitest';
import { Checker } from '../support/checker.js';
import { notice, number, text, type Client, type Message } from '../support/client.js';
import { serveCluster } from '../support/cluster.js';
import { eventually } from '../support/eventually.js';
import { stats } from '../support/http.js';
import { fresh } from '../support/names.js';
import { secret, token } from '../support/tokens.js';
import { chatTutorial, textTutorial } from '../support/tutorials.js';

const outcome = (reply: Message): unknown => reply['code'] ?? reply.event;

describe('two instances with one Redis', () => {
  const cluster = serveCluster({ PRESENCE_GRACE_MS: '300' });

  async function pair(): Promise<{ alice: Client; bob: Client }> {
    const [alice, bob] = await Promise.all([
      cluster().one.as(fresh('alice')),
      cluster().other.as(fresh('bob')),
    ]);
    return { alice, bob };
  }

  async function members(room: string): Promise<{ alice: Client; bob: Client }> {
    const both = await pair();
    for (const client of [both.alice, both.bob]) {
      expect(await client.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
    }
    return both;
  }

  it('carry a room message to members everywhere, and to nobody else', async () => {
    const room = fresh('room');
    const { alice, bob } = await members(room);
    const outsider = await cluster().other.as(fresh('outsider'));
    const ack = await alice.request({ type: 'room_message', room, content: { text: 'hi' } });
    for (const reader of [alice, bob]) {
      expect(await reader.next('chat')).toMatchObject({
        from: alice.userId,
        room,
        content: { text: 'hi' },
        id: ack['id'],
      });
    }
    // On one instance, room and direct events of one Redis connection come in order.
    await alice.request({ type: 'direct_message', target_user: outsider.userId, content: 'marker' });
    expect(await outsider.next('chat')).toMatchObject({ content: 'marker' });
    expect(outsider.unread('chat')).toEqual([]);
  });

  it('let a leave and a join wait for what was sent to the room before, though the first join is not answered yet', async () => {
    const { one, other } = cluster();
    for (const place of [one, other]) {
      const room = fresh('room');
      const witness = await place.as(fresh('bob'));
      await witness.request({ type: 'join_room', room });
      const alice = await one.as(fresh('alice'));
      alice.send({ type: 'join_room', room });
      for (const content of [1, 2]) alice.send({ type: 'room_message', room, content, ref: content });
      alice.send({ type: 'leave_room', room });
      alice.send({ type: 'join_room', room, ref: 'again' });
      const again = await alice.next((message) => message['ref'] === 'again');
      const seen = alice.all.filter(({ event = '' }) => ['chat', 'joined_room', 'left_room'].includes(event));
      expect(seen.map(({ event, content }) => content ?? event)).toEqual([
        'joined_room',
        1,
        2,
        'left_room',
        'joined_room',
      ]);
      expect(again['last_event_id']).toBe(2);
      await witness.next(notice('user_left', alice.userId, room));
      const order = witness.all.filter(
        ({ event, user_id: user }) =>
          event === 'chat' || (user === alice.userId && event !== 'user_connected'),
      );
      expect(order.map(({ event, content }) => content ?? event).slice(0, 4)).toEqual([
        'user_joined',
        1,
        2,
        'user_left',
      ]);
    }
  });

  it('carry a direct message to every connection of its user', async () => {
    const { alice, bob } = await pair();
    const tab = await cluster().one.as(bob.userId);
    const ack = await alice.request({ type: 'direct_message', target_user: bob.userId, content: 'psst' });
    for (const reader of [bob, tab]) {
      expect(await reader.next('chat')).toMatchObject({
        from: alice.userId,
        direct: true,
        content: 'psst',
        id: ack['id'],
      });
    }
  });

  it('carry a broadcast to everyone but the sending connection', async () => {
    const { alice, bob } = await pair();
    const tab = await cluster().other.as(alice.userId);
    const ack = await alice.request({ type: 'chat', content: 'hello' });
    for (const reader of [bob, tab]) {
      expect(await reader.next('chat')).toMatchObject({
        from: alice.userId,
        content: 'hello',
        id: ack['id'],
      });
    }
    const marker = await bob.request({ type: 'chat', content: 'marker' });
    const seen = await alice.next('chat');
    expect(seen).toMatchObject({ content: 'marker', id: marker['id'] });
    expect(number(seen, 'id')).toBeGreaterThan(number(ack, 'id'));
  });

  it('carry plain text', async () => {
    const writer = await cluster().one.connect(`/ws/${fresh('writer')}`);
    const reader = await cluster().other.connect();
    writer.send('hello');
    for (const client of [writer, reader]) {
      expect(await client.next('text')).toMatchObject({ sender: writer.userId, text: 'hello' });
    }
  });

  it('agree on ids, epochs and positions', async () => {
    const room = fresh('room');
    const { alice, bob } = await pair();
    expect(alice.connected['epoch']).toBe(bob.connected['epoch']);
    expect(text(alice.connected, 'instance')).not.toBe(text(bob.connected, 'instance'));
    const first = await alice.request({ type: 'join_room', room });
    const { id } = await alice.request({ type: 'room_message', room, content: 1 });
    const second = await bob.request({ type: 'join_room', room });
    expect(first).toMatchObject({ last_event_id: 0 });
    expect(second).toMatchObject({ last_event_id: id, recovered: false, replayed: 0 });
    await bob.request({ type: 'room_message', room, content: 2 });
    const late = await cluster().one.as(fresh('late'));
    expect(await late.request({ type: 'join_room', room })).toMatchObject({
      last_event_id: number({ id }, 'id') + 1,
      epoch: second['epoch'],
    });
  });

  it('know a message_id that the other one has published', async () => {
    const room = fresh('room');
    const { alice, bob } = await members(room);
    const tab = await cluster().other.as(alice.userId);
    await tab.request({ type: 'join_room', room });
    const message = { type: 'room_message', room, content: 1, message_id: '}{:*' };
    const acks = await Promise.all([alice, tab, alice, tab].map((client) => client.request(message)));
    expect(acks.map((ack) => ack['id'])).toEqual([1, 1, 1, 1]);
    expect(acks.filter((ack) => ack['duplicate'] !== true)).toHaveLength(1);
    const marker = await bob.request({ type: 'room_message', room, content: 'marker' });
    expect(marker).toMatchObject({ id: 2 });
    const events = await bob.take('chat', 2);
    expect(events.map((event) => event['content'])).toEqual([1, 'marker']);
  });

  it('announce a user once, at the first connection and after the last one', async () => {
    const observer = await cluster().one.as(fresh('observer'));
    const user = fresh('user');
    const tabs = await Promise.all([
      cluster().one.as(user),
      cluster().other.as(user),
      cluster().other.as(user),
    ]);
    await observer.next(notice('user_connected', user));
    for (const tab of tabs) await tab.cut();
    await observer.next(notice('user_disconnected', user));
    const marker = await cluster().other.as(fresh('marker'));
    await observer.next(notice('user_connected', marker.userId));
    await marker.close();
    await observer.next(notice('user_disconnected', marker.userId));
    const news = observer.all
      .filter((message) => message['user_id'] === user)
      .map((message) => message.event);
    expect(news).toEqual(['user_connected', 'user_disconnected']);
    for (const tab of tabs) expect(tab.all.filter(notice('user_connected', user))).toEqual([]);
  });

  it('announce a member once, over all instances', async () => {
    const room = fresh('room');
    const { alice, bob } = await members(room);
    expect(await alice.next(notice('user_joined', bob.userId))).toMatchObject({ room });
    const tab = await cluster().one.as(bob.userId);
    await tab.request({ type: 'join_room', room });
    await tab.request({ type: 'leave_room', room });
    await bob.request({ type: 'leave_room', room });
    expect(await alice.next(notice('user_left', bob.userId))).toMatchObject({ room });
    const marker = await cluster().other.as(fresh('marker'));
    await marker.request({ type: 'join_room', room });
    await alice.next(notice('user_joined', marker.userId));
    const news = alice.all.filter((message) => message['user_id'] === bob.userId && message['room'] === room);
    expect(news.map((message) => message.event)).toEqual(['user_joined', 'user_left']);
  });

  it('list the members of both', async () => {
    const room = fresh('room');
    const { alice, bob } = await members(room);
    const tab = await cluster().one.as(bob.userId);
    await tab.request({ type: 'join_room', room });
    for (const client of [alice, bob]) {
      const reply = await client.request({ type: 'presence', room });
      expect(reply).toMatchObject({ event: 'presence', room, count: 2 });
      const listed = reply['members'] as { user_id: string; connections: number }[];
      const connections = new Map(listed.map((member) => [member.user_id, member.connections]));
      expect(connections).toEqual(
        new Map([
          [alice.userId, 1],
          [bob.userId, 2],
        ]),
      );
    }
  });

  it('lose, double and misorder nothing of some thousands of messages', { timeout: 60_000 }, async () => {
    const checker = new Checker();
    const room = fresh('room');
    const target = await cluster().other.as(fresh('target'));
    const clients = await Promise.all(
      Array.from({ length: 6 }, (_value, index) => cluster().gateways[index % 2]?.as(fresh('client'))),
    );
    const writers = clients.filter((client) => client !== undefined);
    const outsider = await cluster().one.as(fresh('outsider'));
    for (const client of writers) {
      await client.request({ type: 'join_room', room });
      checker.follow(client, `room:${room}`);
      checker.follow(client, 'broadcast', { except: client.userId });
    }
    checker.follow(target, `user:${target.userId}`);
    checker.follow(outsider, `room:${room}`, { isEntitled: false });
    const kinds = [
      { channel: `room:${room}`, fields: { type: 'room_message', room } },
      { channel: 'broadcast', fields: { type: 'chat' } },
      { channel: `user:${target.userId}`, fields: { type: 'direct_message', target_user: target.userId } },
    ];
    const publish = async (client: Client, { channel, fields }: (typeof kinds)[number]): Promise<void> => {
      const content = checker.attempt(client.userId, channel);
      expect(outcome(await client.request({ ...fields, content }, 30_000))).toBe('ack');
      checker.acknowledged(channel, content);
    };
    for (let round = 0; round < 10; round += 1) {
      await Promise.all(
        writers.flatMap((client) =>
          kinds.flatMap((kind) => Array.from({ length: 20 }, () => publish(client, kind))),
        ),
      );
    }
    const messages = 10 * 20 * writers.length;
    const expected = messages * writers.length + messages * (writers.length - 1) + messages;
    await eventually(
      () => {
        expect(checker.deliveries).toBe(expected);
      },
      { timeoutMs: 20_000 },
    );
    expect(checker.verdict()).toEqual({ lost: [], doubled: [], misordered: [], ghosts: [], leaks: [] });
  });
});

describe('the tutorials over two instances', () => {
  const cluster = serveCluster({ PRESENCE_GRACE_MS: '0', JWT_SECRET: secret });

  it('chat: anonymous users, rooms and direct messages, and nothing is left behind', async () => {
    await chatTutorial(cluster().one, cluster().other);
    expect((await stats(cluster().one.url)).cluster).toMatchObject({ connections: 0, instances: 2 });
  });

  it('text: plain text from /ws/:userId and a token on /ws/secure', async () => {
    await textTutorial(cluster().one, cluster().other, token('admin'));
    expect((await stats(cluster().other.url)).cluster).toMatchObject({ connections: 0, instances: 2 });
  });
});

describe('REDIS_PREFIX', () => {
  const cluster = serveCluster({ REDIS_PREFIX: 'mine.own' });

  it('stands before every key and channel', async () => {
    const room = fresh('room');
    const client = await cluster().one.as(fresh('alice'));
    await client.request({ type: 'join_room', room });
    await client.request({ type: 'room_message', room, content: 1, message_id: 'm' });
    await client.request({ type: 'chat', content: 1 });
    const keys = await cluster().redis.keys('*');
    const channels = await cluster().redis.subscriptions('*');
    expect(keys.length).toBeGreaterThan(0);
    expect(channels.length).toBeGreaterThan(0);
    expect([...keys, ...channels].filter((name) => !name.startsWith('mine.own:'))).toEqual([]);
  });
});

describe('foreign messages on our Redis channels', () => {
  const cluster = serveCluster();

  it('are dropped, and what follows is delivered', async () => {
    const room = fresh('room');
    const alice = await cluster().one.as(fresh('alice'));
    const bob = await cluster().other.as(fresh('bob'));
    for (const client of [alice, bob]) await client.request({ type: 'join_room', room });
    const garbage = [
      '',
      'garbage',
      '{}',
      'null',
      '\u0000\u0001\u0002',
      '{"event":"chat","content":"foreign"}',
      'x'.repeat(1_000_000),
    ];
    for (const channel of await cluster().redis.subscriptions('*')) {
      for (const payload of garbage) await cluster().redis.commands.publish(channel, payload);
    }
    await alice.request({ type: 'room_message', room, content: 'ours' });
    expect(await bob.next('chat')).toMatchObject({ content: 'ours', id: 1 });
    const known = /^(connected|joined_room|user_connected|user_joined|ack|chat)$/;
    for (const client of [alice, bob]) {
      expect(
        client.all.filter((message) => message.type !== 'ping' && !known.test(message.event ?? '')),
      ).toEqual([]);
      expect(client.all.filter((message) => message['content'] === 'foreign')).toEqual([]);
    }
    expect(cluster().gateways.every((gateway) => gateway.isRunning)).toBe(true);
  });
});
