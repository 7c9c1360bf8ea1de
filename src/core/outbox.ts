import type { Frame } from './frame.js';
import type { Transport } from './transport.js';

/**
 * Flushes every outbox that was pushed to in this turn of the event loop, once, at its end. Several events of a turn
 * cost one write per socket; that is worth more than anything else on the fan-out path.
 */
export class Turn {
  private waiting: Outbox[] = [];
  private readonly flush = (): void => {
    const outboxes = this.waiting;
    this.waiting = [];
    for (const outbox of outboxes) outbox.flush();
  };

  add(outbox: Outbox): void {
    if (this.waiting.push(outbox) === 1) setImmediate(this.flush);
  }
}

/** Within a turn the kernel can't be seen to take anything: so many times the cap may be written before it is looked at. */
const BURST = 4;

/** The send queue of one connection: capped in bytes, flushed once per turn. */
export class Outbox {
  private frames: Buffer[] = [];
  private pendingBytes = 0;
  private open = true;

  constructor(
    private readonly transport: Transport,
    private readonly turn: Turn,
    /** Over this many bytes that the client has not taken it is a slow consumer. */
    private readonly maxBytes: number,
    private readonly onSlow: () => void,
  ) {}

  push(frame: Frame): void {
    if (!this.open) return;
    const bytes = this.transport.deflate ? frame.deflated() : frame.bytes;
    this.pendingBytes += bytes.length;
    if (this.frames.push(bytes) === 1) this.turn.add(this);
    // A burst larger than the cap is no reason to call a client slow before it had a chance to read.
    else if (this.pendingBytes > this.maxBytes) this.write(BURST * this.maxBytes);
  }

  /** Hands what waits to the socket, unless the client has left too much unread. */
  flush(): void {
    this.write(this.maxBytes);
  }

  private write(maxQueuedBytes: number): void {
    if (this.frames.length === 0) return;
    const frames = this.frames;
    this.frames = [];
    this.pendingBytes = 0;
    if (this.transport.queuedBytes > maxQueuedBytes) {
      this.close();
      this.onSlow();
    } else if (this.open) {
      this.transport.write(frames);
    }
  }

  /** Whether so much more leaves the client room: what could as well come later must not fill its queue. */
  hasRoomFor(bytes: number): boolean {
    return this.transport.queuedBytes + this.pendingBytes + bytes <= this.maxBytes / 2;
  }

  /** Time to wait before more is pushed that could as well come later. */
  isHalfFull(): boolean {
    return this.transport.queuedBytes + this.pendingBytes > this.maxBytes / 2;
  }

  isSlow(): boolean {
    return this.transport.queuedBytes > this.maxBytes;
  }

  /** Nothing goes out after this; what waits is dropped. */
  close(): void {
    this.open = false;
    this.frames = [];
    this.pendingBytes = 0;
  }
}
