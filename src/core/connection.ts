import type { CloseCode } from '../protocol/close-codes.js';
import { CLOSE } from '../protocol/close-codes.js';
import type { ServerEvent } from '../protocol/messages.js';
import type { Channel } from './channel.js';
import type { Frame } from './frame.js';
import { frameServerEvent, frameText } from './frame.js';
import type { Identity } from './identity.js';
import type { Turn } from './outbox.js';
import { Outbox } from './outbox.js';
import type { TokenBucket } from './token-bucket.js';
import type { Transport } from './transport.js';

/** Messages of one connection that may be under way before it is no longer read. */
const MAX_UNDER_WAY = 1_000;

export interface ConnectionLimits {
  slowConsumerBytes: number;
}

/** One client: who it is, which channels it is in, and its way out. */
export class Connection {
  state: 'opening' | 'open' | 'closing' | 'closed' = 'opening';
  readonly outbox: Outbox;
  readonly connectedAtMs = Date.now();
  /** The rooms it is a member of, or about to be (null). */
  readonly rooms = new Map<string, Channel | null>();
  /** Rooms a backend has put it into, whatever its token allows; made when there is one. */
  placed: Set<string> | null = null;
  /** The broadcast channel and the user's own, once open. */
  readonly ownChannels: Channel[] = [];
  /** Monotonic milliseconds of the last sign of life. */
  lastSeenMs: number;
  nextPingMs = Infinity;
  /** What ended it: our close code, else the one the transport reports. */
  closeCode = 0;
  bucket: TokenBucket | null = null;
  /** Monotonic milliseconds: since when, and when last, this connection was over its rate. */
  limitedSinceMs = 0;
  lastLimitedMs = -Infinity;
  /** Frames that wait for an in-order message; null while none is under way. */
  inbox: string[] | null = null;
  /** The last message that waits for somebody to be asked; later ones are handled after it. */
  verdicts: Promise<void> | null = null;
  private underWay = 0;
  private paused = false;
  /** By channel: the joins and leaves that later messages for it have to wait for. */
  private changes: Map<string, Promise<unknown>> | null = null;

  constructor(
    readonly id: string,
    public identity: Identity,
    readonly address: string,
    /** Whether frames are broadcast as plain text: never, when they are no message, or always. */
    readonly plainText: 'never' | 'otherwise' | 'always',
    private readonly transport: Transport,
    turn: Turn,
    limits: ConnectionLimits,
    nowMs: number,
  ) {
    this.lastSeenMs = nowMs;
    this.outbox = new Outbox(transport, turn, limits.slowConsumerBytes, () => this.close(CLOSE.slowConsumer));
  }

  get userId(): string {
    return this.identity.userId;
  }

  get isOpen(): boolean {
    return this.state === 'open';
  }

  get isGone(): boolean {
    return this.state === 'closing' || this.state === 'closed';
  }

  /** True while nothing is read from the client, which then can't give a sign of life. */
  get isPaused(): boolean {
    return this.paused;
  }

  send(event: ServerEvent): void {
    this.outbox.push(frameServerEvent(event));
  }

  sendText(text: string): void {
    this.outbox.push(frameText(text));
  }

  push(frame: Frame): void {
    this.outbox.push(frame);
  }

  /** While an in-order message is under way: keeps frames that have been counted already. Answers whether one is. */
  hold(frames: readonly string[]): boolean {
    this.inbox?.push(...frames);
    return this.inbox !== null;
  }

  /** Keeps a frame until the in-order message before it is done; it counts as under way from here on. */
  enqueue(text: string): void {
    this.inbox?.push(text);
    this.begin();
  }

  /** Sends what waits, then the close frame; nothing goes out after it. */
  close({ code, reason }: CloseCode): void {
    if (this.isGone) return;
    this.state = 'closing';
    this.closeCode = code;
    this.outbox.flush();
    this.outbox.close();
    this.transport.close(code, reason);
  }

  terminate(): void {
    this.outbox.close();
    this.transport.terminate();
  }

  /** Counts one message in; too many unanswered ones stop the reading, so no queue here is without bound. */
  begin(): void {
    this.underWay += 1;
    if (this.underWay >= MAX_UNDER_WAY && !this.paused) this.pause(true);
  }

  end(nowMs: number): void {
    this.underWay -= 1;
    if (this.paused && this.state !== 'opening' && this.underWay <= MAX_UNDER_WAY / 2) {
      this.lastSeenMs = nowMs;
      this.pause(false);
    }
  }

  pause(paused: boolean): void {
    this.paused = paused;
    this.transport.pause(paused);
  }

  /** Runs `step` once the joins and leaves of `channel` that were asked before it are done; at once if there are none. */
  after<T>(channel: string, step: () => T | Promise<T>): T | Promise<T> {
    const change = this.changes?.get(channel);
    return change === undefined ? step() : change.then(step);
  }

  /** Like {@link after}, and what is asked later for the channel waits for it. */
  change<T>(channel: string, step: () => Promise<T>): Promise<T> {
    const changes = (this.changes ??= new Map());
    const earlier = changes.get(channel);
    const result = earlier === undefined ? step() : earlier.then(step);
    const settled = result.then(
      () => this.settle(channel, settled),
      () => this.settle(channel, settled),
    );
    changes.set(channel, settled);
    return result;
  }

  /** Whether an event that is not for `connection:<id>` or `user:<id>` is not for this one. */
  isExcluded(exclude: string): boolean {
    if (exclude === '') return false;
    return exclude.startsWith('connection:')
      ? exclude.slice(11) === this.id
      : exclude.startsWith('user:') && exclude.slice(5) === this.userId;
  }

  private settle(channel: string, change: Promise<unknown>): void {
    if (this.changes?.get(channel) !== change) return;
    this.changes.delete(channel);
    if (this.changes.size === 0) this.changes = null;
  }
}
