import { execFile, spawn, type ChildProcessByStdio } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Cluster } from 'ioredis';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { tracked, type Exit } from '../support/child.js';
import { number, type Client, type Message } from '../support/client.js';
import { serveCluster } from '../support/cluster.js';
import { eventually, within } from '../support/eventually.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { Gateway } from '../support/gateway.js';
import { status } from '../support/http.js';
import { fresh } from '../support/names.js';
import type { RedisServer } from '../support/redis-server.js';
import { startRedisCluster } from '../support/redis-topologies.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const stream = 'inbound: of {all} clients';
const apiKey = 'a-key-of-a-backend';

type Entry = Record<string, string>;

async function entries(redis: RedisServer, key: string): Promise<Entry[]> {
  const rows = await redis.commands.xrange(key, '-', '+');
  return rows.map(([, values]) => {
    const entry: Entry = {};
    for (let at = 0; at < values.length; at += 2) entry[values[at] ?? ''] = values[at + 1] ?? '';
    return entry;
  });
}

async function entriesOf(redis: RedisServer, channel: string, key = stream): Promise<Entry[]> {
  return (await entries(redis, key)).filter((entry) => entry['channel'] === channel);
}

async function start(settings: Record<string, string>): Promise<Gateway> {
  const gateway = await Gateway.start(settings);
  await eventually(async () => expect(await status(`${gateway.url}/health/ready`)).toBe(200), {
    timeoutMs: 10_000,
  });
  return gateway;
}

