import { WebSocket } from 'ws';
import type { Attempt, Content, Ledger, Reader } from './ledger.js';

const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 5_000;
const HANDSHAKE_MS = 5_000;
const STABLE_MS = 5_000;
const REPEAT_MIN_MS = 200;
const REPEAT_MAX_MS = 2_000;

/** Where clients of a run go, and what they count together. */
export interface Venue {
  readonly ledger: Ledger;
  /** Addresses (`ws://...`) of the instances. */
  addresses(): readonly string[];
  readonly tally: Tally;
}

export class Tally {
  /** Closes that the client did not ask for, by code. */
  readonly closes = new Map<number, number>();
  readonly refusals = new Map<number, number>();
  /** `reconnect` events: each should come before a 1012. */
  reconnects = 0;
  cuts = 0;
  resumes = 0;
  recovered = 0;
  notRecovered = 0;
  /** Ms from the loss of a connection to being back in the room. */
  readonly resumeMs: number[] = [];
  /** When clients came back, in ms. */
  readonly returnsAtMs: number[] = [];
  /** The longest time between an ack and a delivery. */
  slowestReadMs = 0;
  /** Called for each event that is read, with the address of the instance it came from. */
  onRead: ((attempt: Attempt, address: string) => void) | null = null;
}

interface Position {
  id: number;
  epoch: string;
  /** The epoch that was told with `recovered: false`; a gap or an event makes it the present one. */
  told: string | null;
}

interface Pending {
  readonly attempt: Attempt;
  readonly message: Record<string, unknown>;
  sentMs: number;
}

type Message = Record<string, unknown>;

/** A client as the README tells users to write one: keeps its positions, comes back anywhere, repeats what was not acknowledged. */
export class ResumingClient {
  isJoined = false;
  address = '';
  /** The name of the instance that it is connected to, or was. */
  instance = '';
  isStopped = false;
  #socket: WebSocket | null = null;
  #positions = new Map<string, Position>();
  #readers = new Map<string, Reader>();
  #pending = new Map<string, Pending>();
  #attempt = 0;
  #lostMs = 0;
  #isCutByUs = false;
  #afterMs: number | null = null;
  #timer: NodeJS.Timeout | null = null;
  #asked = { resume: false, room: false };
  #owesGap = false;
  #joins = 0;
  #refs = 0;
  #joined: (() => void)[] = [];

  constructor(
    readonly name: string,
    readonly room: string,
    private readonly venue: Venue,
    private readonly fixedAddress: string | null = null,
  ) {}

