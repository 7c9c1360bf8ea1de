import type { CloseCode } from '../protocol/close-codes.js';
import { CLOSE } from '../protocol/close-codes.js';
import type { ServerEvent } from '../protocol/messages.js';
import type { Channel } from './channel.js';
import type { Frames } from './frame.js';
import { frameServerEvent, frameText, pongFrame } from './frame.js';
import type { Identity } from './identity.js';
import type { OutboxOwner } from './outbox.js';
import { Outbox } from './outbox.js';
import { Publications } from './publications.js';
import { Rooms } from './rooms.js';
import type { TokenBucket } from './token-bucket.js';
import type { Transport } from './transport.js';
import type { Turn } from './turn.js';

/** Protocol pings that are answered within one turn of the event loop; more are a flood. */
const MAX_PINGS = 1_000;

/** Messages of one connection that may be under way before it is no longer read. */
const MAX_UNDER_WAY = 1_000;

const NONE: readonly Channel[] = [];

export interface ConnectionLimits {
  slowConsumerBytes: number;
}

/** One client: who it is, which channels it is in, and its way out. */
export class Connection implements OutboxOwner {
  state: 'opening' | 'open' | 'closing' | 'closed' = 'opening';
  readonly outbox: Outbox;
  readonly connectedAtMs = Date.now();
  readonly rooms = new Rooms();
  /** Rooms a backend has put it into, whatever its token allows; made when there is one. */
  placed: Set<string> | null = null;
  /** The broadcast channel and the user's own, once open. */
  ownChannels: readonly Channel[] = NONE;
  /** Monotonic milliseconds of the last sign of life. */
  lastSeenMs: number;
  /** Set when it opens. */
  nextPingMs = 0;
  /** What ended it: our close code, else the one the transport reports. */
  closeCode = 0;
  bucket: TokenBucket | null = null;
  /** Monotonic milliseconds: since when, and when last, this connection was over its rate; null where it never was. */
  limited: { sinceMs: number; lastMs: number } | null = null;
  /** Frames that wait for an in-order message; null while none is under way. */
  inbox: string[] | null = null;
  /** The last message that waits for somebody to be asked; later ones are handled after it. */
  verdicts: Promise<void> | null = null;
  /** Protocol pings of the turn with this number. */
  private pings = 0;
  private pingsTurn = -1;
  private underWay = 0;
  private paused = false;
  /** By channel: the joins and leaves that later messages for it have to wait for. */
  private changes: Map<string, Promise<void>> | null = null;
  private publications: Publications | null = null;

  constructor(
    readonly id: string,
    public identity: Identity,
    readonly address: string,
    /** Whether frames are broadcast as plain text: never, when they are no message, or always. */
    readonly plainText: 'never' | 'otherwise' | 'always',
    private readonly transport: Transport,
    private readonly turn: Turn,
    limits: ConnectionLimits,
    nowMs: number,
  ) {
    this.lastSeenMs = nowMs;
    this.outbox = new Outbox(transport, turn, limits.slowConsumerBytes, this);
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

  push(frames: Frames): void {
    this.outbox.push(frames);
  }

  /** Answers a protocol ping; many at once close the connection. */
  pong(data: Buffer): void {
    if (this.isGone) return;
    if (this.pingsTurn !== this.turn.number) {
      this.pingsTurn = this.turn.number;
      this.pings = 0;
    }
    this.pings += 1;
    if (this.pings > MAX_PINGS) this.close(CLOSE.rateLimited);
    else this.outbox.push(pongFrame(data));
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

  /** Sends what waits, then `last` and the close frame; nothing goes out after it. */
  close({ code, reason }: CloseCode, last: ServerEvent | null = null): void {
    if (this.isGone) return;
    this.state = 'closing';
    this.closeCode = code;
    // What channels have for it was there before.
    this.turn.settle();
    if (last !== null) this.send(last);
    this.finish();
    this.transport.close(code, reason);
  }

  /** Sends what waits; nothing goes out after it. */
  finish(): void {
    this.outbox.flushAll();
    this.outbox.close();
  }

  onSlow(): void {
    this.close(CLOSE.slowConsumer);
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

  /** Like {@link after}, but also once what was published to the channel before is stored: for what has to see it. */
  afterAll<T>(channel: string, step: () => T | Promise<T>): T | Promise<T> {
    const change = this.changes?.get(channel);
    if (change === undefined) {
      const publications = this.publications?.settled(channel);
      return publications === undefined ? step() : publications.then(step);
    }
    // What was to be published after the change has only just begun when it is done.
    return change.then(() => this.publications?.settled(channel)).then(step);
  }

  /** Like {@link afterAll}, and what is asked later for the channel waits for it, if it is not done at once. */
  change<T>(channel: string, step: () => T | Promise<T>): T | Promise<T> {
    const result = this.afterAll(channel, step);
    if (!(result instanceof Promise)) return result;
    const changes = (this.changes ??= new Map());
    const settled: Promise<void> = result.then(
      () => this.forgetChange(channel, settled),
      () => this.forgetChange(channel, settled),
    );
    changes.set(channel, settled);
    return result;
  }

  private forgetChange(channel: string, settled: Promise<void>): void {
    if (this.changes?.get(channel) === settled) this.changes.delete(channel);
    if (this.changes?.size === 0) this.changes = null;
  }

  /** A publication to the channel is under way; {@link published} follows, in the order of the calls. */
  publishing(channel: string): void {
    (this.publications ??= new Publications()).begin(channel);
  }

  /** It has the id, or null where it is not numbered or has failed. */
  published(channel: string, id: number | null): void {
    if (id !== null && this.rooms.get(channel.slice(5))) this.publications?.noteId(channel, id);
    this.publications?.end(channel);
  }

  /** The id of the last event that it published to a room it is in; 0 where it has not. */
  lastPublishedId(channel: string): number {
    return this.publications?.lastId(channel) ?? 0;
  }

  /** It has left the room. */
  forgetPublished(channel: string): void {
    this.publications?.forgetId(channel);
  }

  /** Whether an event that is not for `connection:<id>` or `user:<id>` is not for this one. */
  isExcluded(exclude: string): boolean {
    return names(exclude, 'connection:', this.id) || names(exclude, 'user:', this.userId);
  }
}

/** Asked for every member of a channel, so without making a text. */
function names(exclude: string, kind: string, id: string): boolean {
  return exclude.length === kind.length + id.length && exclude.startsWith(kind) && exclude.endsWith(id);
}
