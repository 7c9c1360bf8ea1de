import { setTimeout as pause } from 'node:timers/promises';
import { Checker, type Mark } from './checker.js';
import { number, text, type Client, type Message } from './client.js';
import type { Door } from './durable.js';
import { eventually } from './eventually.js';
import { fresh } from './names.js';

/** A reader of one room that comes back whenever it is cut, with the last id that it saw, through the next door. */
export class Follower {
  /** How its connections ended. */
  readonly closes: number[] = [];
  readonly gaps: Message[] = [];
  /** What each resume was answered. */
  readonly recoveries: boolean[] = [];
  private readonly reader: ReturnType<Checker['reader']>;
  private readonly markers = new Set<number>();
  private last: { id: number; epoch: string } | null = null;
  private isDone = false;
  private attempts = 0;

  private constructor(
    readonly user: string,
    private readonly checker: Checker,
    private readonly doors: readonly Door[],
    private readonly room: string,
  ) {
    this.reader = this.checker.reader(user, `room:${room}`);
  }

  static async start(checker: Checker, doors: readonly Door[], room: string): Promise<Follower> {
    const follower = new Follower(fresh('follower'), checker, doors, room);
    await follower.come();
    return follower;
  }

  /** The contents under each id, by epoch. */
  get reads(): readonly { id: number; epoch: string; publisher: string; counter: number }[] {
    return this.reader.reads;
  }

  hasRead(marker: number): boolean {
    return this.markers.has(marker);
  }

  /** Does not come back any more. */
  stop(): void {
    this.isDone = true;
  }

  private async come(): Promise<void> {
    const door = this.doors[this.attempts % this.doors.length];
    this.attempts += 1;
    if (door === undefined) throw new Error('there is no door');
    const client = await door.as(this.user);
    client.watch((message) => {
      if (message['room'] === this.room) this.take(message);
    });
    const { id, epoch } = this.last ?? {};
    const reply = await client.request({ type: 'join_room', room: this.room, last_event_id: id, epoch });
    if (reply.event !== 'joined_room') throw new Error(`not joined: ${JSON.stringify(reply)}`);
    void client.closed.then(({ code }) => this.onClosed(code));
  }

  private onClosed(code: number): void {
    this.closes.push(code);
    if (!this.isDone) void this.comeBack();
  }

  private async comeBack(): Promise<void> {
    while (!this.isDone) {
      try {
        await this.come();
        return;
      } catch {
        // Refused, or cut again before it was in: it tries the next door.
        await pause(50);
      }
    }
  }

  private take(message: Message): void {
    if (message.event === 'joined_room') {
      if (this.last === null)
        this.last = { id: number(message, 'last_event_id'), epoch: text(message, 'epoch') };
      else this.recoveries.push(message['recovered'] === true);
    } else if (message.event === 'gap') {
      this.gaps.push(message);
      this.reader.claimsContinuity = false;
      this.last = { id: number(message, 'next') - 1, epoch: text(message, 'epoch') };
    } else if (message.event === 'chat') {
      const { publisher, counter } = message['content'] as Mark;
      const { epoch } = this.last ?? { epoch: '' };
      const id = number(message, 'id');
      this.last = { id, epoch };
      this.reader.reads.push({ publisher, counter, id, epoch });
      if (publisher === 'marker') this.markers.add(counter);
    }
  }
}

/** Writers that publish to a room at a steady rate, whatever they are answered, until they are stopped. */
export class Load {
  readonly checker = new Checker();
  readonly room = fresh('load');
  /** Answers by kind: `ack`, or the code of the error; `cut` where the writer's connection ended. */
  readonly outcomes = new Map<string, number>();
  readonly acknowledged: Mark[] = [];
  private readonly pending = new Set<Promise<void>>();
  private isRunning = false;
  private running: Promise<void> = Promise.resolve();

  constructor(readonly perSecond: number) {}

  follow(doors: readonly Door[], count: number): Promise<Follower[]> {
    const turned = (index: number): Door[] =>
      doors.map((_door, at) => doors[(at + index) % doors.length] as Door);
    return Promise.all(
      Array.from({ length: count }, (_value, index) =>
        Follower.start(this.checker, turned(index), this.room),
      ),
    );
  }

  async writer(door: Door): Promise<Client> {
    const writer = await door.as(fresh('writer'));
    await writer.request({ type: 'join_room', room: this.room });
    return writer;
  }

  start(writers: readonly Client[]): void {
    this.isRunning = true;
    this.running = this.run(writers);
  }

  /** Resolves when every message has had its answer. */
  async stop(): Promise<void> {
    this.isRunning = false;
    await this.running;
    await Promise.all(this.pending);
  }

  /** Resolves once that many more messages were acknowledged. */
  async flows(count: number, timeoutMs = 15_000): Promise<void> {
    const target = this.acknowledged.length + count;
    await eventually(
      () => {
        if (this.acknowledged.length < target)
          throw new Error(`${this.acknowledged.length} of ${target}: ${JSON.stringify([...this.outcomes])}`);
      },
      { timeoutMs },
    );
  }

  /** Publishes a marker until it is acknowledged; resolves once every follower has read it, so all before it. */
  async settle(writer: Client, followers: readonly Follower[], timeoutMs = 15_000): Promise<void> {
    const marker = await eventually(
      async () => {
        const mark = this.checker.attempt('marker', `room:${this.room}`);
        if (!(await this.publish(writer, mark))) throw new Error('the marker was not acknowledged');
        return mark.counter;
      },
      { timeoutMs },
    );
    await eventually(
      () => {
        const behind = followers.filter((follower) => !follower.hasRead(marker));
        if (behind.length > 0) throw new Error(`${behind.length} followers have not read the marker`);
      },
      { timeoutMs },
    );
    for (const follower of followers) follower.stop();
  }

  /** True where it was acknowledged. */
  async publish(writer: Client, content: Mark): Promise<boolean> {
    const outcome = await writer.request({ type: 'room_message', room: this.room, content }, 10_000).then(
      (reply) => (reply.event === 'error' ? text(reply, 'code') : (reply.event ?? 'nothing')),
      () => 'cut',
    );
    this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1);
    if (outcome !== 'ack') return false;
    this.acknowledged.push(content);
    this.checker.acknowledged(`room:${this.room}`, content);
    return true;
  }

  private async run(writers: readonly Client[]): Promise<void> {
    const began = performance.now();
    for (let sent = 0; this.isRunning; sent += 1) {
      const writer = writers[sent % writers.length];
      if (writer === undefined) throw new Error('nobody writes');
      if (writer.closedWith === undefined) {
        const publish = this.publish(writer, this.checker.attempt(writer.userId, `room:${this.room}`)).then(
          () => undefined,
        );
        this.pending.add(publish);
        void publish.finally(() => this.pending.delete(publish));
      }
      const dueMs = began + ((sent + 1) * 1_000) / this.perSecond;
      await pause(Math.max(0, dueMs - performance.now()));
    }
  }
}

/** Ids that two readers, or one, read for different events under one epoch. */
export function idsUsedTwice(followers: readonly Follower[]): string[] {
  const events = new Map<string, string>();
  const twice: string[] = [];
  for (const { reads } of followers) {
    for (const { epoch, id, publisher, counter } of reads) {
      const event = `${publisher}#${counter}`;
      const known = events.get(`${epoch}/${id}`);
      if (known !== undefined && known !== event) twice.push(`${epoch}/${id}: ${known} and ${event}`);
      events.set(`${epoch}/${id}`, event);
    }
  }
  return twice;
}
