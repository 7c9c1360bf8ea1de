import { execFile, spawn, type ChildProcessByStdio } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { partitionOf, RedisKeys } from '../../src/redis/redis-keys.js';
import { tracked } from '../support/child.js';
import { closeClients, connect, number, text, type Client } from '../support/client.js';
import { ready, serveCluster } from '../support/cluster.js';
import { within } from '../support/eventually.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { fresh } from '../support/names.js';
import { RedisServer } from '../support/redis-server.js';
import { startRedisCluster, type Topology } from '../support/redis-topologies.js';

const python = '/usr/bin/python3';
const script = fileURLToPath(new URL('../../redis/publish.lua', import.meta.url));
const guide = fileURLToPath(new URL('../../redis/README.md', import.meta.url));
const apiKey = 'a-key-of-a-backend';
const run = promisify(execFile);

interface Answer {
  id: number;
  epoch: string;
  duplicate: boolean;
}

interface Event {
  channel: string;
  content: unknown;
  event?: string;
  sender?: string;
  message_id?: string;
}

/** `redis-cli --eval`, as anybody types it; rejects with the error text of the script. */
async function cli(redis: RedisServer, ...args: string[]): Promise<Answer> {
  return evaluate(['-p', String(redis.port)], [], args);
}

async function evaluate(
  options: readonly string[],
  keys: readonly string[],
  args: readonly string[],
): Promise<Answer> {
  const { stdout } = await run('redis-cli', [...options, '--eval', script, ...keys, ',', ...args]);
  const [id = '', epoch = '', duplicate] = stdout.trim().split('\n');
  if (!/^\d+$/.test(id)) throw new Error(stdout.trim());
  return { id: Number(id), epoch, duplicate: duplicate === '1' };
}

/** The text of the error that it ends with, or what it answers in its stead. */
async function problemOf(answer: Promise<unknown>): Promise<string> {
  try {
    return JSON.stringify(await answer);
  } catch (error) {
    return String(error);
  }
}

/** The program in redis/README.md, run as it stands there. */
class PythonPublisher {
  private readonly answers: AsyncIterator<string>;
  private readonly exited: Promise<{ code: number | null }>;
  private errors = '';

