import type { Position } from '../protocol/messages.js';
import { channelFields } from '../protocol/names.js';
import type { Broker, EventEnvelope, History } from './broker.js';
import { BrokerUnavailable } from './broker.js';
import type { Channel } from './channel.js';
import type { Connection } from './connection.js';
import type { Frame } from './frame.js';
import { frameEvent, frameServerEvent } from './frame.js';
import { isOlder } from './position.js';
import type { Semaphore } from './semaphore.js';

/** Events read from the log at a time. */
const PAGE = 256;
/** How often a client that is behind with reading is looked at, and a broker that is away asked again. */
const PACE_MS = 10;
const RETRY_MS = 200;

/** From where a member wants to go on. */
export type ReplayStart =
  /** Its last seen event; the epoch where it knows it, else the channel's present one is meant. */
  | { kind: 'resume'; id: number; epoch: string | undefined }
  /** The last n events, without a claim to have seen those before. */
  | { kind: 'rewind'; count: number };

export interface ReplayOutcome {
  /** Every event after the start follows; false also for a rewind. */
  recovered: boolean;
  /** Where the live events go on. */
  position: Position;
  /** Events up to it that come first. */
  replayed: number;
  /** Told after the reply where the start can't be gone on from. */
  gapAfter: number | null;
}

/**
 * Brings one member from where it was to the live events, without a loss or a double at the seam. What it missed comes
 * from the log, page by page, at the pace at which the client reads. The events that are delivered meanwhile are kept
 * in the channel's tail; once the log has reached the tail, the rest is pushed and the member becomes live in one
 * synchronous step.
 */
export class Replay {
  private cancelled = false;
  private from: Position = { epoch: '', id: 0 };
  private firstPage: readonly EventEnvelope[] | null = null;

  constructor(
    private readonly channel: Channel,
    private readonly connection: Connection,
    private readonly broker: Broker,
    private readonly pages: Semaphore,
    /** The log is ahead of what was delivered here. */
    private readonly onBehind: (head: Position) => void,
  ) {}

  cancel(): void {
    this.cancelled = true;
  }

  /** Reads the first page, which shows what can be had. Rejects with `BrokerUnavailable`. */
  async begin(start: ReplayStart): Promise<ReplayOutcome> {
    this.channel.startTail();
    try {
      return await this.prepare(start);
    } catch (error) {
      this.channel.endTail();
      throw error;
    }
  }

  /** Gives up after {@link begin}, before {@link run}. */
  abandon(): void {
    this.channel.endTail();
  }

  private async prepare(start: ReplayStart): Promise<ReplayOutcome> {
    const asked = this.askedPosition(start);
    let after = asked;
    // The head needs no reading, unless a page is missing or the log has to judge the position.
    let history: History | null = this.isHead(after) ? null : await this.readFresh(after);
    if (history?.kind === 'lost' && start.kind === 'rewind') {
      after = { epoch: history.head.epoch, id: history.oldestId - 1 };
      history = await this.readFresh(after);
    }
    const position = this.channel.position ?? after;
    if (history?.kind === 'lost') {
      this.from = position;
      return { recovered: false, position, replayed: 0, gapAfter: start.kind === 'resume' ? asked.id : null };
    }
    this.firstPage = history?.events ?? null;
    const epoch = history?.head.epoch ?? position.epoch;
    // What was published while the page was read counts among the last ones, too.
    const isLate = start.kind === 'rewind' && epoch === position.epoch;
    this.from = { epoch, id: isLate ? Math.max(after.id, position.id - start.count) : after.id };
    if (history !== null && this.isAhead(this.from)) {
      // It has seen on another instance what has not come here yet.
      this.onBehind(history.head);
      return { recovered: start.kind === 'resume', position: this.from, replayed: 0, gapAfter: null };
    }
    return {
      recovered: start.kind === 'resume',
      position,
      replayed: position.id - this.from.id,
      gapAfter: null,
    };
  }

  private askedPosition(start: ReplayStart): Position {
    const head = this.channel.position ?? { epoch: '', id: 0 };
    if (start.kind === 'rewind') return { epoch: head.epoch, id: Math.max(0, head.id - start.count) };
    return { epoch: start.epoch ?? head.epoch, id: start.id };
  }

