import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { number, type Client, type Message } from '../support/client.js';
import { eventually } from '../support/eventually.js';
import { serve } from '../support/gateway.js';
import { stats } from '../support/http.js';
import { fresh } from '../support/names.js';

const refused = (status: number): object => ({ status, body: { statusCode: status } });

describe('the rate limit', () => {
  const gateway = serve({ RATE_LIMIT_PER_SECOND: '2', RATE_LIMIT_BURST: '10' });

  it('lets a burst through, then answers rate_limited with the time to wait', async () => {
    const client = await gateway().connect();
    const replies = await Promise.all(Array.from({ length: 15 }, () => client.request({ type: 'ping' })));
    const outcomes = replies.map((reply) => reply['code'] ?? reply.event);
    expect(outcomes.slice(0, 10)).toEqual(Array(10).fill('pong'));
    expect(outcomes.slice(10)).toEqual(Array(5).fill('rate_limited'));
    const wait = number(replies[14] ?? {}, 'retry_after_ms');
    expect(wait).toBeGreaterThan(0);
    expect(wait).toBeLessThanOrEqual(1_000);
    await pause(wait);
    expect(await client.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
  });

  it.each([
    ['no JSON', '{'],
    ['no message', '[]'],
    ['an unknown type', '{"type":"nope"}'],
    ['wrong fields', '{"type":"join_room"}'],
    ['pong', '{"type":"pong"}'],
  ])('counts %s', async (_name, frame) => {
    const client = await gateway().connect();
    for (let index = 0; index < 10; index += 1) client.send(frame);
    expect(await client.request({ type: 'ping' })).toMatchObject({ event: 'error', code: 'rate_limited' });
  });

  it('drops what it refuses', async () => {
    const [alice, bob] = (await Promise.all([gateway().as('alice'), gateway().as('bob')])) as [
      Client,
      Client,
    ];
    const replies = await Promise.all(
      Array.from({ length: 12 }, (_value, content) => alice.request({ type: 'chat', content })),
    );
    expect(replies.filter((reply) => reply['code'] === 'rate_limited')).toHaveLength(2);
    const events = await bob.take('chat', 10);
    expect(events.map((event) => event['content'])).toEqual(
      Array.from({ length: 10 }, (_value, index) => index),
    );
    expect(await bob.settled('chat')).toEqual([]);
  });

  it('is counted for each connection', async () => {
    const [one, other] = (await Promise.all([gateway().as('same'), gateway().as('same')])) as [
      Client,
      Client,
    ];
    await Promise.all(Array.from({ length: 12 }, () => one.request({ type: 'ping' })));
    expect(await other.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
  });

  it('closes with 4029 who is over it for 10 s without a pause', { timeout: 25_000 }, async () => {
    const client = await gateway().connect();
    const flood = setInterval(() => {
      for (let index = 0; index < 5; index += 1) client.send({ type: 'ping' });
    }, 50);
    const began = performance.now();
    const { code } = await client.closed;
    clearInterval(flood);
    expect(code).toBe(4029);
    expect(performance.now() - began).toBeGreaterThan(9_500);
  });
});

describe('RATE_LIMIT_PER_SECOND=0', () => {
  const gateway = serve({ RATE_LIMIT_PER_SECOND: '0', RATE_LIMIT_BURST: '1' });

  it('is no limit', async () => {
    const client = await gateway().connect();
    const replies = await Promise.all(Array.from({ length: 1_000 }, () => client.request({ type: 'ping' })));
    expect(replies.filter((reply) => reply.event !== 'pong')).toEqual([]);
  });
});

describe('MAX_ROOMS_PER_CONNECTION', () => {
  const gateway = serve({ MAX_ROOMS_PER_CONNECTION: '3' });

  it('bounds the rooms of one connection at a time', async () => {
    const user = fresh('user');
    const [client, tab] = (await Promise.all([gateway().as(user), gateway().as(user)])) as [Client, Client];
    const rooms = [fresh('a'), fresh('b'), fresh('c'), fresh('d')] as [string, string, string, string];
    const join = (on: Client, room: string): Promise<Message> => on.request({ type: 'join_room', room });
    for (const room of rooms.slice(0, 3))
      expect(await join(client, room)).toMatchObject({ event: 'joined_room' });
    expect(await join(client, rooms[3])).toMatchObject({ event: 'error', code: 'too_many_rooms' });
    expect(await client.request({ type: 'room_message', room: rooms[3], content: 1 })).toMatchObject({
      code: 'not_in_room',
    });
    expect(await join(client, rooms[0])).toMatchObject({ event: 'joined_room' });
    expect(await join(tab, rooms[3])).toMatchObject({ event: 'joined_room' });
    await client.request({ type: 'leave_room', room: rooms[0] });
    expect(await join(client, rooms[3])).toMatchObject({ event: 'joined_room' });
  });

  it('counts joins that are sent in one go', async () => {
    const client = await gateway().connect();
    const replies = await Promise.all(
      Array.from({ length: 10 }, () => client.request({ type: 'join_room', room: fresh('room') })),
    );
    expect(replies.filter((reply) => reply.event === 'joined_room')).toHaveLength(3);
    expect(replies.filter((reply) => reply['code'] === 'too_many_rooms')).toHaveLength(7);
  });
});

describe('MAX_CONNECTIONS', () => {
  const gateway = serve({ MAX_CONNECTIONS: '3' });

  it('holds against many at once, and is free again afterwards', async () => {
    const attempts = await Promise.allSettled(Array.from({ length: 10 }, () => gateway().connect()));
    expect(attempts.filter((attempt) => attempt.status === 'fulfilled')).toHaveLength(3);
    expect(await gateway().refused()).toMatchObject(refused(503));
    expect((await stats(gateway().url)).local_connections).toBe(3);
    for (const attempt of attempts) {
      if (attempt.status === 'fulfilled') await attempt.value.close();
    }
    const again = await eventually(() => gateway().connect());
    expect(again.connected.event).toBe('connected');
  });

  it('does not count who was refused', async () => {
    for (let index = 0; index < 5; index += 1) {
      expect(await gateway().refused('/ws/%00')).toMatchObject(refused(400));
      expect(await gateway().refused('/nope')).toMatchObject(refused(404));
    }
    const clients: Client[] = [];
    while (clients.length < 3) clients.push(await eventually(() => gateway().connect()));
    expect((await stats(gateway().url)).local_connections).toBe(3);
  });
});

describe('MAX_CONNECTIONS_PER_USER', () => {
  const gateway = serve({ MAX_CONNECTIONS_PER_USER: '2' });

  it('holds for each user, however they come in, and is free again afterwards', async () => {
    const user = fresh('user');
    const attempts = await Promise.allSettled([
      ...Array.from({ length: 4 }, () => gateway().as(user)),
      ...Array.from({ length: 4 }, () => gateway().connect(`/ws/${user}`)),
    ]);
    const clients = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
    expect(clients).toHaveLength(2);
    expect(await gateway().refused(`/ws/${user}`)).toMatchObject(refused(429));
    expect((await gateway().as(fresh('other'))).connected.event).toBe('connected');
    await clients[0]?.close();
    const again = await eventually(() => gateway().as(user));
    expect(again.userId).toBe(user);
  });
});

describe('MAX_CONNECTIONS_PER_IP', () => {
  const direct = serve({ MAX_CONNECTIONS_PER_IP: '1' });
  const proxied = serve({ MAX_CONNECTIONS_PER_IP: '1', TRUST_PROXY: '1' });
  const from = (addresses: string): { headers: Record<string, string> } => ({
    headers: { 'x-forwarded-for': addresses },
  });

  it('counts the address of the socket, not what a header claims', async () => {
    await direct().connect();
    expect(await direct().refused()).toMatchObject(refused(429));
    expect(await direct().refused('/ws', from('203.0.113.7'))).toMatchObject(refused(429));
  });

  it('with TRUST_PROXY=1 counts the address that the proxy names', async () => {
    await proxied().connect('/ws', from('203.0.113.7'));
    expect(await proxied().refused('/ws', from('203.0.113.7'))).toMatchObject(refused(429));
    expect((await proxied().connect('/ws', from('203.0.113.8'))).connected.event).toBe('connected');
  });

  it('with TRUST_PROXY=1 believes no address before the last one', async () => {
    await proxied().connect('/ws', from('198.51.100.1, 203.0.113.9'));
    expect(await proxied().refused('/ws', from('198.51.100.2, 203.0.113.9'))).toMatchObject(refused(429));
  });
});

describe('MAX_MESSAGE_BYTES', () => {
  const gateway = serve({ MAX_MESSAGE_BYTES: '1000' });
  const sized = (bytes: number): string => `{"type":"ping","x":"${'x'.repeat(bytes - 22)}"}`;

  it('is told to the client, holds to the byte and closes with 1009', async () => {
    const client = await gateway().connect();
    expect(client.connected['max_message_bytes']).toBe(1000);
    expect(sized(1000)).toHaveLength(1000);
    client.send(sized(1000));
    expect(await client.next('pong')).toMatchObject({ event: 'pong' });
    client.send(sized(1001));
    expect((await client.closed).code).toBe(1009);
  });
});

describe.each(['ring', 'batch', 'direct', 'stream'])(
  'SLOW_CONSUMER_BYTES, with SOCKET_WRITES=%s',
  (writes) => {
    const gateway = serve({
      SLOW_CONSUMER_BYTES: '524288',
      RATE_LIMIT_PER_SECOND: '0',
      SOCKET_WRITES: writes,
    });
    const content = 'x'.repeat(60_000);
    // More than the kernel holds for a loopback connection, and not much more: whoever is found slow has a few
    // seconds to read the rest and the close frame.
    const rounds = Array.from({ length: Math.ceil((sendBufferBytes() + 4_500_000) / 300_000) }, () => [
      1, 2, 3, 4, 5,
    ]);

    it('closes with 4008 who does not read, and nobody else', { timeout: 30_000 }, async () => {
      const room = fresh('room');
      const [writer, reader, slow] = (await Promise.all(
        ['writer', 'reader', 'slow'].map((name) => gateway().as(fresh(name))),
      )) as [Client, Client, Client];
      for (const client of [writer, reader, slow]) await client.request({ type: 'join_room', room });
      slow.pause();
      for (const round of rounds) {
        const acks = await Promise.all(
          round.map(() => writer.request({ type: 'room_message', room, content })),
        );
        expect(acks.map((ack) => ack.event)).toEqual(Array(5).fill('ack'));
      }
      slow.resume();
      expect((await slow.closed).code).toBe(4008);
      expect(await reader.take('chat', rounds.length * 5)).toHaveLength(rounds.length * 5);
      expect(await reader.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
    });

    it('does not wait for who never reads again', { timeout: 30_000 }, async () => {
      const [writer, deaf] = (await Promise.all(
        ['writer', 'deaf'].map((name) => gateway().as(fresh(name))),
      )) as [Client, Client];
      deaf.pause();
      for (const round of rounds)
        await Promise.all(round.map(() => writer.request({ type: 'chat', content })));
      await eventually(
        async () => {
          expect((await stats(gateway().url)).local_connections).toBe(1);
        },
        { timeoutMs: 10_000 },
      );
      expect(await writer.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
    });
  },
);

/** How far the kernel lets the send buffer of a connection grow. */
function sendBufferBytes(): number {
  const file = '/proc/sys/net/ipv4/tcp_wmem';
  return existsSync(file) ? Number(readFileSync(file, 'utf8').trim().split(/\s+/)[2]) : 4_194_304;
}
