import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BrokerUnavailable } from '../../src/core/broker.js';
import type { Channel } from '../../src/core/channel.js';
import type { Connection } from '../../src/core/connection.js';
import { Hub } from '../../src/core/hub.js';
import { Turn } from '../../src/core/turn.js';
import { continues } from '../../src/core/position.js';
import type { ReplayOutcome, ReplayStart } from '../../src/core/replay.js';
import type { Position } from '../../src/protocol/messages.js';
import { ScriptedBroker } from '../support/scripted-broker.js';
import { connect, FakeTelemetry, settled, type FakeTransport } from './fakes.js';

const ROOM = 'room:a';
const SLOW_CONSUMER_BYTES = 4_096;

type Step =
  | { do: 'store'; count: number; exclude: number | null }
  | { do: 'deliver'; count: number }
  | { do: 'deliver twice' }
  | { do: 'drop'; count: number }
  | { do: 'look'; nth: number }
  | { do: 'answer'; count: number }
  | { do: 'trim'; keep: number }
  | { do: 'lose' }
  | { do: 'away' }
  | { do: 'back' }
  | { do: 'compare' }
  | {
      do: 'join';
      from: 'now' | 'last seen' | 'rewind' | 'somewhere';
      id: number;
      epoch: 'known' | 'other' | 'none';
    }
  | { do: 'leave'; nth: number }
  | { do: 'close'; nth: number }
  | { do: 'read'; nth: number; queued: number }
  | { do: 'settle' };

/** What a member is told, held against what it should be told. */
class Member {
  readonly connection: Connection;
  readonly transport: FakeTransport;
  channel: Channel | null = null;
  /** Where it stands; null until it was let in. */
  at: Position | null = null;
  /** The gap that has to come first, where the start could not be gone on from. */
  owed: { after: number; next: number; epoch: string } | null = null;
  isLeft = false;
  private read = 0;

  constructor(
    readonly name: string,
    private readonly broker: ScriptedBroker,
  ) {
    ({ connection: this.connection, transport: this.transport } = connect(name, {
      id: name,
      slowConsumerBytes: SLOW_CONSUMER_BYTES,
    }));
  }

  /** Follows what has been written since the last call; throws at the first frame that should not be there. */
  follow(): void {
    const events = this.transport.events;
    for (const event of events.slice(this.read)) {
      if (this.at === null)
        throw new Error(`${this.name} was told ${JSON.stringify(event)} before its reply`);
      if (event['event'] === 'gap') this.onGap(event);
      else this.onChat(String(event['content']), Number(event['id']));
    }
    this.read = events.length;
  }

  private onChat(content: string, id: number): void {
    const at = this.skip(id - 1);
    const told = `${this.name} at ${at.epoch}/${at.id} was told ${content}`;
    if (this.owed !== null) throw new Error(`${told} before its gap`);
    const [epoch = '', number] = content.split('/');
    if (Number(number) !== id) throw new Error(`${told} as ${id}`);
    if (id !== at.id + 1) throw new Error(told);
    if (epoch !== at.epoch && !continues(at, epoch)) throw new Error(told);
    this.at = { epoch, id };
  }

  private onGap(event: Record<string, unknown>): void {
    const gap = { after: Number(event['after']), next: Number(event['next']), epoch: String(event['epoch']) };
    const told = `${this.name} at ${JSON.stringify(this.at)} was told ${JSON.stringify(gap)}`;
    if (this.owed === null) {
      const at = this.skip(gap.after);
      if (at.id !== gap.after) throw new Error(told);
      const isTrimmed = gap.next - 1 <= (this.broker.everTrimmedTo.get(gap.epoch) ?? 0);
      if (continues(at, gap.epoch) && !(isTrimmed && gap.next > gap.after + 1))
        throw new Error(`${told}, and nothing is gone`);
    } else {
      const { after, next, epoch } = this.owed;
      if (gap.after !== after || gap.next !== next || gap.epoch !== epoch)
        throw new Error(`${told} instead of ${JSON.stringify(this.owed)}`);
      this.owed = null;
    }
    this.at = { epoch: gap.epoch, id: gap.next - 1 };
  }

  /** Where it stands when what is not for it, up to `id`, is passed over. */
  skip(id: number): Position {
    let at = this.at ?? { epoch: '', id: 0 };
    while (at.id < id) {
      const next = this.broker.after(at);
      if (next?.exclude !== `connection:${this.name}`) break;
      at = next.position;
    }
    return at;
  }
}

function demand(holds: boolean, outcome: ReplayOutcome): void {
  if (!holds) throw new Error(`not the right outcome: ${JSON.stringify(outcome)}`);
}

/** The hub with its members and the model beside it. */
class World {
  readonly broker = new ScriptedBroker(ROOM);
  readonly faults: unknown[] = [];
  readonly hub: Hub;
  readonly members: Member[] = [];
  /** Positions that somebody has really stood at. */
  private readonly stood: Position[] = [];
  private names = 0;

