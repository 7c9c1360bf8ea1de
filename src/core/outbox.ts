import type { Frames } from './frame.js';
import type { Transport } from './transport.js';
import type { Turn } from './turn.js';

/** Within a turn the kernel can't be seen to take anything: so many times the cap may be written before it is looked at. */
const BURST = 4;

/** Who has to be told that its client does not read. */
export interface OutboxOwner {
  onSlow(): void;
}

/** The send queue of one connection: capped in bytes, flushed once per turn. */
export class Outbox {
  private first: Buffer | null = null;
  /** What was pushed after the first piece; most turns push one. */
  private more: Buffer[] | null = null;
  private pendingBytes = 0;
  private open = true;

  constructor(
    private readonly transport: Transport,
    private readonly turn: Turn,
    /** Over this many bytes that the client has not taken it is a slow consumer. */
    private readonly maxBytes: number,
    private readonly owner: OutboxOwner,
  ) {}

  push(frames: Frames): void {
    if (!this.open) return;
    const bytes = this.transport.deflate ? frames.deflated() : frames.bytes;
    this.pendingBytes += bytes.length;
    if (this.first === null) {
      this.first = bytes;
      this.turn.addOutbox(this);
      return;
    }
    (this.more ??= []).push(bytes);
    // A burst larger than the cap is no reason to call a client slow before it had a chance to read.
    if (this.pendingBytes > this.maxBytes) this.write(BURST * this.maxBytes);
  }

  /** Hands what waits to the socket, unless the client has left too much unread. */
  flush(): void {
    this.write(this.maxBytes);
  }

  /** The same, with what the turn so far has for it in its channels. */
  flushAll(): void {
    this.turn.settle();
    this.flush();
  }

  private write(maxQueuedBytes: number): void {
    const { first, more } = this;
    if (first === null) return;
    this.forget();
    if (this.transport.queuedBytes > maxQueuedBytes) {
      this.close();
      this.owner.onSlow();
    } else if (more === null) {
      this.transport.write(first);
    } else {
      this.transport.writeAll([first, ...more]);
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
    this.forget();
  }

  private forget(): void {
    this.first = null;
    this.more = null;
    this.pendingBytes = 0;
  }
}
