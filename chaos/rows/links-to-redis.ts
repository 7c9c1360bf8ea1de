import { setTimeout as pause } from 'node:timers/promises';
import { connect } from '../../test/support/client.js';
import { eventually } from '../../test/support/eventually.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { Fleet } from '../fleet.js';
import type { Context, Result, Row } from '../row.js';
import { TcpProxy, type Way } from '../tcp-proxy.js';

const DETECTED_MS = 10_000;
const PER_CUT = 20;
const STOPPED_MAX_MS = 4_000;

async function blackHole(context: Context, way: Way): Promise<Result> {
  const redis = context.own(await RedisServer.start());
  const proxy = context.own(await TcpProxy.start(redis.port));
  const fleet = await Fleet.start(context, { redis, settings: { REDIS_URL: proxy.url } });
  const failures: string[] = [];
  let detectedMs = 0;
  let recoveryMs = Infinity;
  const missedBefore = await fleet.metric('fanfare_redis_probe_timeouts_total');
  await fleet.through(async () => {
    const dead = proxy.of('subscriber');
    if (dead.length !== fleet.gateways.length) throw new Error(`${dead.length} subscribers`);
    const began = performance.now();
    for (const link of dead) link.swallows = way;
    await eventually(
      () => {
        const fresh = proxy.of('subscriber').filter((link) => link.openedMs > began);
        if (fresh.length < dead.length) throw new Error(`${fresh.length} of ${dead.length} have reconnected`);
        detectedMs = Math.max(...fresh.map((link) => link.openedMs)) - began;
      },
      { timeoutMs: 30_000, everyMs: 20 },
    );
    recoveryMs = await fleet.deliveredEverywhere();
  });
  const missed = (await fleet.metric('fanfare_redis_probe_timeouts_total')) - missedBefore;
  if (detectedMs > DETECTED_MS) failures.push('detected later than 10 s');
  if (missed < fleet.gateways.length) failures.push(`only ${missed} missed probes counted`);
  if (fleet.tally.closes.size > 0) failures.push('clients were disconnected');
  if (fleet.ledger.gaps > 0) failures.push('a gap was told');
  const notes = [`detected after ${(detectedMs / 1000).toFixed(1)} s`, `${missed} missed probes`];
  return { ...fleet.result(failures, notes), recoveryMs };
}

const criterion = '0 lost, 0 doubled, no gap; detected <= 10 s; probe metric counts; 0 disconnects';

export const subscriberBlackHoled: Row = {
  name: '12',
  fault: 'subscriber links swallowed both ways',
  criterion,
  extraSeconds: 40,
  run: (context) => blackHole(context, 'both'),
};

export const subscriberDeaf: Row = {
  name: '12-deaf',
  fault: 'subscriber links swallowed towards the gateways',
  criterion,
  extraSeconds: 40,
  run: (context) => blackHole(context, 'to-client'),
};

