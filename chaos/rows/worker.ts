import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { tracked } from '../../test/support/child.js';
import { number, type Client } from '../../test/support/client.js';
import { eventually } from '../../test/support/eventually.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { Fleet } from '../fleet.js';
import type { Context, Row } from '../row.js';
import { TcpProxy } from '../tcp-proxy.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const STREAM = 'inbound';
const KEY = 'worker-key';
const WORKERS = 2;
const ROOMS = 20;
const SENDERS = 5;
/** Messages of one sender that are not acknowledged yet. */
const WINDOW = 20;
const CLAIM_AFTER_MS = 1_500;
const KILL_EVERY_MS = 1_000;
const DONE_MS = 240_000;

/** Workers of `examples/worker`, as they are documented, of which one is killed now and then; each is replaced. */
class Workers {
  kills = 0;
  #children: ChildProcess[] = [];
  #isOver = false;
  #isGone = false;
  #killing: Promise<void> = Promise.resolve();

  constructor(private readonly environment: () => Record<string, string>) {}

  static async build(): Promise<void> {
    await promisify(execFile)('node_modules/.bin/tsc', ['-p', 'examples/worker'], { cwd: root });
  }

  start(): void {
    for (let place = 0; place < WORKERS; place += 1) this.#hire(place);
    this.#killing = this.#kill();
  }

  /** No further kills: what is left is to be finished by those who live. */
  async calm(): Promise<void> {
    this.#isOver = true;
    await this.#killing;
  }

  async dispose(): Promise<void> {
    await this.calm();
    this.#isGone = true;
    for (const child of this.#children) child.kill('SIGKILL');
  }

  #hire(place: number): void {
    const child = spawn(process.execPath, ['examples/worker/dist/worker.js'], {
      cwd: root,
      env: { PATH: process.env['PATH'], ...this.environment() },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    this.#children[place] = child;
    void tracked(child).then(() => {
      if (!this.#isGone) this.#hire(place);
    });
  }

  async #kill(): Promise<void> {
    while (!this.#isOver) {
      await pause(KILL_EVERY_MS * (0.3 + Math.random() * 1.4));
      if (this.#isOver) return;
      this.kills += 1;
      this.#children[Math.floor(Math.random() * WORKERS)]?.kill('SIGKILL');
    }
  }
}

export const worker: Row = {
  name: 'worker',
  fault: '10,000 client messages for two workers, one of them killed at random times (quick: 1,500)',
  criterion: '0 lost; each answered exactly once; the stream empty at the end',
  extraSeconds: 400,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, {
      redis,
      size: { clients: 0 },
      settings: { INBOUND_STREAM: STREAM, API_KEYS: `${KEY}:publish`, ANNOUNCE_MEMBERS_MAX: '1' },
    });
    await Workers.build();
    const total = context.size.isQuick ? 1_500 : 10_000;
    const rooms = Array.from({ length: ROOMS }, (_value, index) => `room-${index}`);
    const reader = await connectTo(fleet, 'reader', 2, rooms);
    const answered = new Map<string, number>();
    let answers = 0;
    reader.watch(({ event, room, content }) => {
      if (event !== 'answer') return;
      const name = `${String(room)} ${(content as { of: string }).of}`;
      answers += 1;
      answered.set(name, (answered.get(name) ?? 0) + 1);
    });
    const doors = await Promise.all(fleet.gateways.map((gateway) => Door.open(context, gateway.url)));
    let chosen = 0;
    const workers = context.own(
      new Workers(() => ({
        REDIS_URL: redis.url,
        INBOUND_STREAM: STREAM,
        FANFARE_URL: doors[(chosen += 1) % doors.length]?.url ?? '',
        FANFARE_API_KEY: KEY,
        WORKER_CLAIM_AFTER_MS: String(CLAIM_AFTER_MS),
      })),
    );
    context.status = () => `${acks.size} acknowledged, ${answers} answers, ${workers.kills} kills`;
    const acks = new Set<string>();
    const began = performance.now();
    workers.start();
    await Promise.all(
      Array.from({ length: SENDERS }, async (_value, index) => {
        const sender = await connectTo(fleet, `sender-${index}`, index, rooms);
        await send(sender, total / SENDERS, rooms, acks);
      }),
    );
    const sentS = (performance.now() - began) / 1000;
    // Kills go on until nearly all is answered.
    const until = performance.now() + DONE_MS;
    while (answered.size < total * 0.95 && performance.now() < until) await pause(100);
    await workers.calm();
    await emptied(context, redis, until - performance.now());
    const tookS = (performance.now() - began) / 1000;
    await reader.fence();

    const failures: string[] = [];
    const lost = [...acks].filter((name) => !answered.has(name)).length;
    const twice = [...answered.values()].filter((times) => times > 1).length;
    const strange = [...answered.keys()].filter((name) => !acks.has(name)).length;
    if (acks.size !== total) failures.push(`${acks.size} of ${total} acknowledged`);
    if (lost > 0) failures.push(`${lost} lost`);
    if (twice > 0) failures.push(`${twice} answered more than once`);
    if (strange > 0) failures.push(`${strange} answers to nothing`);
    if (workers.kills < (context.size.isQuick ? 3 : 10)) failures.push(`only ${workers.kills} kills`);
    const left = await redis.commands.xlen(STREAM);
    if (left > 0) failures.push(`${left} entries left in the stream`);
    const asked = new Map<string, number>();
    for (const door of doors)
      for (const [key, times] of door.asked) asked.set(key, (asked.get(key) ?? 0) + times);
    const again = [...asked.values()].filter((times) => times > 1).length;
    return {
      published: total,
      acknowledged: acks.size,
      deliveries: answers,
      failures,
      notes: [
        `${workers.kills} kills`,
        `${again} messages handled more than once and answered once`,
        `sent in ${sentS.toFixed(1)} s, all answered after ${tookS.toFixed(1)} s`,
      ],
    };
  },
};

/** The way of the workers to one instance, on which their calls are counted by `Idempotency-Key`. */
class Door {
  readonly asked = new Map<string, number>();