  get isOpen(): boolean {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  get unanswered(): number {
    return this.#pending.size;
  }

  /** Connects; resolves when it is in its room. */
  start(): Promise<void> {
    this.#connect();
    return this.untilJoined();
  }

  untilJoined(): Promise<void> {
    if (this.isJoined) return Promise.resolve();
    return new Promise((resolve) => this.#joined.push(resolve));
  }

  /** Goes for good. */
  stop(): void {
    this.isStopped = true;
    this.isJoined = false;
    this.#pending.clear();
    for (const reader of this.#readers.values()) reader.end();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#isCutByUs = true;
    this.#socket?.terminate();
  }

  /** Cuts the TCP connection without a close frame; the client comes back by itself. */
  cut(): void {
    if (this.#socket === null || this.isStopped) return;
    this.#isCutByUs = true;
    this.isJoined = false;
    this.venue.tally.cuts += 1;
    this.#socket.terminate();
  }

  /** Leaves the room and joins it again from its last position: one seam. */
  async rejoin(): Promise<void> {
    if (!this.isOpen || !this.isJoined) {
      await this.untilJoined();
      return;
    }
    this.isJoined = false;
    // Only after `left_room` is the last id the last one: what came before it was still live.
    const reply = await this.request({ type: 'leave_room', room: this.room });
    if (reply['event'] !== 'left_room')
      throw new Error(`leave_room was answered by ${JSON.stringify(reply)}`);
    this.#join();
    await this.untilJoined();
  }

  /** A request that is answered by its `ref`; rejects when it is not within `timeoutMs`. */
  request(message: Message, timeoutMs = 5_000): Promise<Message> {
    const ref = `q${(this.#refs += 1)}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#requests.delete(ref);
        reject(new Error(`${String(message['type'])} was not answered`));
      }, timeoutMs);
      this.#requests.set(ref, (reply) => {
        clearTimeout(timer);
        resolve(reply);
      });
      this.#send({ ...message, ref });
    });
  }
  #requests = new Map<string, (reply: Message) => void>();

  publish(channel: string, attempt: Attempt, content: Content): void {
    const ref = `p${content.n}`;
    const message: Message = { content, message_id: `${content.publisher}/${content.n}`, ref };
    if (channel === 'broadcast') message['type'] = 'chat';
    else if (channel.startsWith('room:'))
      Object.assign(message, { type: 'room_message', room: channel.slice(5) });
    else Object.assign(message, { type: 'direct_message', target_user: channel.slice(5) });
    const pending = { attempt, message, sentMs: 0 };
    this.#pending.set(ref, pending);
    this.#transmit(ref, pending);
  }

  #transmit(ref: string, pending: Pending): void {
    if (!this.isJoined || this.#pending.get(ref) !== pending) return;
    pending.attempt.tries += 1;
    pending.sentMs = performance.now();
    this.#send(pending.message);
  }

  #send(message: Message): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #connect(): void {
    if (this.isStopped) return;
    if (this.#lostMs > 0) this.venue.tally.returnsAtMs.push(performance.now());
    const addresses = this.venue.addresses();
    this.address = this.fixedAddress ?? addresses[Math.floor(Math.random() * addresses.length)] ?? '';
    const url = new URL(`${this.address}/ws`);
    url.searchParams.set('client_id', this.name);
    const broadcast = this.#positions.get('broadcast');
    const direct = this.#positions.get(`user:${this.name}`);
    this.#asked = { resume: broadcast !== undefined && direct !== undefined, room: false };
    if (broadcast !== undefined && direct !== undefined) {
      url.searchParams.set('lastEventId', String(broadcast.id));
      url.searchParams.set('epoch', broadcast.epoch);
      url.searchParams.set('lastDirectEventId', String(direct.id));
      url.searchParams.set('directEpoch', direct.epoch);
    }
    const socket = new WebSocket(url, {
      perMessageDeflate: false,
      handshakeTimeout: HANDSHAKE_MS,
      skipUTF8Validation: true,
    });
    this.#socket = socket;
    this.#isCutByUs = false;
    let wasOpen = false;
    let openedMs = 0;
    socket.on('open', () => {
      wasOpen = true;
      openedMs = performance.now();
    });
    socket.on('unexpected-response', (_request, response) => {
      const status = response.statusCode ?? 0;
      this.venue.tally.refusals.set(status, (this.venue.tally.refusals.get(status) ?? 0) + 1);
      response.resume();
      socket.terminate();
    });
    // A refused or cut connection ends with `close` too.
    socket.on('error', () => undefined);
    socket.on('message', (data) => {
      if (this.#socket === socket) this.#onFrame(String(data as Buffer));
    });
    socket.on('close', (code) => {
      if (this.#socket !== socket) return;
      this.#onClosed(code, wasOpen, wasOpen && performance.now() - openedMs > STABLE_MS);
    });
  }

  #onClosed(code: number, wasOpen: boolean, wasStable: boolean): void {
    this.isJoined = false;
    if (this.isStopped) return;
    if (wasOpen && !this.#isCutByUs) {
      const { closes } = this.venue.tally;
      closes.set(code, (closes.get(code) ?? 0) + 1);
    }
    if (this.#lostMs === 0) this.#lostMs = performance.now();
    this.#attempt = wasStable || (wasOpen && this.#isCutByUs) ? 0 : this.#attempt + 1;
    const limit = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** this.#attempt);
    const waitMs = this.#afterMs ?? Math.random() * limit;
    this.#afterMs = null;
    this.#timer = setTimeout(() => this.#connect(), waitMs);
  }

  #join(): void {
    this.#joins += 1;
    const position = this.#positions.get(`room:${this.room}`);
    this.#asked.room = position !== undefined;
    const join: Message = { type: 'join_room', room: this.room, ref: `j${this.#joins}` };
    if (position !== undefined) {
      this.venue.tally.resumes += 1;
      join['last_event_id'] = position.id;
      join['epoch'] = position.epoch;
    }
    this.#send(join);
  }

  #onFrame(frame: string): void {
    const message = JSON.parse(frame) as Message;
    const ref = message['ref'];
    switch (message['event']) {
      case 'connected':
        this.#onConnected(message);
        return;
      case 'joined_room':
        this.#onJoined(message);
        return;
      case 'chat':
        this.#onChat(message);
        return;
      case 'gap':
        this.#onGap(message);
        return;
      case 'reconnect':
        this.venue.tally.reconnects += 1;
        this.#afterMs = Number(message['after_ms']);
        return;
      case 'ack':
        if (typeof ref === 'string') this.#onAck(ref, message);
        return;
      case 'error':
        this.#onError(typeof ref === 'string' ? ref : '', message);
        return;
      default:
        if (message['type'] === 'ping') this.#send({ type: 'pong' });
        else if (typeof ref === 'string') this.#settle(ref, message);
    }
  }

  #settle(ref: string, message: Message): boolean {
    const resolve = this.#requests.get(ref);
    this.#requests.delete(ref);
    resolve?.(message);
    return resolve !== undefined;
  }

  #onConnected(message: Message): void {
    this.instance = String(message['instance']);
    const direct = `user:${this.name}`;
    const { resume } = this.#asked;
    if (resume) this.#count(message['recovered'] === true);
    this.#place(
      'broadcast',
      message['last_event_id'],
      message['epoch'],
      resume,
      message['recovered'] === true,
    );
    this.#place(
      direct,
      message['last_direct_event_id'],
      message['direct_epoch'],
      resume,
      message['recovered'] === true,
    );
    this.#join();
  }

