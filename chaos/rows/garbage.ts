import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { connect, type Client, type Message } from '../../test/support/client.js';
import { status } from '../../test/support/http.js';
import { json, LocalServer } from '../../test/support/local-server.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { Fleet } from '../fleet.js';
import type { Row } from '../row.js';

const ROOM = 'target';
const HUGE_BYTES = 10 * 1024 * 1024;
const ROUNDS = 20;
const FOREIGN_ENTRIES = 20;
/** What a client may be told in this row; anything else came from the garbage. */
const EXPECTED = new Set([
  'connected',
  'user_connected',
  'joined_room',
  'user_joined',
  'chat',
  'ack',
  'pong',
]);

/** What no version of ours writes, whatever the bus. */
function garbage(isHuge: boolean): (Buffer | string)[] {
  const epoch = 'aaaaaaaaaaaaaaa.1';
  const body = '{"event":"chat","from":"eve","content":"foreign","ts":1';
  const { length } = body;
  return [
    '',
    '\n',
    '\u0000\u0001\u0002',
    '{}',
    'null',
    `${body}}`,
    // Versions before and after ours, and headers that are nearly right.
    `0 1 1 ${epoch} ${length} \n${body}`,
    `2 1 1 ${epoch} ${length} \n${body}`,
    `10 1 1 ${epoch} ${length} \n${body}`,
    `1 -1 1 ${epoch} ${length} \n${body}`,
    `1 1 1e3 ${epoch} ${length} \n${body}`,
    `1 1 99999999999999999 ${epoch} ${length} \n${body}`,
    `1 1 1 ${length} \n${body}`,
    `1 1 1 ${'e'.repeat(65)} ${length} \n${body}`,
    `1 1 1 ${epoch} ${length} ${'x'.repeat(2_000)}\n${body}`,
    `1 1 1 ${epoch} ${length} ${body}`,
    `1 1 1 ${epoch} ${length + 1} \n${body}`,
    `1 1 1 ${epoch} \n${body}`,
    `1 1 1 ${epoch} 3 \n[1]`,
    `1 1 1 ${epoch} 0 \n`,
    // Of the control bus and of the buses of instances.
    'ask',
    'ask control n x\n{',
    'ask control n x\nnull',
    'ask control n x\n{"kind":"nonsense"}',
    'ask control n x\n{"kind":"disconnect"}',
    'ask lives n x\n{',
    'ask __proto__ n x\n{}',
    'answer n x\n{}',
    'settled ',
    ...[1, 16, 300, 5_000].map((length) => randomBytes(length)),
    // Begins like ours, and is none.
    Buffer.concat([Buffer.from('1 '), randomBytes(200)]),
    ...(isHuge ? [randomBytes(HUGE_BYTES), 'x'.repeat(HUGE_BYTES)] : []),
  ];
}

export const foreignMessages: Row = {
  name: '29',
  fault:
    'garbage on every Redis channel of the gateway, and in its streams: random bytes, 10 MB, other versions',
  criterion: '0 forwarded, 0 restarts, 0 closes; counted; what follows is delivered',
  extraSeconds: 120,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const hooked: { type: string; data: object }[] = [];
    const receiver = context.own(
      await LocalServer.start((_request, body, response) => {
        hooked.push(...(JSON.parse(body) as { events: typeof hooked }).events);
        json(response, {});
      }),
    );
    const settings = { ANNOUNCE_USERS: 'true', WEBHOOK_URL: receiver.url, WEBHOOK_SECRET: 'a secret' };
    const fleet = await Fleet.start(context, { redis, size: { clients: 0 }, settings });
    const pids = fleet.gateways.map(({ pid }) => pid);
    const clients = await Promise.all(
      fleet.gateways.map((gateway, index) =>
        connect(gateway.ws(), { query: { client_id: `user-${index}` } }),
      ),
    );
    for (const client of clients) await client.request({ type: 'join_room', room: ROOM });
    const [first] = clients;
    if (first === undefined) throw new Error('no client');
    const channels = await redis.subscriptions('*');
    const kinds = new Map<string, number>();
    for (const name of channels) kinds.set(kindOf(name), (kinds.get(kindOf(name)) ?? 0) + 1);
    const failures: string[] = [];
    for (const kind of ['bus', 'control', 'instance', 'notices', 'probe'])
      if (!kinds.has(kind)) failures.push(`no ${kind} was found`);
    const rounds = context.size.isQuick ? 3 : ROUNDS;
    let sent = 0;
    let countable = 0;
    for (let round = 0; round < rounds; round += 1) {
      for (const channel of channels) {
        // 256 notices and probes would be 5 GB.
        const isHuge = round === 0 && (!/notices|probe/.test(channel) || channel.includes('{7}'));
        for (const bytes of garbage(isHuge)) {
          const received = await redis.commands.publish(channel, bytes);
          sent += received;
          if (isForeign(kindOf(channel), bytes)) countable += received;
        }
      }
      context.status = () => `${sent} messages, round ${round + 1} of ${rounds}`;
      await said(clients, round, failures);
    }
    const counted = await fleet.metric('fanfare_dropped_bus_messages_total');
    if (counted !== countable) failures.push(`${counted} of ${countable} counted as dropped`);
    failures.push(...(await streamFaults(redis, first, fleet.gateways[0]?.ws() ?? '')));
    await pause(2_000);
    const foreign = hooked.filter(({ type }) => !/^(user|room)\./.test(type)).length;
    if (foreign > 0) failures.push(`${foreign} foreign entries sent to the webhook`);
    for (const client of clients) {
      const odd = client.all.filter((message) => message.type !== 'ping' && !isOurs(message));
      if (odd.length > 0) failures.push(`${odd.length} forwarded: ${JSON.stringify(odd[0]).slice(0, 200)}`);
      if (client.closedWith !== undefined) failures.push(`closed with ${client.closedWith.code}`);
    }
    for (const [index, gateway] of fleet.gateways.entries()) {
      if (!gateway.isRunning || gateway.pid !== pids[index]) failures.push('an instance has ended');
      else if ((await status(`${gateway.url}/health/ready`)) !== 200)
        failures.push('an instance is not ready');
    }
    return {
      failures,
      rssGrowthMb: fleet.rssGrowthMb,
      notes: [
        `${sent} foreign messages received on ${[...kinds].map(([kind, count]) => `${count} ${kind}`).join(', ')}`,
        `${counted} of ${countable} that are no message there counted as dropped`,
      ],
    };
  },
};

