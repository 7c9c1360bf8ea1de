import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { Checker } from '../support/checker.js';
import { accepted, closeClients, type Client, type Message } from '../support/client.js';
import { ready, serveCluster, type Cluster } from '../support/cluster.js';
import { eventually } from '../support/eventually.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { stats, status } from '../support/http.js';
import { fresh } from '../support/names.js';
import { RedisServer } from '../support/redis-server.js';
import { secret, token } from '../support/tokens.js';

interface Answer {
  /** `ack`, or the code of the error. */
  readonly outcome: unknown;
  readonly afterMs: number;
  readonly atMs: number;
}

/** A writer that publishes to a room every 10 ms, whatever the answers are, until it is stopped. */
class Traffic {
  readonly answers: Answer[] = [];
  readonly checker = new Checker();
  #isRunning = true;
  #pending = new Set<Promise<void>>();
  #running: Promise<void>;

  constructor(
    private readonly writer: Client,
    private readonly room: string,
  ) {
    this.#running = this.#run();
  }

  /** Resolves when every message has had its answer. */
  async stop(): Promise<void> {
    this.#isRunning = false;
    await this.#running;
    await Promise.all(this.#pending);
  }

  /** The next answer of this outcome from now on. */
  async next(outcome: string, timeoutMs: number): Promise<Answer> {
    const from = this.answers.length;
    return eventually(
      () => {
        const answer = this.answers.slice(from).find((candidate) => candidate.outcome === outcome);
        if (answer === undefined)
          throw new Error(`no ${outcome}, but ${this.answers.slice(from).length} other answers`);
        return answer;
      },
      { timeoutMs, everyMs: 5 },
    );
  }

  async #run(): Promise<void> {
    while (this.#isRunning) {
      const publish = this.#publish();
      this.#pending.add(publish);
      void publish.finally(() => this.#pending.delete(publish));
      await pause(10);
    }
  }

  async #publish(): Promise<void> {
    const channel = `room:${this.room}`;
    const content = this.checker.attempt(this.writer.userId, channel);
    const sentAt = performance.now();
    const reply: Message = await this.writer.request(
      { type: 'room_message', room: this.room, content },
      10_000,
    );
    if (reply.event === 'ack') this.checker.acknowledged(channel, content);
    const atMs = performance.now();
    this.answers.push({ outcome: reply['code'] ?? reply.event, afterMs: atMs - sentAt, atMs });
  }
}

interface Scene {
  readonly room: string;
  readonly writer: Client;
  readonly reader: Client;
  readonly idle: Client[];
}

