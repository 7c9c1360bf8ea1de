import { fork, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tracked } from '../../test/support/child.js';
import { eventually } from '../../test/support/eventually.js';
import { freePort, RedisServer } from '../../test/support/redis-server.js';
import { Fleet } from '../fleet.js';
import type { Context, Row } from '../row.js';
import type { Receipt } from '../webhook-receiver.js';

const program = fileURLToPath(new URL('../webhook-receiver.ts', import.meta.url));
const loader = new URL('../../scripts/typescript.mjs', import.meta.url).href;
const SECRET = 'a secret of the backend';
const LANES = 10;
/** Each user connects, fills a room of its own, empties it, and disconnects. */
const EVENTS_PER_USER = 4;
/** Of the deliveries, those in whose midst the receiver dies: before it stores, before it answers, or after that. */
const KILLED_SHARE = 0.2;
const KILL_WITHIN_MS = 40;
/** Failures are followed by growing pauses, up to a minute. */
const DONE_MS = 240_000;

type Event = Receipt['events'][number];

/** A backend's process that is killed now and then, and is back at once. */
class Receiver {
  kills = 0;
  #child: ChildProcess | null = null;
  #ended: Promise<unknown> = Promise.resolve();
  #isOver = false;

  private constructor(
    private readonly port: number,
    private readonly directory: string,
  ) {}

  static async start(): Promise<Receiver> {
    const receiver = new Receiver(await freePort(), await mkdtemp(join(tmpdir(), 'fanfare-webhooks-')));
    await writeFile(receiver.#file, '');
    receiver.#spawn();
    return receiver;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/hooks`;
  }

  async receipts(): Promise<Receipt[]> {
    const text = await readFile(this.#file, 'utf8');
    // The last line is whole or not there yet.
    return text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Receipt);
  }

  async dispose(): Promise<void> {
    this.#isOver = true;
    this.#child?.kill('SIGKILL');
    await this.#ended;
    await rm(this.directory, { recursive: true, force: true });
  }

  get #file(): string {
    return join(this.directory, 'receipts');
  }

  #spawn(): void {
    if (this.#isOver) return;
    const args = [String(this.port), SECRET, this.#file];
    const child = fork(program, args, { execArgv: ['--import', loader], stdio: 'inherit' });
    child.on('message', () => {
      if (Math.random() < KILLED_SHARE) setTimeout(() => this.#kill(child), Math.random() * KILL_WITHIN_MS);
    });
    this.#child = child;
    this.#ended = tracked(child).then(() => this.#spawn());
  }

  #kill(child: ChildProcess): void {
    if (child.killed || this.#isOver) return;
    this.kills += 1;
    child.kill('SIGKILL');
  }
}

export const webhook: Row = {
  name: 'webhook',
  fault: '10,000 webhook events; the receiver killed at random, answering 500 at times (quick: 1,200)',
  criterion:
    'each event at least once, in order for its user; doubles told by their ids; every signature right',
  extraSeconds: 400,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const receiver = context.own(await Receiver.start());
    const fleet = await Fleet.start(context, {
      redis,
      size: { clients: 0 },
      settings: { WEBHOOK_URL: receiver.url, WEBHOOK_SECRET: SECRET, PRESENCE_GRACE_MS: '0' },
    });
    const total = context.size.isQuick ? 1_200 : 10_000;
    const began = performance.now();
    let users = 0;
    context.status = () => `${users} users of ${total / EVENTS_PER_USER}, ${receiver.kills} kills`;
    await Promise.all(
      Array.from({ length: LANES }, async () => {
        while (users < total / EVENTS_PER_USER) await visit(fleet, (users += 1));
      }),
    );
    const madeS = (performance.now() - began) / 1000;
    await taken(context, receiver, total);
    const tookS = (performance.now() - began) / 1000;

    const receipts = await receiver.receipts();
    const { failures, doubles } = judge(receipts, users);
    if (receiver.kills < (context.size.isQuick ? 2 : 10)) failures.push(`only ${receiver.kills} kills`);
    const refused = receipts.filter(({ verdict }) => verdict !== 'stored').length;
    return {
      published: total,
      deliveries: receipts.reduce((sum, { events }) => sum + events.length, 0),
      failures,
      notes: [
        `${receipts.length} deliveries`,
        `${receiver.kills} kills, ${refused} answered by 500`,
        `${doubles} events stored more than once`,
        `made in ${madeS.toFixed(1)} s, all received after ${tookS.toFixed(1)} s`,
      ],
    };
  },
};

async function visit(fleet: Fleet, index: number): Promise<void> {
  const gateway = fleet.gateways[index % fleet.gateways.length];
  if (gateway === undefined) throw new Error('no gateway');
  const client = await gateway.as(`user-${index}`);
  await client.request({ type: 'join_room', room: `room-${index}` });
  await client.request({ type: 'leave_room', room: `room-${index}` });
  await client.close();
}

function stored(receipts: readonly Receipt[]): Event[] {
  return receipts.flatMap(({ verdict, events }) => (verdict === 'refused' ? [] : events));
}

async function taken(context: Context, receiver: Receiver, total: number): Promise<void> {
  await eventually(
    async () => {
      const ids = new Set(stored(await receiver.receipts()).map(({ id }) => id));
      if (ids.size < total) throw new Error(`${ids.size} of ${total} events received`);
    },
    { timeoutMs: DONE_MS, everyMs: 500 },
  ).catch((error: unknown) => context.say(String(error)));
}

/** What a backend that drops known ids has seen of each name, against what happened. */
function judge(receipts: readonly Receipt[], users: number): { failures: string[]; doubles: number } {
  const failures: string[] = [];
  const unsigned = receipts.filter(({ isSigned }) => !isSigned).length;
  if (unsigned > 0) failures.push(`${unsigned} deliveries with a wrong signature`);
  const known = new Map<string, string>();
  const batches = new Map<string, string>();
  const stories = new Map<string, string[]>();
  let [doubles, changed] = [0, 0];
  for (const { delivery, events, verdict } of receipts) {
    const text = JSON.stringify(events);
    if ((batches.get(delivery) ?? text) !== text) changed += 1;
    batches.set(delivery, text);
    if (verdict === 'refused') continue;
    for (const event of events) {
      const before = known.get(event.id);
      if (before !== undefined) doubles += 1;
      if (before !== undefined && before !== JSON.stringify(event)) changed += 1;
      known.set(event.id, JSON.stringify(event));
      if (before !== undefined) continue;
      const name = event.data.user_id ?? event.data.room ?? '';
      stories.set(name, [...(stories.get(name) ?? []), event.type]);
    }
  }
  if (changed > 0) failures.push(`${changed} ids with another content than before`);
  let wrong = 0;
  for (let index = 1; index <= users; index += 1) {
    if (stories.get(`user-${index}`)?.join() !== 'user.connected,user.disconnected') wrong += 1;
    if (stories.get(`room-${index}`)?.join() !== 'room.occupied,room.vacated') wrong += 1;
  }
  if (wrong > 0) failures.push(`${wrong} users and rooms with another story than their own`);
  if (stories.size !== users * 2) failures.push(`${stories.size} users and rooms instead of ${users * 2}`);
  return { failures, doubles };
}
