import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { WebSocket, type RawData } from 'ws';
import { within } from './eventually.js';

/** What a server sends: an event, or the JSON ping, which has a `type` instead. */
export interface Message {
  readonly event?: string;
  readonly type?: string;
  readonly [field: string]: unknown;
}

/** The name of an event, or anything that tells the wanted message from the others. */
export type Match = string | ((message: Message) => boolean);

export interface Close {
  readonly code: number;
  readonly reason: string;
}

export interface ConnectOptions {
  headers?: Record<string, string>;
  protocols?: string[];
  query?: Record<string, string>;
  /** Answer protocol pings by itself. Default true. */
  autoPong?: boolean;
  /** Offer permessage-deflate. Default false. */
  deflate?: boolean;
  timeoutMs?: number;
}

export interface Refusal {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** The parsed JSON body; the text itself when it is no JSON. */
  readonly body: unknown;
}

interface Waiter {
  readonly wanted: (message: Message) => boolean;
  readonly resolve: (message: Message) => void;
  readonly reject: (error: Error) => void;
}

export class RefusedUpgrade extends Error {
  constructor(readonly refusal: Refusal) {
    super(`the upgrade was refused with ${refusal.status}: ${JSON.stringify(refusal.body)}`);
  }
}

const open = new Set<Client>();
let references = 0;

/**
 * A client that keeps every message until a test asks for it, so that nothing is missed between two awaits.
 * `next` takes the first unread message that matches and leaves the others unread.
 */
export class Client {
  /** Every message in the order of arrival, read or not. */
  readonly all: Message[] = [];
  readonly closed: Promise<Close>;
  readonly upgraded: Promise<IncomingMessage>;
  pings = 0;
  pongs = 0;
  #unread: Message[] = [];
  #waiters: Waiter[] = [];
  #watchers: ((message: Message) => void)[] = [];
  #close: Close | undefined;
  #connected: Message | undefined;