  /** Pushes until the member is live; the first step is synchronous. Ends early when the member is gone. */
  async run(): Promise<void> {
    let at = this.from;
    let page = this.firstPage;
    this.firstPage = null;
    this.channel.startCatchUp(this.connection, this);
    try {
      while (!this.isGone()) {
        const tail = this.channel.tailAfter(at);
        if (tail !== null && this.fits(tail)) {
          this.join(tail);
          return;
        }
        const known = tail ?? page;
        page = null;
        if (known !== null) at = await this.push(at, known);
        else if (this.isAhead(at)) await pause(PACE_MS);
        else {
          const history = await this.readPatiently(at);
          if (history?.kind === 'events') page = history.events;
          else if (history?.kind === 'lost') {
            at = this.tellGap(at, { epoch: history.head.epoch, id: history.oldestId - 1 });
          }
          if (page?.length === 0) await pause(PACE_MS);
        }
      }
    } finally {
      this.end();
    }
  }

  private end(): void {
    this.channel.endTail();
    this.channel.endCatchUp(this.connection, this);
  }

  /** Pushes what the live members have got too, at the pace of the client; what they have not will come to all. */
  private async push(at: Position, events: readonly EventEnvelope[]): Promise<Position> {
    let reached = at;
    for (const event of events) {
      const head = this.channel.position;
      const { position } = event;
      if (this.isGone() || position === null || head === null) break;
      if (position.epoch !== head.epoch || position.id > head.id) break;
      if (position.epoch === reached.epoch && position.id <= reached.id) continue;
      this.pushOne(event);
      reached = position;
      if (this.connection.outbox.isHalfFull()) await this.paced();
    }
    return reached;
  }

  private fits(events: readonly EventEnvelope[]): boolean {
    const bytes = events.reduce((total, { body }) => total + body.length, 0);
    return events.length === 0 || this.connection.outbox.hasRoomFor(bytes);
  }

  /** The seam: from here on the member gets what all get. */
  private join(rest: readonly EventEnvelope[]): void {
    for (const event of rest) this.pushOne(event);
    this.channel.endCatchUp(this.connection, this);
    this.channel.add(this.connection);
  }

  /** Whether the member has seen more than was delivered here so far. */
  private isAhead(at: Position): boolean {
    const head = this.channel.position;
    if (head === null) return false;
    return at.epoch === head.epoch ? at.id > head.id : isOlder(head.epoch, at.epoch);
  }

  private pushOne(event: EventEnvelope): void {
    if (!this.connection.isExcluded(event.exclude)) this.connection.push(frameEvent(event));
  }

  private tellGap(at: Position, goesOnAfter: Position): Position {
    this.connection.push(gapFrame(this.channel, at.id, goesOnAfter));
    return goesOnAfter;
  }

  private isHead(position: Position): boolean {
    const head = this.channel.position;
    return head !== null && head.id === position.id && head.epoch === position.epoch;
  }

  private isGone(): boolean {
    return this.cancelled || this.connection.isGone;
  }

  private read(after: Position): Promise<History> {
    return this.pages.run(() => this.broker.history(this.channel.name, after, PAGE));
  }

  /** An answer from before the epoch changed, when the channel has changed meanwhile, is none. */
  private async readFresh(after: Position): Promise<History> {
    for (;;) {
      const history = await this.read(after);
      const { position } = this.channel;
      if (position === null || !isOlder(history.head.epoch, position.epoch)) return history;
    }
  }

  /** Goes on asking while the broker is away; null once the member is gone. */
  private async readPatiently(after: Position): Promise<History | null> {
    while (!this.isGone()) {
      try {
        return await this.read(after);
      } catch (error) {
        if (!(error instanceof BrokerUnavailable)) throw error;
        await pause(RETRY_MS);
      }
    }
    return null;
  }

  /** Waits while the client has more than half of its send queue unread: replay never makes a slow consumer of it. */
  private async paced(): Promise<void> {
    while (!this.isGone() && this.connection.outbox.isHalfFull()) await pause(PACE_MS);
  }
}

/** Tells that the events between `after` and the one that follows `goesOnAfter` can't be had any more. */
export function gapFrame(channel: Channel, after: number, goesOnAfter: Position): Frame {
  const { epoch, id } = goesOnAfter;
  return frameServerEvent({ event: 'gap', ...channelFields(channel.name), after, next: id + 1, epoch });
}

function pause(durationMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}
