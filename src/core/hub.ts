import { CLOSE } from '../protocol/close-codes.js';
import type { Position } from '../protocol/messages.js';
import type { Broker, BrokerSink, EventEnvelope } from './broker.js';
import { BrokerUnavailable } from './broker.js';
import { Channel } from './channel.js';
import type { Connection } from './connection.js';
import type { Frame } from './frame.js';
import { frameEvent } from './frame.js';
import type { ReplayOutcome, ReplayStart } from './replay.js';
import { gapFrame, Replay } from './replay.js';
import { Semaphore } from './semaphore.js';
import type { Telemetry } from './telemetry.js';
import type { Turn } from './turn.js';

/** Events fetched at a time to fill a hole. */
const FILL_PAGE = 64;
const FILL_PATIENCE_MS = 250;
const FILL_LOOK_MS = 5;
const DELIVERY_PATIENCE_MS = 500;
/** Pages of replays that are read at a time, over all resuming members. */
const CONCURRENT_PAGES = 32;

/** A prepared way into a channel. */
export interface Entry {
  /** Null where no replay was asked for, or the channel keeps no events. */
  outcome: ReplayOutcome | null;
  enter: () => void;
  abandon: () => void;
}

/**
 * The channels of this instance. First holder in: subscribe; last one out: forget everything. Events go to local
 * members once and in the order of their ids, whatever the bus drops or repeats; what can't be had is told by `gap`.
 */
export class Hub implements BrokerSink {
  private readonly channels = new Map<string, Channel>();
  private readonly pages = new Semaphore(CONCURRENT_PAGES);

  constructor(
    private readonly broker: Broker,
    private readonly telemetry: Telemetry,
    private readonly turn: Turn,
    /** Takes what should never happen: a failure that is not the broker being away. */
    private readonly onFault: (error: unknown) => void,
  ) {}

  get channelCount(): number {
    return this.channels.size;
  }

  get roomCount(): number {
    let rooms = 0;
    for (const name of this.channels.keys()) if (name.startsWith('room:')) rooms += 1;
    return rooms;
  }

  get(name: string): Channel | undefined {
    return this.channels.get(name);
  }

  /**
   * Takes a hold of the live channel, opening it for the first holder; a promise only until it is open. Rejects with
   * `BrokerUnavailable`.
   */
  acquire(name: string): Channel | Promise<Channel> {
    let channel = this.channels.get(name);
    if (channel === undefined) {
      channel = new Channel(name, this.broker.isDurable(name), this.turn);
      this.channels.set(name, channel);
      channel.opening = this.open(channel);
    }
    channel.holds += 1;
    return channel.opening ?? channel;
  }

  /** Gives a hold back; the last one ends the channel here. */
  release(channel: Channel): void {
    channel.holds -= 1;
    if (channel.holds === 0) this.forget(channel);
  }

  private forget(channel: Channel): void {
    if (this.channels.get(channel.name) !== channel) return;
    this.channels.delete(channel.name);
    this.broker.unsubscribe(channel.name);
  }

  /**
   * Gets a holder of the channel ready to be its member, from where it wants to go on. The caller says what it has to
   * say and then calls `enter`, in one step; or `abandon`. Rejects with `BrokerUnavailable`.
   */
  async prepare(channel: Channel, connection: Connection, start: ReplayStart | null): Promise<Entry> {
    if (start === null || !channel.durable) return this.prepareLive(channel, connection);
    const replay = new Replay(channel, connection, this.broker, this.pages, (head) =>
      this.onHead(channel.name, head),
    );
    const outcome = await replay.begin(start);
    return {
      outcome,
      enter: () => {
        if (outcome.gapAfter !== null) connection.push(gapFrame(channel, outcome.gapAfter, outcome.position));
        replay.run().catch((error: unknown) => {
          this.onFault(error);
          // It would wait for events that never come.
          connection.close(CLOSE.internal);
        });
      },
      abandon: () => replay.abandon(),
    };
  }

  /** The same, without a replay. */
  prepareLive(channel: Channel, connection: Connection): Entry {
    return { outcome: null, enter: () => channel.add(connection), abandon: () => undefined };
  }

  /** Waits, for a while, until the members of a channel have been handed everything up to an id; not at all if they have. */
  delivered(name: string, id: number): void | Promise<void> {
    if (!this.hasDelivered(name, id)) return this.delivering(name, id);
  }

  private hasDelivered(name: string, id: number): boolean {
    return (this.channels.get(name)?.position?.id ?? id) >= id;
  }

  private async delivering(name: string, id: number): Promise<void> {
    const untilMs = performance.now() + DELIVERY_PATIENCE_MS;
    while (!this.hasDelivered(name, id) && performance.now() < untilMs) {
      await new Promise((resolve) => setTimeout(resolve, FILL_LOOK_MS));
    }
  }