  constructor(private readonly socket: WebSocket) {
    open.add(this);
    this.closed = new Promise((resolve) => {
      socket.on('close', (code: number, reason: Buffer) => {
        this.#close = { code, reason: reason.toString() };
        open.delete(this);
        const waiters = this.#waiters;
        this.#waiters = [];
        for (const waiter of waiters) {
          waiter.reject(new Error(`the connection was closed with ${code}; ${this.#seen()}`));
        }
        resolve(this.#close);
      });
    });
    this.upgraded = new Promise((resolve, reject) => {
      socket.on('upgrade', resolve);
      socket.on('unexpected-response', (request, response) => {
        readRefusal(response).then((refusal) => {
          reject(new RefusedUpgrade(refusal));
          request.destroy();
          socket.terminate();
        }, reject);
      });
      socket.on('error', reject);
    });
    socket.on('message', (data: RawData, isBinary: boolean) => {
      if (isBinary) throw new Error('the gateway sent a binary frame');
      this.#arrived(parse(asText(data)));
    });
    socket.on('ping', () => {
      this.pings += 1;
    });
    socket.on('pong', () => {
      this.pongs += 1;
    });
  }

  /** The `connected` event. */
  get connected(): Message {
    if (this.#connected === undefined) throw new Error('not connected yet');
    return this.#connected;
  }

  get userId(): string {
    return text(this.connected, 'user_id');
  }

  get connectionId(): string {
    return text(this.connected, 'connection_id');
  }

  /** The close that has already happened, if it has. */
  get closedWith(): Close | undefined {
    return this.#close;
  }

  /** The subprotocol that the server selected, or ''. */
  get protocol(): string {
    return this.socket.protocol;
  }

  get extensions(): string {
    return this.socket.extensions;
  }

  send(message: object | string): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  sendBinary(bytes: Uint8Array): void {
    this.socket.send(bytes, { binary: true });
  }

  ping(): void {
    this.socket.ping();
  }

  /** Calls `watcher` for each message from now on, before it is queued. */
  watch(watcher: (message: Message) => void): void {
    this.#watchers.push(watcher);
  }

  /** The first unread message that matches, now or later. */
  async next(match: Match, timeoutMs = 5_000): Promise<Message> {
    const wanted = predicate(match);
    const index = this.#unread.findIndex(wanted);
    if (index >= 0) return this.#unread.splice(index, 1)[0] as Message;
    if (this.#close)
      throw new Error(`closed with ${this.#close.code} before ${describe(match)}; ${this.#seen()}`);
    let waiter: Waiter | undefined;
    const arrival = new Promise<Message>((resolve, reject) => {
      waiter = { wanted, resolve, reject };
      this.#waiters.push(waiter);
    });
    try {
      return await within(arrival, timeoutMs, () => `no ${describe(match)} came; ${this.#seen()}`);
    } finally {
      this.#waiters = this.#waiters.filter((other) => other !== waiter);
    }
  }

  /** The first `count` unread messages that match, in order. */
  async take(match: Match, count: number, timeoutMs = 10_000): Promise<Message[]> {
    const taken: Message[] = [];
    while (taken.length < count) taken.push(await this.next(match, timeoutMs));
    return taken;
  }

  /** Sends `message` with a `ref` of its own and resolves with the reply that carries it back. */
  async request(message: object, timeoutMs = 5_000): Promise<Message> {
    const ref = `ref-${(references += 1)}`;
    const reply = this.next((candidate) => candidate['ref'] === ref, timeoutMs);
    this.send({ ...message, ref });
    return reply;
  }

  /** Resolves once everything that the gateway had queued for this connection before has been read. */
  async fence(): Promise<void> {
    const reply = await this.request({ type: 'ping' });
    if (reply.event !== 'pong') throw new Error(`the fence was answered by ${JSON.stringify(reply)}`);
  }

  /** The messages that match and that no `next` has taken. */
  unread(match: Match): Message[] {
    return this.#unread.filter(predicate(match));
  }

  /** Drops every message that has come so far: for clients that run for long and do not look back. */
  forget(): void {
    this.#unread = [];
    this.all.length = 0;
  }

  /**
   * The unread messages that match once `marker` has settled, by default a fence: expect it to be empty for
   * what must not come. What might have caused them must have been answered before the call, not only sent.
   */
  async settled(match: Match, marker?: () => Promise<unknown>): Promise<Message[]> {
    await (marker === undefined ? this.fence() : marker());
    return this.unread(match);
  }

  async close(code = 1000): Promise<Close> {
    this.socket.close(code);
    return within(this.closed, 5_000, 'the gateway does not answer a close');
  }

  /** Cuts the TCP connection without a close frame. */
  async cut(): Promise<void> {
    this.socket.terminate();
    await this.closed;
  }

  /** Stops reading from the socket; the kernel's buffers fill up. */
  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  /** Waits for the upgrade and the `connected` event. */
  async ready(timeoutMs: number): Promise<this> {
    const connected = this.next('connected', timeoutMs);
    // Whichever of the two fails first tells why; the other one's failure says nothing more.
    await Promise.all([
      within(this.upgraded, timeoutMs, 'the gateway does not answer the upgrade'),
      connected,
    ]);
    this.#connected = await connected;
    return this;
  }

  #arrived(message: Message): void {
    this.all.push(message);
    for (const watcher of this.#watchers) watcher(message);
    const index = this.#waiters.findIndex((waiter) => waiter.wanted(message));
    if (index < 0) {
      this.#unread.push(message);
      return;
    }
    const [waiter] = this.#waiters.splice(index, 1);
    waiter?.resolve(message);
  }

  #seen(): string {
    const last = this.all.slice(-8).map((message) => JSON.stringify(message).slice(0, 200));
    return `of ${this.all.length} messages the last were ${last.join(' ') || 'none'}`;
  }
}

/** Opens a connection and waits for `connected`; rejects with `RefusedUpgrade` when it is refused. */
export async function connect(url: string, options: ConnectOptions = {}): Promise<Client> {
  return start(url, options).ready(options.timeoutMs ?? 5_000);
}

/** Opens a connection that is accepted, but may be closed before a `connected`. */
export async function accepted(url: string, options: ConnectOptions = {}): Promise<Client> {
  const client = start(url, options);
  await within(client.upgraded, options.timeoutMs ?? 5_000, 'the gateway does not answer the upgrade');
  return client;
}

/** The HTTP answer of an upgrade that the gateway refuses. */
export async function refused(url: string, options: ConnectOptions = {}): Promise<Refusal> {
  const client = start(url, options);
  try {
    await within(client.upgraded, options.timeoutMs ?? 5_000, 'the gateway does not answer the upgrade');
  } catch (error) {
    if (error instanceof RefusedUpgrade) return error.refusal;
    throw error;
  }
  await client.cut();
  throw new Error(`the upgrade of ${url} was accepted`);
}

/** Closes every client that is still open: for `afterEach`. */
export async function closeClients(): Promise<void> {
  await Promise.all([...open].map((client) => client.cut()));
}

/** A string field, or a failure that names it. */
export function text(message: Message, field: string): string {
  const value = message[field];
  if (typeof value !== 'string') throw new Error(`${field} is no string in ${JSON.stringify(message)}`);
  return value;
}

/** A number field, or a failure that names it. */
export function number(message: Message, field: string): number {
  const value = message[field];
  if (typeof value !== 'number') throw new Error(`${field} is no number in ${JSON.stringify(message)}`);
  return value;
}

/** Whether a message is the named event of the named user: presence notices of other tests pass by. */
export function notice(event: string, userId: string, room?: string): (message: Message) => boolean {
  return (message) =>
    message.event === event &&
    message['user_id'] === userId &&
    (room === undefined || message['room'] === room);
}

function start(url: string, options: ConnectOptions): Client {
  const target = new URL(url);
  for (const [name, value] of Object.entries(options.query ?? {})) target.searchParams.append(name, value);
  const client = new Client(
    new WebSocket(target, options.protocols ?? [], {
      headers: options.headers ?? {},
      autoPong: options.autoPong ?? true,
      perMessageDeflate: options.deflate ?? false,
      maxPayload: 64 * 1024 * 1024,
    }),
  );
  return client;
}

async function readRefusal(response: IncomingMessage): Promise<Refusal> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks).toString();
  return { status: response.statusCode ?? 0, headers: response.headers, body: jsonOr(body) };
}

function jsonOr(body: string): unknown {
  try {
    return JSON.parse(body) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return body;
    throw error;
  }
}

function parse(frame: string): Message {
  const value: unknown = JSON.parse(frame);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error(`the gateway sent ${frame.slice(0, 200)}, which is no JSON object`);
  }
  return value as Message;
}

function asText(data: RawData): string {
  if (Array.isArray(data)) return Buffer.concat(data).toString();
  return data instanceof ArrayBuffer ? Buffer.from(data).toString() : data.toString();
}

function predicate(match: Match): (message: Message) => boolean {
  return typeof match === 'string' ? (message) => message.event === match : match;
}

function describe(match: Match): string {
  return typeof match === 'string' ? `\`${match}\`` : 'message that was asked for';
}