export const lostReply: Row = {
  name: '14',
  fault: 'the reply of a publish is swallowed, then RST; repeated with its message_id',
  criterion:
    '1,000 forced repeats (quick: 100) leave 1,000 entries, each acknowledged as a duplicate, each read once',
  extraSeconds: 200,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const proxy = context.own(await TcpProxy.start(redis.port));
    const fleet = await Fleet.start(context, {
      redis,
      gateways: 1,
      settings: { REDIS_URL: proxy.url },
      size: { clients: 2, rooms: 1 },
    });
    const [gateway] = fleet.gateways;
    if (gateway === undefined) throw new Error('no gateway');
    const writer = await connect(gateway.ws(), { query: { client_id: 'writer' } });
    context.onEnd(() => writer.cut().catch(() => undefined));
    await writer.request({ type: 'join_room', room: 'r0' });
    const wanted = context.size.isQuick ? 100 : 1_000;
    const key = await logKey(redis, writer, fleet);
    let forced = 0;
    let duplicates = 0;
    let notForced = 0;
    context.status = () => `${forced} of ${wanted} repeats forced, ${duplicates} acknowledged as duplicates`;
    while (forced < wanted) {
      const before = await redis.commands.xlen(key);
      const [link] = proxy.of('commands');
      if (link === undefined) throw new Error('no commands connection');
      link.swallows = 'to-client';
      const sent = Array.from({ length: PER_CUT }, () => fleet.ledger.attempt('writer', 'room:r0', 200));
      const first = sent.map(({ content, attempt }) => {
        attempt.tries += 1;
        return writer.request(
          { type: 'room_message', room: 'r0', content, message_id: `w${content.n}` },
          10_000,
        );
      });
      await eventually(async () => {
        if ((await redis.commands.xlen(key)) < before + PER_CUT) throw new Error('not stored yet');
      }).catch(() => (notForced += 1));
      link.reset();
      const answers = await Promise.all(first);
      forced += answers.filter((answer) => answer.event === 'error').length;
      for (const { content, attempt } of sent) {
        await eventually(
          async () => {
            attempt.tries += 1;
            const answer = await writer.request({
              type: 'room_message',
              room: 'r0',
              content,
              message_id: `w${content.n}`,
            });
            if (answer.event !== 'ack') throw new Error(`answered by ${JSON.stringify(answer)}`);
            if (answer['duplicate'] === true) duplicates += 1;
            fleet.ledger.acknowledge(attempt, Number(answer['id']));
          },
          { timeoutMs: 10_000, everyMs: 20 },
        );
      }
      writer.forget();
    }
    await fleet.stopLoad();
    const failures: string[] = [];
    const entries = await redis.commands.xlen(key);
    if (entries !== fleet.ledger.attempts.length)
      failures.push(`${entries} entries for ${fleet.ledger.attempts.length} publishes`);
    if (duplicates < forced) failures.push(`${duplicates} of ${forced} acknowledged as duplicates`);
    if (notForced > 0) failures.push(`${notForced} bursts did not reach Redis`);
    return fleet.result(failures, [
      `${forced} forced repeats`,
      `${entries} entries`,
      `${duplicates} duplicates`,
    ]);
  },
};

/** The key of the log of `room:r0`; found by writing to it. */
async function logKey(
  redis: RedisServer,
  writer: Awaited<ReturnType<typeof connect>>,
  fleet: Fleet,
): Promise<string> {
  const { attempt, content } = fleet.ledger.attempt('writer', 'room:r0', 200);
  attempt.tries += 1;
  const answer = await writer.request({ type: 'room_message', room: 'r0', content, message_id: 'first' });
  fleet.ledger.acknowledge(attempt, Number(answer['id']));
  const [key] = await redis.keys('*room:r0:log');
  if (key === undefined) throw new Error('the room has no log');
  return key;
}

export const slowSubscriber: Row = {
  name: '15',
  fault: 'burst of 200 MB (quick: 60), one gateway stopped until Redis cuts its subscriber',
  criterion: '0 lost, 0 doubled, no gap; subscriber back <= 2 s; reconnect counted',
  extraSeconds: 120,
  async run(context) {
    const redis = context.own(await RedisServer.start({ 'client-output-buffer-limit': 'pubsub 1mb 1mb 1' }));
    const bytes = 32 * 1024;
    const fleet = await Fleet.start(context, {
      redis,
      size: { clients: 6, rooms: 1, bytes },
      settings: { SLOW_CONSUMER_BYTES: String(64 * 1024 * 1024), HISTORY_SIZE: '10000' },
    });
    const [victim] = fleet.gateways;
    if (victim === undefined) throw new Error('no gateway');
    const total = ((context.size.isQuick ? 60 : 200) * 1024 * 1024) / bytes;
    const publishers = fleet.clients.filter((client) => client.address !== victim.ws(''));
    const before = await fleet.metric('fanfare_redis_reconnects_total', { role: 'subscriber' });
    let backMs = 0;
    let sent = 0;
    let stopped: Promise<void> | null = null;
    const subscribers = async (): Promise<number> =>
      String(await redis.commands.call('CLIENT', 'LIST', 'TYPE', 'pubsub'))
        .trim()
        .split('\n').length;
    const stopUntilCut = async (): Promise<void> => {
      victim.signal('SIGSTOP');
      context.onEnd(() => victim.signal('SIGCONT'));
      const until = performance.now() + STOPPED_MAX_MS;
      while (performance.now() < until && (await subscribers()) === fleet.gateways.length) await pause(10);
      victim.signal('SIGCONT');
      const from = performance.now();
      while ((await subscribers()) < fleet.gateways.length) await pause(20);
      backMs = performance.now() - from;
    };
    while (sent < total) {
      const unanswered = publishers.reduce((sum, client) => sum + client.unanswered, 0);
      if (unanswered > 256) {
        await pause(2);
        continue;
      }
      const publisher = publishers[sent % publishers.length];
      if (publisher === undefined) throw new Error('every client is on the same instance: run it again');
      const { attempt, content } = fleet.ledger.attempt(publisher.name, 'room:r0', bytes);
      publisher.publish('room:r0', attempt, content);
      sent += 1;
      if (sent % 64 === 0) await pause(1);
      if (stopped === null && sent > total / 3) {
        stopped = stopUntilCut();
      }
    }
    await stopped;
    await fleet.stopLoad(60_000);
    const failures: string[] = [];
    const cuts = (await fleet.metric('fanfare_redis_reconnects_total', { role: 'subscriber' })) - before;
    if (cuts < 1) failures.push('Redis cut no subscriber: the fault did not happen');
    if (backMs > 2_000) failures.push(`subscriber back after ${Math.round(backMs)} ms`);
    if (fleet.tally.closes.size > 0) failures.push('clients were disconnected');
    if (fleet.ledger.gaps > 0) failures.push('a gap was told');
    return { ...fleet.result(failures, [`${cuts} subscribers cut`]), recoveryMs: backMs };
  },
};

