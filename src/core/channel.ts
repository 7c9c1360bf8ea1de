import type { Position } from '../protocol/messages.js';
import type { EventEnvelope } from './broker.js';
import type { Connection } from './connection.js';
import type { Frame } from './frame.js';
import { joinFrames } from './frame.js';
import { Members } from './members.js';
import { continues, isOlder } from './position.js';
import type { Turn } from './turn.js';

/** Events kept while a channel is opened or a hole is filled; what does not fit is fetched as a hole later. */
const MAX_BACKLOG = 4_096;
/** Delivered events kept for members that catch up. */
const MAX_TAIL = 1_024;
/** Bytes collected within a turn before they are handed on. */
const MAX_COLLECTED_BYTES = 65_536;

const NOBODY: readonly Connection[] = [];

/** What brings a member up to the live events. */
interface CatchUp {
  cancel(): void;
}

export type Step = 'next' | 'duplicate' | 'hole';

/** A channel as this instance sees it: its local members, and how far events have been handed to them. */
export class Channel {
  /** Those that get every event from here on. */
  readonly members = new Members();
  private catchingUp: Map<Connection, CatchUp> | null = null;
  /** Members and those about to be; the subscription is held while there is one. */
  holds = 0;
  /** Settles when it is live, or can't be; null from then on. */
  opening: Promise<Channel> | null = null;
  /** The last delivered event; null while opening, and always on an ephemeral channel. */
  position: Position | null = null;
  /** Live events that have to wait: for the head while opening, for the missing ones while a hole is filled. */
  private backlog: EventEnvelope[] | null = [];
  private overflowed = false;
  /** The newest delivered events, kept while members catch up with them; `tailFrom` is the id before the first. */
  private tail: EventEnvelope[] | null = null;
  private tailFrom: Position | null = null;
  private tailReaders = 0;
  /** What this turn has brought so far for all members. */
  private collected: Frame[] | null = null;
  private collectedBytes = 0;
  /** Who is left out of some of it, and of which, by their places. */
  private leftOut: Map<Connection, Set<number>> | null = null;

  constructor(
    readonly name: string,
    readonly durable: boolean,
    private readonly turn: Turn,
  ) {}

  /** Makes a connection a member: it gets what is pushed from here on. */
  add(connection: Connection): void {
    this.flush();
    this.members.add(connection);
  }

  /**
   * For all members but those who are left out, at the end of the turn, as one piece with whatever else the turn brings.
   * Answers how many get it.
   */
  push(frame: Frame, exclude = ''): number {
    if (this.collected === null) {
      this.collected = [];
      this.turn.addChannel(this);
    }
    const leftOut = exclude === '' ? 0 : this.leaveOut(exclude, this.collected.length);
    const receivers = this.members.size - leftOut;
    this.collected.push(frame);
    this.collectedBytes += frame.bytes.length;
    if (this.collectedBytes > MAX_COLLECTED_BYTES) this.flush();
    return receivers;
  }

  private leaveOut(exclude: string, place: number): number {
    let count = 0;
    this.members.forEach((member) => {
      if (!member.isExcluded(exclude)) return;
      count += 1;
      const leftOut = (this.leftOut ??= new Map<Connection, Set<number>>());
      const places = leftOut.get(member);
      if (places === undefined) leftOut.set(member, new Set([place]));
      else places.add(place);
    });
    return count;
  }

  /** Hands the members what was collected. */
  flush(): void {
    const { collected, leftOut } = this;
    if (collected === null) return;
    this.collected = null;
    this.leftOut = null;
    this.collectedBytes = 0;
    const frames = joinFrames(collected);
    this.members.forEach((member) => {
      const places = leftOut?.get(member);
      if (places === undefined) member.push(frames);
      else for (const [place, frame] of collected.entries()) if (!places.has(place)) member.push(frame);
    });
  }

  get isWaiting(): boolean {
    return this.backlog !== null;
  }

  wait(event?: EventEnvelope): void {
    this.backlog ??= [];
    if (event === undefined) return;
    if (this.backlog.length < MAX_BACKLOG) this.backlog.push(event);
    else this.overflowed = true;
  }

  /** Ends the waiting; the caller hands on what is returned, in order. */
  resume(): EventEnvelope[] {
    const waited = this.backlog ?? [];
    this.backlog = null;
    return waited;
  }

  /** Whether events did not fit the backlog since this was asked last: the log has them. */
  takeOverflow(): boolean {
    const { overflowed } = this;
    this.overflowed = false;
    return overflowed;
  }

  /** Takes a member out, live or not. */
  remove(connection: Connection): void {
    if (this.members.has(connection)) {
      this.flush();
      this.members.delete(connection);
    }
    this.catchingUp?.get(connection)?.cancel();
    this.endCatchUp(connection);
  }

  /** Those that catch up with what they missed, and are no members yet. */
  get late(): Iterable<Connection> {
    return this.catchingUp?.keys() ?? NOBODY;
  }

  startCatchUp(connection: Connection, catchUp: CatchUp): void {
    (this.catchingUp ??= new Map()).set(connection, catchUp);
  }

  /** Of this catch-up alone, where one is given. */
  endCatchUp(connection: Connection, catchUp = this.catchingUp?.get(connection)): void {
    if (this.catchingUp?.get(connection) !== catchUp) return;
    this.catchingUp?.delete(connection);
    if (this.catchingUp?.size === 0) this.catchingUp = null;
  }

  /** Notes an event that was delivered, for those who are still catching up. */
  keepForTail(event: EventEnvelope): void {
    if (this.tail === null || event.position === null) return;
    // The first event of a channel gives it its epoch.
    if (event.position.id === 1) this.tailFrom = { epoch: event.position.epoch, id: 0 };
    this.tail.push(event);
    if (this.tail.length <= MAX_TAIL) return;
    const forgotten = this.tail.splice(0, MAX_TAIL / 2).at(-1);
    this.tailFrom = forgotten?.position ?? null;
  }

  /** What was delivered after `at`, if that is known to be without a hole; else null. */
  tailAfter(at: Position): EventEnvelope[] | null {
    const head = this.position;
    if (head === null || at.epoch !== head.epoch) return null;
    if (at.id === head.id) return [];
    const from = this.tailFrom;
    if (at.id > head.id || from === null || from.epoch !== head.epoch || at.id < from.id) return null;
    return this.tail?.slice(at.id - from.id) ?? null;
  }

  startTail(): void {
    this.tailReaders += 1;
    if (this.tailReaders > 1) return;
    this.tail = [];
    this.tailFrom = this.position;
  }

  endTail(): void {
    this.tailReaders -= 1;
    if (this.tailReaders > 0) return;
    this.tail = null;
    this.tailFrom = null;
  }

  /** The delivery has jumped over events: what is kept of before is no use any more. */
  jump(to: Position): void {
    this.position = to;
    if (this.tail === null) return;
    this.tail = [];
    this.tailFrom = to;
  }

  /** Says how a numbered event stands to what was delivered; `next` also moves the position onto it. */
  step({ epoch, id }: Position): Step {
    const at = this.position;
    if (at === null) return 'hole';
    if (at.epoch === epoch) {
      if (id <= at.id) return 'duplicate';
      if (id !== at.id + 1) return 'hole';
    } else if (isOlder(epoch, at.epoch)) {
      return 'duplicate';
    } else if (id !== 1 || at.id !== 0 || !continues(at, epoch)) {
      return 'hole';
    }
    this.position = { epoch, id };
    return 'next';
  }
}