  private constructor(private readonly child: ChildProcessByStdio<Writable, Readable, Readable>) {
    this.exited = tracked(child);
    child.stderr.on('data', (chunk: Buffer) => (this.errors += chunk.toString()));
    this.answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  static async start(redis: RedisServer): Promise<PythonPublisher> {
    const program = /```python\n(.*?)```/s.exec(await readFile(guide, 'utf8'))?.[1];
    if (program === undefined) throw new Error('redis/README.md has no Python program');
    return new PythonPublisher(
      spawn(python, ['-c', program, '127.0.0.1', String(redis.port), script], {
        stdio: ['pipe', 'pipe', 'pipe'],
        env: { PATH: process.env['PATH'], PYTHONIOENCODING: 'utf-8' },
      }),
    );
  }

  async publish(...events: Event[]): Promise<Answer[]> {
    this.child.stdin.write(events.map((event) => `${JSON.stringify(event)}\n`).join(''));
    const answers: Answer[] = [];
    while (answers.length < events.length) {
      const line = await within(this.answers.next(), 10_000, () => `Python does not answer: ${this.errors}`);
      if (line.done === true) throw new Error(`Python ended: ${this.errors}`);
      const [id, epoch, duplicate] = JSON.parse(line.value) as [number, string, number];
      answers.push({ id, epoch, duplicate: duplicate === 1 });
    }
    return answers;
  }

  async end(): Promise<void> {
    this.child.stdin.end();
    const { code } = await within(this.exited, 5_000, () => `Python does not end: ${this.errors}`);
    if (code !== 0 || this.errors !== '') throw new Error(`Python ended with ${code}: ${this.errors}`);
  }
}

async function post(gateway: GatewayProcess, body: object): Promise<unknown> {
  const response = await fetch(`${gateway.url}/api/v1/publish`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${apiKey}` },
    body: JSON.stringify(body),
  });
  return response.json();
}

describe('publishing by redis/publish.lua', () => {
  const cluster = serveCluster({ API_KEYS: apiKey, PRESENCE_GRACE_MS: '0' });

  async function members(room: string): Promise<[Client, Client]> {
    const { one, other } = cluster();
    const clients: [Client, Client] = await Promise.all([one.as(fresh('alice')), other.as(fresh('bob'))]);
    for (const client of clients) await client.request({ type: 'join_room', room });
    return clients;
  }

  it('reaches the members of a room on every instance from redis-cli', async () => {
    const room = fresh('room');
    const clients = await members(room);
    const answer = await cli(
      cluster().redis,
      'fanfare',
      `room:${room}`,
      'order.shipped',
      '{"order": 17}',
      'shop',
    );
    expect(answer).toEqual({ id: 1, epoch: expect.any(String) as string, duplicate: false });
    for (const client of clients) {
      const event = await client.next('order.shipped');
      expect(event).toEqual({
        event: 'order.shipped',
        from: 'shop',
        room,
        content: { order: 17 },
        ts: expect.any(Number) as number,
        id: 1,
      });
      expect(Math.abs(Date.now() - number(event, 'ts'))).toBeLessThan(5_000);
    }
  });

  it('reaches the members of a room, a user and everyone from Python', async () => {
    const room = fresh('room');
    const [alice, bob] = await members(room);
    const publisher = await PythonPublisher.start(cluster().redis);
    const content = { text: 'héllo "wörld"\n\u2028 🎺', list: [1, 2.5, null, true] };
    const broadcastId = number(alice.connected, 'last_event_id') + 1;
    const answers = await publisher.publish(
      { channel: `room:${room}`, content, sender: 'python', message_id: 'a "quoted" \\ \n id 🎺' },
      { channel: `user:${bob.userId}`, content, event: 'inbox' },
      { channel: 'broadcast', content: null },
    );
    await publisher.end();
    expect(answers.map(({ id, duplicate }) => [id, duplicate])).toEqual([
      [1, false],
      [1, false],
      [broadcastId, false],
    ]);
    const ts = expect.any(Number) as number;
    for (const client of [alice, bob]) {
      expect(await client.next((message) => message['from'] === 'python')).toEqual({
        event: 'chat',
        from: 'python',
        room,
        content,
        ts,
        message_id: 'a "quoted" \\ \n id 🎺',
        id: 1,
      });
      expect(await client.next((message) => message['content'] === null)).toEqual({
        event: 'chat',
        content: null,
        ts,
        id: broadcastId,
      });
    }
    expect(await bob.next('inbox')).toEqual({ event: 'inbox', direct: true, content, ts, id: 1 });
    expect(await alice.settled('inbox')).toEqual([]);
  });

  it("goes on with the gateway's own numbering, and the gateway with the script's", async () => {
    const room = fresh('room');
    const [alice, bob] = await members(room);
    const publisher = await PythonPublisher.start(cluster().redis);
    const epochs = new Set<string>();
    for (let round = 0; round < 3; round += 1) {
      expect(await alice.request({ type: 'room_message', room, content: round })).toMatchObject({
        event: 'ack',
        id: round * 4 + 1,
      });
      const shell = await cli(cluster().redis, 'fanfare', `room:${room}`, '', String(round));
      const [snake] = await publisher.publish({ channel: `room:${room}`, content: round });
      const http = (await post(cluster().other, { channel: `room:${room}`, content: round })) as Answer;
      expect([shell.id, snake?.id, http.id]).toEqual([round * 4 + 2, round * 4 + 3, round * 4 + 4]);
      for (const answer of [shell, snake, http]) epochs.add(answer?.epoch ?? '');
    }
    await publisher.end();
    const { epoch } = await alice.request({ type: 'history', room });
    expect([...epochs]).toEqual([epoch]);
    for (const client of [alice, bob]) {
      const chats = await client.take('chat', 12);
      expect(chats.map((chat) => chat['id'])).toEqual(Array.from({ length: 12 }, (_, index) => index + 1));
    }
  });

  it('loses nothing and doubles nothing while gateways and scripts publish at once', async () => {
    const room = fresh('room');
    const [alice, bob] = await members(room);
    const { redis } = cluster();
    const publishers = await Promise.all([PythonPublisher.start(redis), PythonPublisher.start(redis)]);
    const events = Array.from({ length: 250 }, (_, index) => ({ channel: `room:${room}`, content: index }));
    const [first, second] = await Promise.all([
      ...publishers.map((publisher) => publisher.publish(...events)),
      ...[alice, bob].map((client) =>
        Promise.all(
          events.map(({ content }) => client.request({ type: 'room_message', room, content }, 20_000)),
        ),
      ),
    ]);
    await Promise.all(publishers.map((publisher) => publisher.end()));
    const all = Array.from({ length: 1_000 }, (_, index) => index + 1);
    for (const client of [alice, bob]) {
      const chats = await client.take('chat', 1_000);
      expect(chats.map((chat) => chat['id'])).toEqual(all);
    }
    const ids = new Set([first, second].flatMap((answers) => (answers as Answer[]).map(({ id }) => id)));
    expect(ids.size).toBe(500);
  });

  it('publishes a message_id once, whether by redis-cli, Python or the HTTP API', async () => {
    const room = fresh('room');
    const [alice] = await members(room);
    const { redis, other } = cluster();
    const channel = `room:${room}`;
    for (const [index, messageId] of ['plain', 'a "b" \\ \n\u007f é 🎺', '🎺'.repeat(32)].entries()) {
      const id = index + 1;
      const first = await cli(redis, 'fanfare', channel, 'chat', '"once"', 'shop', messageId);
      expect(first).toMatchObject({ id, duplicate: false });
      const again = await cli(redis, 'fanfare', channel, 'chat', '"twice"', 'shop', messageId);
      expect(again).toEqual({ ...first, duplicate: true });
      const publisher = await PythonPublisher.start(redis);
      expect(
        await publisher.publish({ channel, content: 'thrice', sender: 'shop', message_id: messageId }),
      ).toEqual([{ ...first, duplicate: true }]);
      await publisher.end();
      const fields = { channel, content: 'four times', message_id: messageId };
      expect(await post(other, { ...fields, from: 'shop' })).toEqual({
        id,
        epoch: first.epoch,
        duplicate: true,
      });
    }
    const http = (await post(other, { channel, content: 'by HTTP', message_id: 'other' })) as Answer;
    expect(http).toMatchObject({ id: 4 });
    expect(await cli(redis, 'fanfare', channel, 'chat', '1', '', 'other')).toMatchObject({
      id: 4,
      duplicate: true,
    });
    // Another sender or channel is another message.
    expect(await cli(redis, 'fanfare', channel, 'chat', '1', 'else', 'plain')).toMatchObject({
      id: 5,
      duplicate: false,
    });
    expect(await cli(redis, 'fanfare', `${channel}-2`, 'chat', '1', 'shop', 'plain')).toMatchObject({
      id: 1,
    });
    const chats = await alice.take('chat', 5);
    expect(chats.map((chat) => chat['content'])).toEqual(['once', 'once', 'once', 'by HTTP', 1]);
    expect(await alice.settled('chat')).toEqual([]);
  });

  it('is in the history and in what a client resumes with, on another instance', async () => {
    const room = fresh('room');
    const [alice, bob] = await members(room);
    const { redis, other } = cluster();
    await alice.request({ type: 'room_message', room, content: 'before' });
    const { id, epoch } = await cli(redis, 'fanfare', `room:${room}`, '', '"live"', 'shop');
    await bob.next((message) => message['content'] === 'live');
    await alice.cut();
    const direct = fresh('dora');
    await cli(redis, 'fanfare', `room:${room}`, '', '"missed"', 'shop');
    await cli(redis, 'fanfare', `user:${direct}`, '', '"while away"', 'shop');

    const back = await other.as(alice.userId);
    const joined = await back.request({ type: 'join_room', room, last_event_id: id, epoch });
    expect(joined).toMatchObject({ recovered: true, replayed: 1, last_event_id: 3, epoch });
    expect(await back.next('chat')).toMatchObject({ content: 'missed', from: 'shop', id: 3, room });
    const history = await back.request({ type: 'history', room });
    expect(history).toMatchObject({
      epoch,
      more: false,
      events: [
        { content: 'before', id: 1 },
        { content: 'live', from: 'shop', id: 2, room, event: 'chat' },
        { content: 'missed', from: 'shop', id: 3 },
      ],
    });
    const dora = await other.as(direct, { query: { lastDirectEventId: '0' } });
    expect(dora.connected).toMatchObject({ recovered: true });
    expect(await dora.next('chat')).toMatchObject({ content: 'while away', direct: true, id: 1 });
  });

  const oddUsers = [
    '{',
    '}',
    '{1}',
    'a{b}c',
    ':',
    'a:b:meta',
    'two words  and more ',
    '🎺',
    '👩‍👩‍👧',
    'ünï"cödé\\',
    '100%',
    '%7B',
    '../*?[a]',
    "o'brien",
    '🎺'.repeat(128),
  ];

  it.each(oddUsers)('reaches the user %j, and numbers on with the gateway', async (name) => {
    const { one, other, redis } = cluster();
    const user = await one.as(name);
    const sender = await other.as(fresh('sender'));
    const start = number(user.connected, 'last_direct_event_id');
    const { id, epoch } = await cli(redis, 'fanfare', `user:${name}`, 'inbox', '{"n": 1}', name);
    expect(await user.next('inbox')).toMatchObject({ direct: true, from: name, content: { n: 1 }, id });
    const publisher = await PythonPublisher.start(redis);
    await publisher.publish({ channel: `user:${name}`, content: 2, event: 'inbox' });
    await publisher.end();
    expect(await sender.request({ type: 'direct_message', target_user: name, content: 3 })).toMatchObject({
      event: 'ack',
      id: start + 3,
    });
    const rest = await user.take((message) => message['direct'] === true, 2);
    expect(rest.map((event) => [event['content'], event['id']])).toEqual([
      [2, start + 2],
      [3, start + 3],
    ]);
    expect([id, epoch]).toEqual([start + 1, expect.stringMatching(/^\S+\.\d+$/)]);
    await user.close();
    const back = await other.as(name, { query: { lastDirectEventId: String(start), directEpoch: epoch } });
    expect(back.connected).toMatchObject({ recovered: true, last_direct_event_id: start + 3 });
    const replayed = await back.take((message) => message['direct'] === true, 3);
    expect(replayed.map((event) => event['id'])).toEqual([start + 1, start + 2, start + 3]);
  });

  it('forwards the content byte for byte', async () => {
    const room = fresh('room');
    const [alice] = await members(room);
    const { redis } = cluster();
    const content =
      ' {"b" :1.0, "a":[ ],\n"n":-12345678901234567890,"e":1E+2,"s":"\\u00e9\\/é\\"}{:nan","t":[true,false,null]} ';
    const { id } = await cli(redis, 'fanfare', `room:${room}`, '', content);
    const [log] = await redis.keys(`fanfare:*room:${room}:log`);
    const [entry] = await redis.commands.xrange(log ?? '', `${id}-0`, `${id}-0`);
    const ts = number(await alice.next('chat'), 'ts');
    expect(entry).toEqual([
      `${id}-0`,
      ['x', '', 'b', `{"event":"chat","room":"${room}","content":${content},"ts":${ts}`, 't', String(ts)],
    ]);
    const { events } = await alice.request({ type: 'history', room });
    expect(events).toMatchObject([{ content: JSON.parse(content) as unknown, id }]);
  });

  it('keeps the history, the numbering and the message ids as long as it is told, else as the gateway does', async () => {
    const { redis, one } = cluster();
    const room = fresh('room');
    const told = ['10', '7200', '60'];
    const { id: lastId } = await cli(redis, 'fanfare', `room:${room}`, '', '0', '', 'first', ...told);
    expect(lastId).toBe(1);
    const plain = fresh('room');
    await cli(redis, 'fanfare', `room:${plain}`, '', '0', '', 'first');
    const published = fresh('room');
    await post(one, { channel: `room:${published}`, content: 0, message_id: 'first' });
    const ttls = async (name: string): Promise<number[]> => {
      const keys = await redis.keys(`fanfare:*room:${name}:*`);
      expect(keys.map((key) => key.split(':')[4])).toEqual(['idem', 'log', 'meta']);
      return Promise.all(keys.map(async (key) => Math.ceil((await redis.commands.pttl(key)) / 60_000)));
    };
    const thirtyDays = 30 * 24 * 60;
    expect(await ttls(room)).toEqual([1, 120, thirtyDays]);
    expect(await ttls(plain)).toEqual([5, 60, thirtyDays]);
    expect(await ttls(published)).toEqual(await ttls(plain));
  });

  const refused: [what: string, args: string[], problem: string][] = [
    ['no channel of the three kinds', ['fanfare', 'rooms:a', '', '1'], 'ERR channel:'],
    ['an empty room name', ['fanfare', 'room:', '', '1'], 'ERR channel:'],
    ['a room name with braces', ['fanfare', 'room:{1}', '', '1'], 'ERR channel:'],
    ['a room name with a line feed', ['fanfare', 'room:a\n', '', '1'], 'ERR channel:'],
    ['a room name of 129', ['fanfare', `room:${'a'.repeat(129)}`, '', '1'], 'ERR channel:'],
    ['an empty user id', ['fanfare', 'user:', '', '1'], 'ERR channel:'],
    ['a user id of 129 code points', ['fanfare', `user:${'🎺'.repeat(129)}`, '', '1'], 'ERR channel:'],
    ['a control character in a user id', ['fanfare', 'user:a\u0007', '', '1'], 'ERR channel:'],
    ['a C1 control character in a user id', ['fanfare', 'user:a\u0085', '', '1'], 'ERR channel:'],
    ['a bad prefix', ['fan:fare', 'broadcast', '', '1'], 'ERR prefix:'],
    ['a reserved event name', ['fanfare', 'broadcast', 'user_joined', '1'], 'ERR event:'],
    ['a bad event name', ['fanfare', 'broadcast', 'a b', '1'], 'ERR event:'],
    ['an event name of 65', ['fanfare', 'broadcast', 'e'.repeat(65), '1'], 'ERR event:'],
    ...[
      '',
      '{',
      '{"a":1,}',
      'undefined',
      '"a" "b"',
      "'a'",
      'NaN',
      '[Infinity]',
      '0x1F',
      '01',
      '1.',
      '.5',
      '+1',
      '1e',
      '"a\nb"',
      '"\\x41"',
      `${'['.repeat(64)}${']'.repeat(64)}`,
    ].map((content): [string, string[], string] => [
      `content ${JSON.stringify(content.slice(0, 12))}`,
      ['fanfare', 'broadcast', '', content],
      'ERR content:',
    ]),
    ['a bad sender', ['fanfare', 'broadcast', '', '1', 'a\u0000b'.replace('\u0000', '\u0001')], 'ERR from:'],
    ['a message_id of 65', ['fanfare', 'broadcast', '', '1', '', 'm'.repeat(65)], 'ERR message_id:'],
    ['a history size of 0', ['fanfare', 'broadcast', '', '1', '', '', '0'], 'ERR history size'],
    ['a TTL that is no number', ['fanfare', 'broadcast', '', '1', '', '', '', '1h'], 'ERR history size'],
    [
      'another command',
      ['fanfare', 'broadcast', '', '1', '', '', '', '', '', 'FLUSHALL'],
      'ERR publish command:',
    ],
    ['too few arguments', ['fanfare', 'broadcast', 'chat'], 'ERR needs at least'],
  ];

  it('says what is wrong with an argument, and writes nothing', async () => {
    const { redis, one } = cluster();
    const observer = await one.as(fresh('observer'));
    const start = number(observer.connected, 'last_event_id');
    const outcomes: [string, string][] = [];
    for (const [what, args] of refused) outcomes.push([what, await problemOf(cli(redis, ...args))]);
    expect(outcomes).toEqual(
      refused.map(([what, , problem]) => [what, expect.stringContaining(problem) as string]),
    );
    expect(await redis.keys('*rooms:*')).toEqual([]);
    expect(await cli(redis, 'fanfare', 'broadcast', '', '"good"')).toMatchObject({ id: start + 1 });
    expect(await observer.next('chat')).toMatchObject({ content: 'good', id: start + 1 });
    expect(observer.all.filter(({ event }) => event === 'chat')).toHaveLength(1);
  });

  it('refuses bytes that are no UTF-8 or end the text early, which would break a client', async () => {
    const { redis, one } = cluster();
    const source = await readFile(script, 'utf8');
    const observer = await one.as(fresh('observer'));
    const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
    const contents = [
      '22ff22',
      '22c02022',
      '22eda08022',
      '22f490808022',
      '22e28222',
      '3100',
      '22610022',
      '2261225c',
    ];
    const userIds = ['ff', '61c3', 'f0808080'];
    const outcomes = await Promise.all([
      ...contents.map((hex) =>
        problemOf(redis.commands.eval(source, 0, 'fanfare', 'broadcast', '', bytes(hex))),
      ),
      ...userIds.map((hex) =>
        problemOf(redis.commands.eval(source, 0, 'fanfare', bytes(`757365723a${hex}`), '', '1')),
      ),
    ]);
    expect(outcomes).toEqual([
      ...contents.map(() => expect.stringContaining('ERR content:') as string),
      ...userIds.map(() => expect.stringContaining('ERR channel:') as string),
    ]);
    await observer.fence();
    expect(observer.unread('chat')).toEqual([]);
  });

  it('accepts what JSON.parse accepts and nothing else, for any text', async () => {
    const { redis } = cluster();
    const source = await readFile(script, 'utf8');
    const pieces = fc.constantFrom(
      '"',
      '\\',
      '0',
      '1',
      '-',
      '.',
      'e',
      'E',
      '+',
      '[',
      ']',
      '{',
      '}',
      ',',
      ':',
      ' ',
      '\n',
      'null',
      'nan',
      'inf',
      'true',
      'a',
      '\t',
      '\u0000',
      'é',
      '\\u00e9',
    );
    const texts = fc.oneof(
      fc.json({ maxDepth: 5 }),
      fc.array(pieces, { maxLength: 8 }).map((parts) => parts.join('')),
      fc.array(pieces, { maxLength: 5 }).map((parts) => `[${parts.join('')}]`),
    );
    const valid = (json: string): boolean => {
      try {
        JSON.parse(json);
        return json.isWellFormed();
      } catch (error) {
        if (error instanceof SyntaxError) return false;
        throw error;
      }
    };
    await fc.assert(
      fc.asyncProperty(texts, async (json) => {
        // Half a surrogate pair as an escape is what cjson can't read and JSON.parse can.
        fc.pre(!/\\u[dD][89a-fA-F]/.test(json));
        const outcome = await redis.commands.eval(source, 0, 'fanfare', 'room:fuzz', '', json).then(
          () => true,
          (error: unknown) => (String(error).includes('ERR content:') ? false : String(error)),
        );
        expect(outcome).toBe(valid(json));
      }),
      { numRuns: 3_000 },
    );
  });

  it('finds the same partition as the gateway for any channel', async () => {
    const { redis } = cluster();
    const source = await readFile(script, 'utf8');
    const keys = new RedisKeys('other.prefix');
    const userIds = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 40 })
      // eslint-disable-next-line no-control-regex -- no user id has them
      .filter((name) => name.isWellFormed() && !/[\u0000-\u001f\u007f-\u009f]/.test(name));
    await fc.assert(
      fc.asyncProperty(userIds, async (name) => {
        const channel = `user:${name}`;
        await expect(
          redis.commands.eval(source, 1, 'wrong', 'other.prefix', channel, '', '1'),
        ).rejects.toThrow(`the key of this channel is ${keys.life(partitionOf(channel))}`);
      }),
      { numRuns: 500 },
    );
  });

  it(
    'answers FENCED and writes nothing until a gateway has settled the numbering, also after a restart',
    { timeout: 60_000 },
    async () => {
      const redis = await RedisServer.start({ appendonly: 'yes', appendfsync: 'always' });
      let gateway: GatewayProcess | undefined;
      try {
        await expect(cli(redis, 'fanfare', 'broadcast', '', '1')).rejects.toThrow('FENCED');
        expect(await redis.keys('*')).toEqual([]);
        // The program tries again by itself: what it is told before there is a gateway is published once there is one.
        const publisher = await PythonPublisher.start(redis);
        const early = publisher.publish({ channel: 'broadcast', content: 'early' });
        gateway = await GatewayProcess.start({ REDIS_URL: redis.url });
        expect(await early).toMatchObject([{ id: 1, duplicate: false }]);
        await publisher.end();
        await ready(gateway);
        const observer = await gateway.as('observer', { query: { lastEventId: '0' } });
        expect(await observer.next('chat')).toMatchObject({ content: 'early', id: 1 });
        const { id, epoch } = await cli(redis, 'fanfare', 'broadcast', '', '"second"');
        expect(await observer.next('chat')).toMatchObject({ content: 'second', id: 2 });
        expect(id).toBe(2);
        // Restarted with all its data and nobody there to say whether that is all: ids must not be given out again.
        await observer.cut();
        await gateway.stop();
        await redis.stop();
        await redis.restart();
        await expect(cli(redis, 'fanfare', 'broadcast', '', '1')).rejects.toThrow('FENCED');
        gateway = await GatewayProcess.start({ REDIS_URL: redis.url });
        await ready(gateway);
        const after = await cli(redis, 'fanfare', 'broadcast', '', '1');
        expect(after.id > 2 || after.epoch !== epoch).toBe(true);
      } finally {
        await closeClients();
        await gateway?.dispose();
        await redis.dispose();
      }
    },
  );
});

describe('publishing by redis/publish.lua in a Redis Cluster', () => {
  let topology: Topology | undefined;
  let gateway: GatewayProcess | undefined;

  beforeAll(async () => {
    topology = await startRedisCluster();
    gateway = await GatewayProcess.start({ ...topology.settings, RATE_LIMIT_PER_SECOND: '0' });
    await ready(gateway);
  }, 60_000);

  afterAll(async () => {
    await closeClients();
    await gateway?.dispose();
    await topology?.dispose();
  });

  it('reaches rooms and users of every partition by redis-cli -c and SPUBLISH', async () => {
    const port = topology?.settings['REDIS_CLUSTER_NODES']?.split(',')[0]?.split(':')[1] ?? '';
    const client = await connect(gateway?.ws(`/ws?client_id=${encodeURIComponent('an {odd} 🎺')}`) ?? '');
    const channels = [`user:${client.userId}`, 'broadcast'];
    for (let room = 0; room < 10; room += 1) {
      await client.request({ type: 'join_room', room: `room-${room}` });
      channels.push(`room:room-${room}`);
    }
    const keys = new RedisKeys('fanfare');
    for (const channel of channels) {
      const args = ['fanfare', channel, 'script', JSON.stringify(channel), '', '', '', '', '', 'SPUBLISH'];
      const key = keys.life(partitionOf(channel));
      const answer = await evaluate(['-c', '-p', port], [key], args);
      expect(answer).toMatchObject({ id: 1, duplicate: false });
      expect(text(await client.next('script'), 'content')).toBe(channel);
    }
    const room = 'room-3';
    expect(await client.request({ type: 'room_message', room, content: 'after' })).toMatchObject({ id: 2 });
    const wrong = keys.life((partitionOf('broadcast') + 1) % 256);
    await expect(
      evaluate(
        ['-c', '-p', port],
        [wrong],
        ['fanfare', 'broadcast', '', '1', '', '', '', '', '', 'SPUBLISH'],
      ),
    ).rejects.toThrow(`ERR key: the key of this channel is ${keys.life(partitionOf('broadcast'))}`);
  });
});