function isOurs(message: Message): boolean {
  if (message.event === 'history') return (message['events'] as Message[]).every(isOurs);
  if (!EXPECTED.has(message.event ?? '')) return false;
  return message.event !== 'chat' || /^(ours|last)/.test(String(message['content']));
}

/** Any message on a probe's bus is a probe; a question or an answer with nonsense in it is one. */
function isForeign(kind: string, bytes: Buffer | string): boolean {
  const text = bytes.toString();
  if (kind === 'control') return !text.startsWith('ask control n x');
  return kind === 'instance' ? !text.startsWith('answer n x') : kind !== 'probe';
}

function kindOf(channel: string): string {
  return (
    /(bus|control|instance|notices|probe)/.exec(channel.replace(/^fanfare:(\{\d+\}:)?/, ''))?.[1] ?? channel
  );
}

/** A message from each instance reaches all others, once. */
async function said(clients: readonly Client[], round: number, failures: string[]): Promise<void> {
  for (const [index, client] of clients.entries()) {
    const content = `ours ${round} ${index}`;
    const { event } = await client.request({ type: 'room_message', room: ROOM, content }, 20_000);
    if (event !== 'ack') failures.push(`a message was answered by ${String(event)}`);
    for (const reader of clients) await reader.next((message) => message['content'] === content, 20_000);
  }
}

/** Entries of others in the stream of a room and in that of the webhooks. */
async function streamFaults(redis: RedisServer, reader: Client, address: string): Promise<string[]> {
  const failures: string[] = [];
  const [log] = await redis.keys(`*room:${ROOM}:log`);
  if (log === undefined) return ['the room has no stream'];
  const head = String((await redis.commands.xrevrange(log, '+', '-', 'COUNT', 1))[0]?.[0]);
  for (let entry = 1; entry <= FOREIGN_ENTRIES; entry += 1)
    await redis.commands.xadd(log, head.replace(/-.*/, `-${entry}`), 'foreign', randomBytes(300));
  for (let entry = 0; entry < FOREIGN_ENTRIES; entry += 1)
    await redis.commands.xadd('fanfare:webhooks', '*', 'foreign', `value ${entry}`, 'x', 'y');
  const last = await reader.request({ type: 'room_message', room: ROOM, content: 'last' }, 20_000);
  if (last.event !== 'ack') failures.push(`a message was answered by ${String(last.event)}`);
  const history = await reader.request({ type: 'history', room: ROOM, limit: 100 }).catch(() => null);
  if (history?.event !== 'history' || !isOurs(history)) failures.push('history has entries of others');
  // Somebody who resumes gets everything from its position on, or is told by a gap.
  const late = await connect(address, { query: { client_id: 'late' } });
  const reply = await late.request({
    type: 'join_room',
    room: ROOM,
    last_event_id: 1,
    epoch: history?.['epoch'],
  });
  await late.fence();
  const ids = late.all.filter(({ event }) => event === 'chat').map(({ id }) => Number(id));
  const gap = late.all.find(({ event }) => event === 'gap');
  const isWhole =
    ids.join() === Array.from({ length: Number(last['id']) - 1 }, (_value, at) => at + 2).join();
  if (reply['recovered'] === true ? !isWhole : gap === undefined || ids.length > 0)
    failures.push(`a resume got ${ids.join()} with ${JSON.stringify(reply)}`);
  if (!late.all.every((message) => message === gap || isOurs(message)))
    failures.push('a resume got entries of others');
  await late.cut();
  return failures;
}