  onEvent(event: EventEnvelope): void {
    const channel = this.channels.get(event.channel);
    if (channel === undefined) return;
    if (event.position === null) this.deliver(channel, event);
    else if (channel.isWaiting) channel.wait(event);
    else this.advance(channel, event, event.position);
  }

  onHead(name: string, head: Position): void {
    const channel = this.channels.get(name);
    if (channel === undefined || channel.position === null || channel.isWaiting) return;
    if (channel.position.id !== head.id || channel.position.epoch !== head.epoch) this.startFilling(channel);
  }

  private async open(channel: Channel): Promise<Channel> {
    try {
      await this.broker.subscribe(channel.name);
      if (this.channels.get(channel.name) !== channel) return channel;
      if (channel.durable) channel.position = await this.broker.head(channel.name);
      this.handOn(channel);
      return channel;
    } catch (error) {
      // Those who wait fail with it, and their holds are of nothing; whoever comes now tries again.
      this.forget(channel);
      throw error;
    } finally {
      channel.opening = null;
    }
  }

  private handOn(channel: Channel): void {
    for (const event of channel.resume()) this.onEvent(event);
    if (channel.takeOverflow() && !channel.isWaiting && channel.position !== null) this.startFilling(channel);
  }

  private advance(channel: Channel, event: EventEnvelope, position: Position): void {
    const step = channel.step(position);
    switch (step) {
      case 'next':
        this.deliver(channel, event);
        break;
      case 'duplicate':
        break;
      case 'hole':
        this.startFilling(channel);
        channel.wait(event);
        break;
      default: {
        const exhaustive: never = step;
        throw new Error(`unknown step ${String(exhaustive)}`);
      }
    }
  }

  private startFilling(channel: Channel): void {
    channel.wait();
    const before = channel.position;
    this.fill(channel).then(
      () => {
        if (channel.position !== before) this.handOn(channel);
        else this.handOnWhatFollows(channel);
      },
      (error: unknown) => {
        // The position has not moved: the next event, or the next comparison of heads, finds the hole again.
        channel.resume();
        this.telemetry.holeFound('failed');
        if (!(error instanceof BrokerUnavailable)) this.onFault(error);
      },
    );
  }

  /** The log had nothing to fill the hole with: asking it again for the same event would never end. */
  private handOnWhatFollows(channel: Channel): void {
    for (const event of channel.resume()) {
      if (event.position !== null && channel.step(event.position) === 'next') this.deliver(channel, event);
    }
  }

  /** Fetches what the bus did not bring, up to the head, and delivers it; tells the members what is gone for ever. */
  private async fill(channel: Channel): Promise<void> {
    let result: 'filled' | 'gap' = 'filled';
    for (;;) {
      const after = channel.position;
      if (after === null) return;
      const history = await this.broker.history(channel.name, after, FILL_PAGE);
      if (this.channels.get(channel.name) !== channel) return;
      if (history.kind === 'lost') {
        this.tellGap(channel, after, { epoch: history.head.epoch, id: history.oldestId - 1 });
        result = 'gap';
        continue;
      }
      for (const event of history.events) {
        channel.position = event.position;
        this.deliver(channel, event);
      }
      const reached = history.events.at(-1)?.position;
      if (!reached || reached.id >= history.head.id) break;
      await this.letRead(channel);
    }
    this.telemetry.holeFound(result);
  }

  /** What is fetched comes faster than it came live: members that read get the time to, for a while. */
  private async letRead(channel: Channel): Promise<void> {
    const untilMs = performance.now() + FILL_PATIENCE_MS;
    channel.flush();
    for (const member of channel.members.list()) {
      while (member.outbox.isHalfFull() && !member.isGone && performance.now() < untilMs) {
        await new Promise((resolve) => setTimeout(resolve, FILL_LOOK_MS));
      }
    }
  }

  private tellGap(channel: Channel, after: Position, goesOnAfter: Position): void {
    channel.jump(goesOnAfter);
    channel.push(gapFrame(channel, after.id, goesOnAfter));
  }

  private deliver(channel: Channel, event: EventEnvelope): void {
    channel.keepForTail(event);
    if (event.position === null) this.deliverToLate(channel, event);
    if (channel.members.size === 0) return;
    this.telemetry.eventsDelivered(channel.push(frameEvent(event), event.exclude));
  }

  /** What is not numbered is in no log: members that catch up get it at once. */
  private deliverToLate(channel: Channel, event: EventEnvelope): void {
    let frame: Frame | null = null;
    for (const member of channel.late) {
      if (!member.isExcluded(event.exclude)) member.push((frame ??= frameEvent(event)));
    }
  }
}
