/** What collects within a turn of the event loop and goes out at its end. */
interface Collector {
  flush(): void;
}

/** Brings out together what is written to sockets between the two. */
export interface Batch {
  hold(): void;
  release(): void;
}

/** So many have numbers of their own. */
const TURNS = 2 ** 30;

/**
 * Ends every turn of the event loop: channels hand on what they collected, joined into one piece for all members, then
 * every outbox that was pushed to is written, once. Several events of a turn cost one join for each channel and one write
 * for each socket; that is worth more than anything else on the fan-out path. With a delay the channels wait longer, and
 * what is pushed to an outbox itself does not.
 */
export class Turn {
  private channels: Collector[] = [];
  private outboxes: Collector[] = [];
  private scheduled = false;
  private count = 0;
  private delay: NodeJS.Timeout | null = null;
  private readonly end = (): void => {
    try {
      if (this.delayMs === 0) this.settle();
    } finally {
      // Not before: what channels hand on is written in this turn.
      this.scheduled = false;
    }
    this.count = (this.count + 1) % TURNS;
    const outboxes = this.outboxes;
    this.outboxes = [];
    this.batch?.hold();
    try {
      for (const outbox of outboxes) outbox.flush();
    } finally {
      this.batch?.release();
    }
  };

  private readonly endDelay = (): void => {
    this.delay = null;
    this.settle();
  };

  constructor(
    private readonly batch: Batch | null = null,
    /** Channels collect for so many milliseconds rather than for one turn. */
    private readonly delayMs = 0,
  ) {}

  /** The number of this turn, among those of the last while. */
  get number(): number {
    return this.count;
  }

  addChannel(channel: Collector): void {
    this.channels.push(channel);
    if (this.delayMs === 0) this.schedule();
    else this.delay ??= setTimeout(this.endDelay, this.delayMs);
  }

  addOutbox(outbox: Collector): void {
    this.outboxes.push(outbox);
    this.schedule();
  }

  /** Channels hand on what they have so far. */
  settle(): void {
    if (this.channels.length === 0) return;
    const channels = this.channels;
    this.channels = [];
    for (const channel of channels) channel.flush();
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(this.end);
  }
}