async function scene(cluster: Cluster): Promise<Scene> {
  const room = fresh('room');
  const writer = await cluster.one.as(fresh('writer'));
  const reader = await cluster.other.as(fresh('reader'));
  for (const client of [writer, reader]) {
    expect(await client.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
  }
  const idle = await Promise.all(
    Array.from({ length: 20 }, (_value, index) =>
      (index % 2 === 0 ? cluster.one : cluster.other).as(fresh('idle')),
    ),
  );
  return { room, writer, reader, idle };
}

/** Whether everybody is still connected and every process still runs. */
function survivors(
  cluster: Cluster,
  { writer, reader, idle }: Scene,
): { closed: unknown[]; running: boolean[] } {
  return {
    closed: [writer, reader, ...idle].flatMap((client) => client.closedWith ?? []),
    running: cluster.gateways.map((gateway) => gateway.isRunning),
  };
}

const untouched = { closed: [], running: [true, true] };

/** A message from the writer reaches the reader on the other instance. */
async function flows({ room, writer, reader }: Scene, checker: Checker, timeoutMs: number): Promise<void> {
  await eventually(
    async () => {
      const probe = checker.attempt('probe', `room:${room}`);
      const reply = await writer.request({ type: 'room_message', room, content: probe });
      expect(reply.event).toBe('ack');
      checker.acknowledged(`room:${room}`, probe);
      await reader.next((message) => message['id'] === reply['id'] && message['room'] === room, 500);
    },
    { timeoutMs, everyMs: 10 },
  );
}

const clean = { lost: [], doubled: [], misordered: [], ghosts: [], leaks: [] };

describe.each([
  ['killed and started again', 'kill', 3_000],
  ['stopped by SIGSTOP and continued', 'pause', 5_000],
] as const)('Redis %s under traffic', (_name, fault, recoveryMs) => {
  const cluster = serveCluster({ PRESENCE_GRACE_MS: '300' });

  it(
    'cuts nobody off, has every publish answered, and the traffic flows again',
    { timeout: 60_000 },
    async () => {
      const { redis, one, other } = cluster();
      const here = await scene(cluster());
      const before = new Traffic(here.writer, here.room);
      before.checker.follow(here.reader, `room:${here.room}`);
      await before.next('ack', 5_000);
      await here.reader.take('chat', 20);

      if (fault === 'kill') await redis.kill();
      else redis.pause();
      await before.next('broker_unavailable', 5_000);
      for (const gateway of [one, other]) {
        expect(await status(`${gateway.url}/health/live`)).toBe(200);
        await eventually(
          async () => {
            expect(await status(`${gateway.url}/health/ready`)).toBe(503);
            expect((await stats(gateway.url)).cluster).toBeNull();
          },
          { timeoutMs: 12_000 },
        );
        const refusal = await gateway.refused();
        expect(refusal.status).toBe(503);
        expect(Number(refusal.headers['retry-after'])).toBeGreaterThan(0);
      }
      // A client's other business goes on.
      expect(await here.reader.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
      expect(await here.idle[0]?.request({ type: 'chat', content: 1 })).toMatchObject({
        code: 'broker_unavailable',
      });
      const asked = performance.now();
      const join = await here.idle[1]?.request({ type: 'join_room', room: fresh('new') });
      expect(join).toMatchObject({ event: 'error', code: 'broker_unavailable' });
      expect(performance.now() - asked).toBeLessThan(2_250);
      // Long enough for every retry to have backed off.
      await eventually(
        () => {
          expect(before.answers.filter((answer) => answer.outcome !== 'ack').length).toBeGreaterThan(200);
        },
        { timeoutMs: 15_000 },
      );
      await before.stop();
      expect(survivors(cluster(), here)).toEqual(untouched);

      const outages = before.answers.filter((answer) => answer.outcome !== 'ack');
      expect(new Set(outages.map((answer) => answer.outcome))).toEqual(new Set(['broker_unavailable']));
      expect(Math.max(...outages.map((answer) => answer.afterMs))).toBeLessThan(2_250);

      if (fault === 'kill') await redis.restart();
      else redis.resume();
      const back = performance.now();
      await flows(here, before.checker, recoveryMs);
      expect(performance.now() - back).toBeLessThan(recoveryMs);
      expect(before.checker.verdict()).toEqual(clean);
      // Only a Redis that forgot everything begins a new epoch, and then every reader is told before the next event.
      const gaps = here.reader.all.filter(
        (message) => message.event === 'gap' && message['room'] === here.room,
      );
      expect(gaps.map((gap) => typeof gap['epoch'])).toEqual(fault === 'kill' ? ['string'] : []);
      await eventually(
        async () => {
          expect(await here.writer.request({ type: 'presence', room: here.room })).toMatchObject({
            count: 2,
          });
          expect((await stats(one.url)).cluster).toMatchObject({ connections: 22, users: 22, instances: 2 });
        },
        { timeoutMs: 40_000 },
      );
      await Promise.all([ready(one), ready(other)]);

      const room = fresh('after');
      for (const client of [here.writer, here.reader]) {
        expect(await client.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
      }
      const after = new Traffic(here.writer, room);
      after.checker.follow(here.reader, `room:${room}`);
      await here.reader.take((message) => message['room'] === room && message.event === 'chat', 50);
      await after.stop();
      await here.writer.request({
        type: 'room_message',
        room,
        content: after.checker.attempt('marker', `room:${room}`),
      });
      await here.reader.next((message) => JSON.stringify(message['content'] ?? '').includes('marker'));
      expect(after.checker.verdict()).toEqual({
        lost: [],
        doubled: [],
        misordered: [],
        ghosts: [],
        leaks: [],
      });
      expect(after.answers.filter((answer) => answer.outcome !== 'ack')).toEqual([]);
      expect(survivors(cluster(), here)).toEqual(untouched);
      const someone = await other.as(fresh('someone'));
      await here.idle[0]?.request({ type: 'chat', content: 'everyone again' });
      expect(await someone.next('chat')).toMatchObject({ content: 'everyone again' });
    },
  );
});

describe('a broker that is lost between the upgrade and `connected`', () => {
  const cluster = serveCluster();

  it('closes the connection with 1013 within 5 s', async () => {
    const { one, redis } = cluster();
    redis.pause();
    const began = performance.now();
    const client = await accepted(one.ws('/ws?client_id=alice'));
    expect((await client.closed).code).toBe(1013);
    expect(performance.now() - began).toBeLessThan(5_500);
    expect(client.all).toEqual([]);
    redis.resume();
    await ready(one);
    const again = await eventually(() => one.as('alice'));
    expect(again.userId).toBe('alice');
  });
});

describe('a token that ends while the broker lets its connection wait', () => {
  const cluster = serveCluster({ AUTH_MODE: 'optional', JWT_SECRET: secret, JWT_CLOCK_TOLERANCE_S: '0' });

  it('opens nothing', async () => {
    const { one, redis } = cluster();
    redis.pause();
    const waiting = accepted(one.ws(`/ws?token=${token('alice', { exp: Date.now() / 1000 + 0.3 })}`));
    await pause(700);
    redis.resume();
    const client = await waiting;
    expect((await client.closed).code).toBe(4001);
    expect(client.all).toEqual([]);
  });
});

describe('an instance that starts before its Redis', () => {
  let redis: RedisServer | undefined;
  let gateway: GatewayProcess | undefined;

  afterEach(closeClients);
  afterAll(async () => {
    await gateway?.dispose();
    await redis?.dispose();
  });

  it(
    'listens, is live and not ready, goes on trying, and serves once Redis is there',
    { timeout: 40_000 },
    async () => {
      redis = await RedisServer.reserve();
      gateway = await GatewayProcess.start({ REDIS_URL: redis.url });
      const { url } = gateway;
      expect(await status(`${url}/health/live`)).toBe(200);
      expect(await status(`${url}/health/ready`)).toBe(503);
      expect(await status(`${url}/health/startup`)).toBe(503);
      expect((await gateway.refused()).status).toBe(503);
      await redis.restart();
      await ready(gateway);
      expect(await status(`${url}/health/startup`)).toBe(200);
      const [alice, bob] = await Promise.all([gateway.as('alice'), gateway.as('bob')]);
      await alice.request({ type: 'chat', content: 'at last' });
      expect(await bob.next('chat')).toMatchObject({ from: 'alice', content: 'at last' });
    },
  );

  it('ends by SIGTERM with exit code 0 while Redis is away', async () => {
    const absent = await RedisServer.reserve();
    const waiting = await GatewayProcess.start({ REDIS_URL: absent.url });
    expect(await waiting.stop('SIGTERM', 8_000)).toBe(0);
    await absent.dispose();
  });
});