async function join(client: Client, room: string): Promise<void> {
  expect(await client.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
}

describe('the inbound stream', () => {
  const cluster = serveCluster({ INBOUND_STREAM: stream, API_KEYS: apiKey, PRESENCE_GRACE_MS: '0' });

  it('has every message that clients publish, with exactly the fields of the contract', async () => {
    const { one, other, redis } = cluster();
    const room = fresh('room');
    const [alice, bob] = await Promise.all([one.as(fresh('alice {1} 🎺')), other.as(fresh('bob'))]);
    await join(alice, room);
    await join(bob, room);
    const content = { list: [1, 2.5, null, 'é🎺"\\'], nested: { deep: true } };
    const sent: [object, channel: string][] = [
      [{ type: 'room_message', room, content, event: 'order', message_id: 'm 1' }, `room:${room}`],
      [{ type: 'chat', room, content: null }, `room:${room}`],
      [{ type: 'chat', content: 'to all' }, 'broadcast'],
      [{ type: 'direct_message', target_user: bob.userId, content: 7 }, `user:${bob.userId}`],
    ];
    for (const [message, channel] of sent) {
      const ack = await alice.request(message);
      expect(ack).toMatchObject({ event: 'ack' });
      const fields = { event: 'chat', message_id: '', ...message } as Record<string, unknown>;
      const event = await bob.next((candidate) => candidate['from'] === alice.userId);
      // The answer came after both writes: the entry is there.
      expect((await entriesOf(redis, channel)).at(-1)).toEqual({
        user: alice.userId,
        connection: alice.connectionId,
        channel,
        event: fields['event'],
        content: JSON.stringify(fields['content']),
        message_id: fields['message_id'],
        id: String(number(ack, 'id')),
        epoch: expect.any(String),
        ts: String(number(event, 'ts')),
      });
    }
    const [last] = await redis.commands.xrevrange(stream, '+', '-', 'COUNT', 1);
    expect(last?.[1].filter((_, index) => index % 2 === 0)).toEqual([
      'user',
      'connection',
      'channel',
      'event',
      'content',
      'message_id',
      'id',
      'epoch',
      'ts',
    ]);
  });

  it('has plain text as the event text, with a JSON string', async () => {
    const { one, redis } = cluster();
    const name = fresh('writer');
    const writer = await one.connect(`/ws/${name}?frames=text`);
    writer.send('{"type": "chat"} says "hi" 🎺');
    const echo = await writer.next('text');
    // Nothing answers plain text, so its entry is waited for.
    await eventually(async () => {
      const found = (await entriesOf(redis, 'broadcast')).find(({ user }) => user === name);
      expect(found).toEqual({
        user: name,
        connection: writer.connectionId,
        channel: 'broadcast',
        event: 'text',
        content: JSON.stringify('{"type": "chat"} says "hi" 🎺'),
        message_id: '',
        id: String(number(echo, 'id')),
        epoch: expect.any(String),
        ts: String(number(echo, 'ts')),
      });
    });
  });

  it('has an entry for each of a burst from two instances, in the order of each channel', async () => {
    const { one, other, redis } = cluster();
    const room = fresh('room');
    const clients = await Promise.all([one.as(fresh('alice')), other.as(fresh('bob'))]);
    for (const client of clients) await join(client, room);
    const acks = await Promise.all(
      clients.flatMap((client) =>
        Array.from({ length: 300 }, (_, index) =>
          client.request({ type: 'room_message', room, content: index }, 15_000),
        ),
      ),
    );
    const found = await entriesOf(redis, `room:${room}`);
    expect(found).toHaveLength(600);
    expect(new Set(found.map(({ id }) => id))).toEqual(new Set(acks.map((ack) => String(ack['id']))));
    for (const client of clients) {
      const own = found.filter(({ user }) => user === client.userId);
      expect(own.map(({ content }) => Number(content))).toEqual(Array.from({ length: 300 }, (_, at) => at));
    }
  });

  it('tells a repeated message by the same channel and id', async () => {
    const { one, redis } = cluster();
    const room = fresh('room');
    const alice = await one.as(fresh('alice'));
    await join(alice, room);
    const message = { type: 'room_message', room, content: 1, message_id: 'twice' };
    const first = await alice.request(message);
    expect(await alice.request(message)).toMatchObject({ id: first['id'], duplicate: true });
    const found = await entriesOf(redis, `room:${room}`);
    expect(new Set(found.map(({ channel, id }) => `${channel} ${id}`))).toEqual(
      new Set([`room:${room} ${number(first, 'id')}`]),
    );
  });

  it('has nothing that was refused, and nothing that a backend published', async () => {
    const { one, redis } = cluster();
    const [room, unjoined] = [fresh('room'), fresh('room')];
    const alice = await one.as(fresh('alice'));
    await join(alice, room);
    expect(await alice.request({ type: 'room_message', room: unjoined, content: 1 })).toMatchObject({
      code: 'not_in_room',
    });
    expect(
      await alice.request({ type: 'room_message', room, content: 1, event: 'user_joined' }),
    ).toMatchObject({ code: 'invalid_message' });
    expect(await alice.request({ type: 'room_message', room })).toMatchObject({ code: 'invalid_message' });
    const response = await fetch(`${one.url}/api/v1/publish`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${apiKey}` },
      body: JSON.stringify({ channel: `room:${room}`, content: 1 }),
    });
    expect(response.status).toBe(200);
    await alice.next('chat');
    expect(await entriesOf(redis, `room:${room}`)).toEqual([]);
    expect(await entriesOf(redis, `room:${unjoined}`)).toEqual([]);
  });

  it('answers no ack for a message that workers will not get', async () => {
    const { redis } = cluster();
    const key = fresh('not-a-stream');
    await redis.commands.set(key, 'a string');
    const gateway = await start({ REDIS_URL: redis.url, REDIS_PREFIX: key, INBOUND_STREAM: key });
    try {
      const alice = await gateway.as('alice');
      const refusal = await alice.request({ type: 'direct_message', target_user: 'bob', content: 1 });
      expect(refusal).toMatchObject({ event: 'error', code: 'broker_unavailable' });
      await redis.commands.del(key);
      expect(await alice.request({ type: 'direct_message', target_user: 'bob', content: 2 })).toMatchObject({
        event: 'ack',
      });
      expect(await entries(redis, key)).toMatchObject([{ channel: 'user:bob', content: '2' }]);
    } finally {
      await gateway.close();
    }
  });

  it('has only the channels of INBOUND_CHANNELS, the ephemeral ones with an empty id', async () => {
    const { redis } = cluster();
    const key = fresh('patterns');
    const gateway = await start({
      REDIS_URL: redis.url,
      REDIS_PREFIX: key,
      INBOUND_STREAM: key,
      INBOUND_CHANNELS: 'room:orders:*, user:support',
      EPHEMERAL_CHANNELS: 'room:orders:cursor:*',
    });
    try {
      const alice = await gateway.as('alice');
      const rooms = ['orders:1', 'orders', 'my:orders:1', 'orders:cursor:1'];
      for (const room of rooms) {
        await join(alice, room);
        const message = { type: 'room_message', room, content: room, message_id: `of ${room}` };
        expect(await alice.request(message)).toMatchObject({ event: 'ack' });
      }
      for (const target_user of ['support', 'supporter'])
        await alice.request({ type: 'direct_message', target_user, content: target_user });
      await alice.request({ type: 'chat', content: 'to all' });
      expect(
        (await entries(redis, key)).map(({ channel, id, message_id }) => [channel, id, message_id]),
      ).toEqual([
        ['room:orders:1', '1', 'of orders:1'],
        ['room:orders:cursor:1', '', 'of orders:cursor:1'],
        ['user:support', '1', ''],
      ]);
    } finally {
      await gateway.close();
    }
  });

  it('refuses with broker_unavailable at INBOUND_MAXLEN, trims nothing, and goes on when there is room', async () => {
    const { redis } = cluster();
    const key = fresh('full');
    const settings = {
      REDIS_URL: redis.url,
      REDIS_PREFIX: key,
      INBOUND_STREAM: key,
      INBOUND_CHANNELS: 'room:*',
      INBOUND_MAXLEN: '10',
      RATE_LIMIT_PER_SECOND: '0',
    };
    const gateways = await Promise.all([start(settings), start(settings)]);
    try {
      const clients = await Promise.all(gateways.map((gateway, index) => gateway.as(`user-${index}`)));
      const [alice] = clients;
      if (alice === undefined) throw new Error('no client');
      for (const client of clients) await join(client, 'a');
      const say = (client: Client, content: number): Promise<Message> =>
        client.request({ type: 'room_message', room: 'a', content });
      for (let index = 0; index < 10; index += 1)
        expect(await say(alice, index)).toMatchObject({ event: 'ack' });
      for (const client of clients) {
        for (let index = 0; index < 3; index += 1)
          expect(await say(client, 100)).toMatchObject({ event: 'error', code: 'broker_unavailable' });
      }
      expect((await entries(redis, key)).map(({ content }) => Number(content))).toEqual([
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
      ]);
      // What workers need not hear of goes on.
      expect(await alice.request({ type: 'chat', content: 'to all' })).toMatchObject({ event: 'ack' });
      // An instance that knows publishes nothing that it refuses.
      await alice.fence();
      const refused = alice.all.filter((message) => message['content'] === 100);
      expect(refused.filter((message) => message['from'] === alice.userId)).toEqual([]);

      const [oldest] = await redis.commands.xrange(key, '-', '+', 'COUNT', 1);
      await redis.commands.xdel(key, oldest?.[0] ?? '');
      expect(await say(alice, 10)).toMatchObject({ event: 'ack' });
      expect(await say(alice, 11)).toMatchObject({ code: 'broker_unavailable' });
      await redis.commands.del(key);
      for (const client of clients) expect(await say(client, 12)).toMatchObject({ event: 'ack' });
      expect(await redis.commands.xlen(key)).toBe(2);
    } finally {
      await Promise.all(gateways.map((gateway) => gateway.close()));
    }
  });

  it('is one stream in a Redis Cluster too, whatever the slots of the channels', async () => {
    const topology = await startRedisCluster();
    const nodes = (topology.settings['REDIS_CLUSTER_NODES'] ?? '').split(',');
    const client = new Cluster(
      nodes.map((node) => ({ host: '127.0.0.1', port: Number(node.split(':')[1]) })),
    );
    const gateway = await start({ ...topology.settings, INBOUND_STREAM: stream });
    try {
      const alice = await gateway.as('alice');
      const users = Array.from({ length: 20 }, (_, index) => `user-${index}`);
      for (const target_user of users)
        expect(await alice.request({ type: 'direct_message', target_user, content: 1 })).toMatchObject({
          event: 'ack',
        });
      const rows = await client.xrange(stream, '-', '+');
      expect(rows.map(([, values]) => values[5])).toEqual(users.map((user) => `user:${user}`));
    } finally {
      await gateway.close();
      client.disconnect();
      await topology.dispose();
    }
  }, 60_000);

  it('needs Redis: without it the start fails and says why', async () => {
    const { exit, output } = await GatewayProcess.run({ INBOUND_STREAM: 'inbound', PORT: '0' });
    expect(exit.code).toBe(1);
    expect(output).toContain('INBOUND_STREAM needs Redis');
  });
});

/** examples/worker as it is documented: compiled, and run with nothing but its environment. */
class Worker {
  private static readonly all = new Set<Worker>();
  readonly lines: string[] = [];
  readonly exited: Promise<Exit>;
  private readonly watchers: ((line: string) => void)[] = [];
  private readonly child: ChildProcessByStdio<null, Readable, Readable>;
  private errors = '';

  constructor(environment: Record<string, string>) {
    this.child = spawn(process.execPath, ['examples/worker/dist/worker.js'], {
      cwd: root,
      env: { PATH: process.env['PATH'], FANFARE_API_KEY: apiKey, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.exited = tracked(this.child);
    Worker.all.add(this);
    this.child.stderr.on('data', (chunk: Buffer) => (this.errors += chunk.toString()));
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      this.lines.push(line);
      for (const watcher of this.watchers) watcher(line);
    });
  }

  static async build(): Promise<void> {
    await promisify(execFile)('node_modules/.bin/tsc', ['-p', 'examples/worker'], { cwd: root });
  }

  /** Ends those that a failed test has left. */
  static async endAll(): Promise<void> {
    await Promise.all([...Worker.all].map((worker) => worker.stop('SIGKILL')));
    Worker.all.clear();
  }

  get output(): string {
    return `${this.lines.join('\n')}\n${this.errors}`;
  }

  watch(watcher: (line: string) => void): void {
    this.watchers.push(watcher);
  }

  async saw(text: string, times = 1): Promise<void> {
    await eventually(
      () => {
        if (this.lines.filter((line) => line.includes(text)).length < times)
          throw new Error(`the worker has not said "${text}": ${this.output}`);
      },
      { timeoutMs: 20_000 },
    );
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  async stop(signal: NodeJS.Signals): Promise<Exit> {
    this.signal(signal);
    return within(this.exited, 10_000, () => `the worker does not end by ${signal}: ${this.output}`);
  }
}

describe('the example worker', () => {
  const cluster = serveCluster({
    INBOUND_STREAM: stream,
    API_KEYS: `${apiKey}:publish`,
    PRESENCE_GRACE_MS: '0',
  });

  beforeAll(() => Worker.build(), 60_000);
  afterEach(() => Worker.endAll());

  function environment(claimAfterMs = 30_000): Record<string, string> {
    const { redis, one } = cluster();
    return {
      REDIS_URL: redis.url,
      INBOUND_STREAM: stream,
      FANFARE_URL: one.url,
      WORKER_CLAIM_AFTER_MS: String(claimAfterMs),
    };
  }

  async function left(): Promise<{ entries: number; pending: number; consumers: number }> {
    const { redis } = cluster();
    const groups = (await redis.commands.xinfo('GROUPS', stream)) as (string | number)[][];
    const field = (name: string): number => Number(groups[0]?.[groups[0].indexOf(name) + 1]);
    return {
      entries: await redis.commands.xlen(stream),
      pending: field('pending'),
      consumers: field('consumers'),
    };
  }

  it('answers each message to its channel, leaves an empty stream, and ends by SIGTERM with what it began', async () => {
    const { one, other, redis } = cluster();
    const room = fresh('room');
    const [alice, bob] = await Promise.all([one.as(fresh('alice')), other.as(fresh('bob'))]);
    await join(alice, room);
    await join(bob, room);
    // Before there was a worker.
    const early = await alice.request({ type: 'room_message', room, content: { early: true } });
    const worker = new Worker(environment());
    const answer = await bob.next('answer', 20_000);
    expect(answer).toMatchObject({
      room,
      content: { to: alice.userId, of: String(number(early, 'id')), echo: { early: true } },
    });
    const direct = await bob.request({ type: 'direct_message', target_user: alice.userId, content: 'psst' });
    expect(await bob.next('answer')).toMatchObject({
      direct: true,
      content: { to: bob.userId, of: String(number(direct, 'id')), echo: 'psst' },
    });
    await redis.commands.xadd(stream, '*', 'what', 'no message of ours');
    await worker.saw('handled', 3);
    expect(await left()).toEqual({ entries: 0, pending: 0, consumers: 1 });

    for (let index = 0; index < 100; index += 1) alice.send({ type: 'room_message', room, content: index });
    await bob.take('answer', 10);
    expect(await worker.stop('SIGTERM')).toEqual({ code: 0, signal: null });
    await alice.fence();
    expect(await left()).toMatchObject({ pending: 0, consumers: 0 });
    const next = new Worker(environment());
    await bob.take('answer', 90, 20_000);
    await next.saw('handled', 1);
    expect(await next.stop('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(await left()).toEqual({ entries: 0, pending: 0, consumers: 0 });
    expect(await bob.settled('answer')).toEqual([]);
  }, 60_000);

  it('takes over what a dead consumer has read and not acknowledged', async () => {
    const { one, redis } = cluster();
    const room = fresh('room');
    const alice = await one.as(fresh('alice'));
    await join(alice, room);
    await redis.commands.del(stream);
    await redis.commands.xgroup('CREATE', stream, 'workers', '0', 'MKSTREAM');
    for (let index = 0; index < 120; index += 1)
      await alice.request({ type: 'room_message', room, content: index });
    const read = await redis.commands.call('XREADGROUP', 'GROUP', 'workers', 'dead', 'STREAMS', stream, '>');
    expect(JSON.stringify(read)).toContain(room);
    expect(await left()).toMatchObject({ pending: 120 });
    const worker = new Worker(environment(300));
    const answers = await alice.take('answer', 120, 20_000);
    expect(answers.map(({ content }) => (content as { echo: number }).echo)).toEqual(
      Array.from({ length: 120 }, (_, index) => index),
    );
    await worker.saw('handled', 120);
    expect(await worker.stop('SIGINT')).toEqual({ code: 0, signal: null });
    expect(await left()).toMatchObject({ entries: 0, pending: 0 });
  }, 60_000);

  it('ends with 1 and acknowledges nothing where the key is wrong', async () => {
    const { one } = cluster();
    const alice = await one.as(fresh('alice'));
    await alice.request({ type: 'direct_message', target_user: alice.userId, content: 1 });
    const worker = new Worker({ ...environment(), FANFARE_API_KEY: 'wrong' });
    const exit = await within(worker.exited, 20_000, () => `the worker goes on: ${worker.output}`);
    expect(exit.code).toBe(1);
    expect(worker.output).toContain('FANFARE_API_KEY');
    expect(await left()).toMatchObject({ entries: 1, pending: 1 });
    const good = new Worker(environment(300));
    expect(await alice.next('answer', 20_000)).toMatchObject({ content: { echo: 1 } });
    await good.saw('handled');
    await good.stop('SIGTERM');
  }, 60_000);

  it('handles each of 2,000 messages at least once and answers each exactly once, killed at random', async () => {
    const { one, other } = cluster();
    const rooms = Array.from({ length: 20 }, () => fresh('room'));
    const [alice, bob] = await Promise.all([one.as(fresh('alice')), other.as(fresh('bob'))]);
    for (const room of rooms) {
      await join(alice, room);
      await join(bob, room);
    }
    const answered = new Map<string, number>();
    bob.watch(({ event, room, content }) => {
      if (event !== 'answer') return;
      const name = `${String(room)} ${(content as { of: string }).of}`;
      answered.set(name, (answered.get(name) ?? 0) + 1);
    });
    const handled = new Map<string, number>();
    let kills = 0;
    let untilKill = 50;
    let isOver = false;
    const workers: Worker[] = [];
    const hire = (place: number): void => {
      const worker = new Worker(environment(1_500));
      workers[place] = worker;
      worker.watch((line) => {
        const [verb, , channel, id] = line.split(' ');
        if (verb !== 'handled') return;
        const name = `${channel?.slice(5)} ${id}`;
        handled.set(name, (handled.get(name) ?? 0) + 1);
        untilKill -= 1;
        if (untilKill > 0 || isOver) return;
        untilKill = 20 + Math.floor(Math.random() * 120);
        kills += 1;
        workers[Math.floor(Math.random() * workers.length)]?.signal('SIGKILL');
      });
      void worker.exited.then(() => {
        if (!isOver) hire(place);
      });
    };
    hire(0);
    hire(1);
    const acks = await Promise.all(
      Array.from({ length: 2_000 }, async (_, index) => {
        const room = rooms[index % rooms.length] ?? '';
        const ack = await alice.request({ type: 'room_message', room, content: { n: index } }, 60_000);
        return `${room} ${number(ack, 'id')}`;
      }),
    );
    expect(new Set(acks).size).toBe(2_000);
    await eventually(
      async () => {
        expect(await left()).toMatchObject({ entries: 0, pending: 0 });
      },
      { timeoutMs: 120_000, everyMs: 200 },
    );
    isOver = true;
    await Promise.all(workers.map((worker) => worker.stop('SIGKILL')));
    await bob.fence();
    expect(acks.filter((name) => !answered.has(name))).toEqual([]);
    expect([...answered].filter(([, times]) => times !== 1)).toEqual([]);
    expect(answered.size).toBe(2_000);
    expect(kills).toBeGreaterThan(10);
    process.stdout.write(
      `worker: 2,000 messages, ${kills} kills, ${[...handled.values()].reduce((sum, times) => sum + times, 0)} acknowledgements logged\n`,
    );
  }, 180_000);
});