  #onJoined(message: Message): void {
    if (message['room'] !== this.room) return;
    const recovered = message['recovered'] === true;
    if (this.#asked.room) {
      this.#count(recovered);
      this.#owesGap = !recovered;
    }
    this.#place(`room:${this.room}`, message['last_event_id'], message['epoch'], this.#asked.room, recovered);
    this.isJoined = true;
    if (this.#lostMs > 0) this.venue.tally.resumeMs.push(performance.now() - this.#lostMs);
    this.#lostMs = 0;
    for (const resolve of this.#joined.splice(0)) resolve();
    for (const [ref, pending] of this.#pending) this.#transmit(ref, pending);
  }

  #count(recovered: boolean): void {
    if (recovered) this.venue.tally.recovered += 1;
    else this.venue.tally.notRecovered += 1;
  }

  #place(channel: string, id: unknown, epoch: unknown, asked: boolean, recovered: boolean): void {
    if (typeof id !== 'number' || typeof epoch !== 'string') return;
    const position = this.#positions.get(channel);
    if (asked && position !== undefined) {
      if (recovered) position.epoch = epoch;
      else position.told = epoch;
      return;
    }
    this.#positions.set(channel, { id, epoch, told: null });
    this.#reader(channel).begin(epoch, id);
  }

  #reader(channel: string): Reader {
    let reader = this.#readers.get(channel);
    if (reader === undefined)
      this.#readers.set(channel, (reader = this.venue.ledger.reader(this.name, channel)));
    return reader;
  }

  #onChat(message: Message): void {
    const channel = this.#channelOf(message);
    const position = this.#positions.get(channel);
    const { id } = message;
    const { ledger, tally } = this.venue;
    if (position === undefined || typeof id !== 'number') {
      ledger.dishonest.push(`${this.name} got an event on ${channel} before a position`);
      return;
    }
    if (channel.startsWith('room:') && this.#owesGap) {
      this.#owesGap = false;
      ledger.dishonest.push(`${this.name} on ${channel}: recovered: false, and ${id} without a gap`);
    }
    if (position.told !== null) position.epoch = position.told;
    position.told = null;
    position.id = id;
    const content = message['content'];
    const n = typeof content === 'object' && content !== null && 'n' in content ? Number(content.n) : -1;
    this.#reader(channel).read(id, n);
    const attempt = ledger.attempts[n];
    if (attempt === undefined) return;
    if (attempt.acknowledgedMs > 0)
      tally.slowestReadMs = Math.max(tally.slowestReadMs, performance.now() - attempt.acknowledgedMs);
    tally.onRead?.(attempt, this.address);
  }

  #onGap(message: Message): void {
    const channel = this.#channelOf(message);
    const [after, next, epoch] = [
      Number(message['after']),
      Number(message['next']),
      String(message['epoch']),
    ];
    this.#positions.set(channel, { id: next - 1, epoch, told: null });
    if (channel.startsWith('room:')) this.#owesGap = false;
    this.#reader(channel).gap(after, next, epoch);
  }

  #channelOf(message: Message): string {
    if (typeof message['room'] === 'string') return `room:${message['room']}`;
    return message['direct'] === true ? `user:${this.name}` : 'broadcast';
  }

  #onAck(ref: string, message: Message): void {
    const pending = this.#pending.get(ref);
    if (pending === undefined) {
      this.#settle(ref, message);
      return;
    }
    this.#pending.delete(ref);
    const { ledger } = this.venue;
    ledger.slowestAnswerMs = Math.max(ledger.slowestAnswerMs, performance.now() - pending.sentMs);
    ledger.acknowledge(pending.attempt, Number(message['id']));
  }

  #onError(ref: string, message: Message): void {
    const { ledger } = this.venue;
    const code = String(message['code']);
    if (ref.startsWith('j')) {
      if (ref === `j${this.#joins}`) setTimeout(() => this.#join(), REPEAT_MIN_MS * (0.5 + Math.random()));
      return;
    }
    if (this.#settle(ref, message)) return;
    const pending = this.#pending.get(ref);
    ledger.failed(code);
    if (pending === undefined) return;
    ledger.slowestAnswerMs = Math.max(ledger.slowestAnswerMs, performance.now() - pending.sentMs);
    const waitMs = Math.min(REPEAT_MAX_MS, REPEAT_MIN_MS * 2 ** Math.min(pending.attempt.tries, 6));
    setTimeout(() => this.#transmit(ref, pending), waitMs * (0.5 + Math.random() / 2));
  }
}