  constructor() {
    this.hub = new Hub(this.broker, new FakeTelemetry(), new Turn(), (error) => this.faults.push(error));
    this.broker.start(this.hub);
  }

  async run(step: Step): Promise<void> {
    const { broker } = this;
    switch (step.do) {
      case 'store': {
        const member = step.exclude === null ? undefined : this.nth(step.exclude);
        for (let count = 0; count < step.count; count += 1)
          broker.store(member === undefined ? '' : `connection:${member.name}`);
        break;
      }
      case 'deliver':
        for (let count = 0; count < step.count; count += 1) broker.deliver();
        break;
      case 'deliver twice':
        broker.deliver(true);
        broker.deliver();
        break;
      case 'drop':
        broker.drop(step.count);
        break;
      case 'look':
        broker.lookFor(step.nth);
        break;
      case 'answer':
        for (let count = 0; count < step.count; count += 1) {
          broker.answer();
          await settled();
        }
        break;
      case 'trim':
        broker.trim(step.keep);
        break;
      case 'lose':
        broker.lose();
        broker.compare();
        break;
      case 'away':
        broker.goAway();
        break;
      case 'back':
        if (!broker.isUp) broker.comeBack();
        break;
      case 'compare':
        broker.compare();
        break;
      case 'join':
        this.join(step).catch((error: unknown) => {
          if (!(error instanceof BrokerUnavailable)) this.faults.push(error);
        });
        break;
      case 'leave':
        this.leave(this.nth(step.nth));
        break;
      case 'close': {
        const member = this.nth(step.nth);
        if (member !== undefined) member.connection.state = 'closing';
        this.leave(member);
        break;
      }
      case 'read': {
        const member = this.nth(step.nth);
        if (member !== undefined) member.transport.queuedBytes = step.queued;
        break;
      }
      case 'settle':
        break;
      default: {
        const exhaustive: never = step;
        throw new Error(String(exhaustive));
      }
    }
    if (step.do === 'settle') await vi.advanceTimersByTimeAsync(250);
    if (step.do !== 'deliver' && step.do !== 'store') await settled();
    this.follow();
  }

  /** The end: everything that waits happens, and everybody has to stand at the head. */
  async finish(): Promise<void> {
    const { broker } = this;
    for (const { transport } of this.members) transport.queuedBytes = 0;
    if (!broker.isUp) broker.comeBack();
    // What the bus has lost is found by the comparison of the heads at the latest.
    broker.compare();
    for (let quiet = 0, rounds = 0; quiet < 3; rounds += 1) {
      if (rounds > 400) throw new Error(`the hub goes on asking: ${broker.questions.length} questions`);
      while (broker.bus.length > 0) broker.deliver();
      const isAnswered = broker.answer();
      await settled();
      await vi.advanceTimersByTimeAsync(250);
      await settled();
      quiet = isAnswered || broker.questions.length > 0 ? 0 : quiet + 1;
    }
    this.follow();
    if (this.faults.length > 0) throw this.faults[0];
    const head = broker.present;
    for (const member of this.members) {
      if (member.isLeft || member.at === null) continue;
      const at = member.skip(head.id);
      const isThere = at.id === head.id && continues(at, head.epoch) && member.owed === null;
      if (!isThere)
        throw new Error(`${member.name} ends at ${JSON.stringify(at)} of ${JSON.stringify(head)}`);
    }
  }

  private follow(): void {
    for (const member of this.members) {
      if (!member.isLeft) member.follow();
      if (member.at !== null) this.stood.push(member.at);
    }
  }

  private nth(nth: number): Member | undefined {
    return this.members[nth % Math.max(1, this.members.length)];
  }

  private leave(member: Member | undefined): void {
    if (member === undefined || member.isLeft) return;
    member.follow();
    member.isLeft = true;
    if (member.channel === null) return;
    member.channel.remove(member.connection);
    this.hub.release(member.channel);
  }

  private startOf({ from, id, epoch }: Step & { do: 'join' }): ReplayStart | null {
    if (from === 'now') return null;
    if (from === 'rewind') return { kind: 'rewind', count: id + 1 };
    const last = this.stood[this.stood.length - 1 - (id % Math.max(1, Math.min(5, this.stood.length)))];
    if (from === 'last seen' && last !== undefined) return { kind: 'resume', ...last };
    const named = { known: this.broker.present.epoch, other: 'l000.7', none: undefined }[epoch];
    return { kind: 'resume', id, epoch: named };
  }