  private constructor(readonly url: string) {}

  static async open(context: Context, gatewayUrl: string): Promise<Door> {
    const proxy = context.own(await TcpProxy.start(Number(new URL(gatewayUrl).port)));
    const door = new Door(`http://127.0.0.1:${proxy.port}`);
    proxy.onLink = (link) => {
      link.onUpstream = (chunk) => {
        for (const [, key = ''] of chunk.toString('latin1').matchAll(/^idempotency-key: (\w+)/gim))
          door.asked.set(key, (door.asked.get(key) ?? 0) + 1);
      };
    };
    return door;
  }
}

async function connectTo(
  fleet: Fleet,
  name: string,
  place: number,
  rooms: readonly string[],
): Promise<Client> {
  const gateway = fleet.gateways[place % fleet.gateways.length];
  if (gateway === undefined) throw new Error('no gateway');
  const client = await gateway.as(name);
  for (const room of rooms) await client.request({ type: 'join_room', room });
  return client;
}

/** Sends `count` messages, a few at a time; `acks` gets the room and id of each. */
async function send(
  sender: Client,
  count: number,
  rooms: readonly string[],
  acks: Set<string>,
): Promise<void> {
  let left = count;
  const one = async (): Promise<void> => {
    while ((left -= 1) >= 0) {
      const room = rooms[left % rooms.length] ?? '';
      const message = {
        type: 'room_message',
        room,
        content: { n: left },
        message_id: `${sender.userId}-${left}`,
      };
      const ack = await sender.request(message, 60_000);
      acks.add(`${room} ${number(ack, 'id')}`);
      // What members are told is not read here.
      sender.forget();
    }
  };
  await Promise.all(Array.from({ length: WINDOW }, one));
}

async function emptied(context: Context, redis: RedisServer, timeoutMs: number): Promise<void> {
  await eventually(
    async () => {
      const entries = await redis.commands.xlen(STREAM);
      if (entries > 0) throw new Error(`${entries} entries in the stream`);
    },
    { timeoutMs: Math.max(timeoutMs, 10_000), everyMs: 200 },
  ).catch((error: unknown) => context.say(String(error)));
}