export const outOfMemory: Row = {
  name: '16',
  fault: 'Redis at maxmemory, noeviction',
  criterion:
    'publishes answered broker_unavailable, reads go on, nothing acknowledged that is not stored, publishes again after more memory; 0 disconnects',
  extraSeconds: 60,
  async run(context) {
    const redis = context.own(await RedisServer.start({ 'maxmemory-policy': 'noeviction' }));
    const fleet = await Fleet.start(context, { redis });
    const failures: string[] = [];
    let readsFine = 0;
    let recoveryMs = Infinity;
    await fleet.through(async () => {
      const info = await redis.commands.info('memory');
      const used = Number(/used_memory:(\d+)/.exec(info)?.[1]);
      await redis.commands.config('SET', 'maxmemory', String(used + 64 * 1024));
      await eventually(
        () => {
          if ((fleet.ledger.errors.get('broker_unavailable') ?? 0) < 20) throw new Error('no errors yet');
        },
        { timeoutMs: 30_000, everyMs: 50 },
      ).catch(() => failures.push('no publish was refused: the fault did not happen'));
      for (let tries = 0; tries < 20; tries += 1) {
        const client = fleet.clients[Math.floor(Math.random() * fleet.clients.length)];
        if (client === undefined || !client.isJoined) continue;
        const answer = await client.request({ type: 'history', room: client.room, limit: 10 });
        if (answer['event'] === 'history') readsFine += 1;
        else failures.push(`history was answered by ${JSON.stringify(answer)}`);
      }
      // Coming back is reading too.
      for (const client of fleet.clients.slice(0, 10)) client.cut();
      await pause(3_000);
      const back = fleet.clients.slice(0, 10).filter((client) => client.isJoined).length;
      if (back < 10) failures.push(`only ${back} of 10 could resume meanwhile`);
      await redis.commands.config('SET', 'maxmemory', '0');
      recoveryMs = await fleet.deliveredEverywhere();
    });
    if (fleet.gateways.some((gateway) => !gateway.isRunning)) failures.push('a gateway has ended');
    if (fleet.tally.closes.size > 0) failures.push('clients were disconnected');
    if (recoveryMs > 5_000) failures.push('no delivery within 5 s of having memory again');
    let stored = 0;
    for (const key of await redis.keys('*:log')) stored += await redis.commands.xlen(key);
    if (stored < fleet.ledger.acknowledged)
      failures.push(`${stored} stored, ${fleet.ledger.acknowledged} acknowledged`);
    return {
      ...fleet.result(failures, [`${readsFine} histories read meanwhile`, `${stored} stored`]),
      recoveryMs,
    };
  },
};