  /** As the services do it. */
  private async join(step: Step & { do: 'join' }): Promise<void> {
    const member = new Member(`member-${(this.names += 1)}`, this.broker);
    this.members.push(member);
    const start = this.startOf(step);
    const asked = this.broker.present;
    try {
      const channel = await this.hub.acquire(ROOM);
      try {
        const entry = await this.hub.prepare(channel, member.connection, start);
        if (member.connection.isGone || member.isLeft) {
          entry.abandon();
          this.hub.release(channel);
          return;
        }
        member.channel = channel;
        this.reply(member, channel, start, entry.outcome, asked);
        entry.enter();
      } catch (error) {
        this.hub.release(channel);
        throw error;
      }
    } catch (error) {
      member.isLeft = true;
      throw error;
    }
  }

  private reply(
    member: Member,
    channel: Channel,
    start: ReplayStart | null,
    outcome: ReplayOutcome | null,
    asked: Position,
  ): void {
    const position = outcome?.position ?? channel.position;
    if (position === null) throw new Error('no position in a durable channel');
    if (start === null || outcome === null) {
      member.at = position;
      return;
    }
    const { present, trimmedTo } = this.broker;
    if (start.kind === 'rewind') {
      demand(!outcome.recovered && outcome.gapAfter === null, outcome);
      member.at = { epoch: position.epoch, id: position.id - outcome.replayed };
      demand(asked.epoch !== present.epoch || outcome.replayed <= start.count, outcome);
      return;
    }
    const from = { epoch: start.epoch ?? position.epoch, id: start.id };
    if (outcome.recovered) {
      demand(continues(from, position.epoch) && outcome.gapAfter === null, outcome);
      member.at = from;
      return;
    }
    const isSame = asked.epoch === present.epoch;
    const isKept = from.id >= trimmedTo && from.id <= asked.id;
    const isHad = isSame && isKept && start.epoch !== undefined && continues(from, present.epoch);
    if (isHad) throw new Error(`${JSON.stringify(from)} can be had, and was not recovered`);
    demand(outcome.replayed === 0 && outcome.gapAfter === start.id, outcome);
    member.owed = { after: start.id, next: position.id + 1, epoch: position.epoch };
    member.at = from;
  }
}

const nth = fc.nat({ max: 7 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('store' as const),
      count: fc.oneof({ weight: 8, arbitrary: fc.integer({ min: 1, max: 5 }) }, fc.constant(300)),
      exclude: fc.option(nth, { freq: 3 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('deliver' as const), count: fc.integer({ min: 1, max: 400 }) }),
  },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'deliver twice' }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('drop' as const), count: fc.integer({ min: 1, max: 3 }) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('look' as const), nth }) },
  {
    weight: 9,
    arbitrary: fc.record({ do: fc.constant('answer' as const), count: fc.integer({ min: 1, max: 4 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('trim' as const), keep: fc.nat({ max: 20 }) }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'away' }) },
  { weight: 2, arbitrary: fc.constant<Step>({ do: 'back' }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'compare' }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('join' as const),
      from: fc.constantFrom(
        'now' as const,
        'last seen' as const,
        'last seen' as const,
        'rewind' as const,
        'somewhere' as const,
      ),
      id: fc.nat({ max: 12 }),
      epoch: fc.constantFrom('known' as const, 'other' as const, 'none' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('leave' as const), nth }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('close' as const), nth }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('read' as const), nth, queued: fc.constantFrom(0, 3_000) }),
  },
  { weight: 2, arbitrary: fc.constant<Step>({ do: 'settle' }) },
);
const loss = fc.constant<Step>({ do: 'lose' });

/** What went wrong in the first story that went wrong, with its seed; undefined where none did. */
async function faultIn(steps: fc.Arbitrary<Step>): Promise<string | undefined> {
  const stories = fc.array(steps, { minLength: 5, maxLength: 80, size: 'max' });
  const property = fc.asyncProperty(stories, async (story) => {
    const world = new World();
    for (const one of story) await world.run(one);
    await world.finish();
  });
  return fc.asyncDefaultReportMessage(await fc.check(property, { numRuns: 600 }));
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});

afterEach(() => {
  vi.useRealTimers();
});

describe('every member is told each event after its start once and in order, or a gap in the place', () => {
  it(
    'whatever the bus drops or repeats, the client does and the broker trims',
    { timeout: 60_000 },
    async () => {
      expect(await faultIn(step)).toBeUndefined();
    },
  );

  it('also where the storage loses everything', { timeout: 60_000 }, async () => {
    expect(await faultIn(fc.oneof({ weight: 20, arbitrary: step }, loss))).toBeUndefined();
  });

  it('also where the bus brings an event of a life that is over', async () => {
    const world = new World();
    const { broker } = world;
    await world.run({ do: 'join', from: 'now', id: 0, epoch: 'known' });
    await world.run({ do: 'answer', count: 2 });
    await world.run({ do: 'store', count: 3, exclude: null });
    broker.lose({ isBusLost: false });
    broker.compare();
    await world.run({ do: 'answer', count: 3 });
    await world.run({ do: 'store', count: 2, exclude: null });
    await world.finish();
    expect(broker.questions).toEqual([]);
  });
});
