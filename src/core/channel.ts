import type { Position } from '../protocol/messages.js';
import type { EventEnvelope } from './broker.js';
import type { Connection } from './connection.js';
import { continues } from './position.js';

/** Events kept while a channel is opened or a hole is filled; what does not fit is fetched as a hole later. */
const MAX_BACKLOG = 4_096;

export type Step = 'next' | 'duplicate' | 'hole';

/** A channel as this instance sees it: its local members, and how far events have been handed to them. */
export class Channel {
  readonly members = new Set<Connection>();
  /** Members and those about to be; the subscription is held while there is one. */
  holds = 0;
  /** The last delivered event; null while opening, and always on an ephemeral channel. */
  position: Position | null = null;
  /** Live events that have to wait: for the head while opening, for the missing ones while a hole is filled. */
  private backlog: EventEnvelope[] | null = [];

  constructor(
    readonly name: string,
    readonly durable: boolean,
    /** Settles when the channel is live. */
    readonly opened: Promise<void>,
  ) {}

  get isWaiting(): boolean {
    return this.backlog !== null;
  }

  wait(event?: EventEnvelope): void {
    this.backlog ??= [];
    if (event !== undefined && this.backlog.length < MAX_BACKLOG) this.backlog.push(event);
  }

  /** Ends the waiting; the caller hands on what is returned, in order. */
  resume(): EventEnvelope[] {
    const waited = this.backlog ?? [];
    this.backlog = null;
    return waited;
  }

  /** Says how a numbered event stands to what was delivered; `next` also moves the position onto it. */
  step({ epoch, id }: Position): Step {
    const at = this.position;
    if (at === null) return 'hole';
    if (at.epoch === epoch) {
      if (id <= at.id) return 'duplicate';
      if (id !== at.id + 1) return 'hole';
    } else if (id !== 1 || !continues(at, epoch)) {
      return 'hole';
    }
    this.position = { epoch, id };
    return 'next';
  }
}
