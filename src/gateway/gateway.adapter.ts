import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { randomUUID } from 'node:crypto';
import type { INestApplicationContext } from '@nestjs/common';
import { Logger } from '@nestjs/common';
import { WsAdapter } from '@nestjs/platform-ws';
import type { RawData, ServerOptions, WebSocket } from 'ws';
import { WebSocketServer } from 'ws';
import { Settings } from '../config/settings.js';
import { monotonicMs } from '../core/clock.js';
import { Connection } from '../core/connection.js';
import { Telemetry } from '../core/telemetry.js';
import { TokenBucket } from '../core/token-bucket.js';
import { Turn } from '../core/turn.js';
import { CLOSE } from '../protocol/close-codes.js';
import { ProtocolError } from '../protocol/errors.js';
import { SocketWrites } from '../sockets/socket-writes.js';
import type { SocketListener } from './client-socket.js';
import { ClientSocket } from './client-socket.js';
import { Dispatcher } from './dispatch.js';
import { ErrorFilter } from './error.filter.js';
import { RealtimeGateway } from './realtime.gateway.js';
import type { Admission } from './upgrade.js';
import { Upgrade } from './upgrade.js';
import { UpgradeRefused } from './upgrade-refused.js';
import { SUBPROTOCOL } from './upgrade-request.js';
import { WsTransport } from './ws-transport.js';

/** How long a peer has to answer our close frame. */
const CLOSE_TIMEOUT_MS = 3_000;
const MAX_FRAGMENTS = 64;
const MAX_BUFFERED_CHUNKS = 1_024;
/** Over the rate without a pause this long: closed. A pause is this long without a message too many. */
const LIMITED_TOO_LONG_MS = 10_000;
const PAUSE_MS = 1_000;
const RETRY_AFTER_MIN_S = 1;
const RETRY_AFTER_SPREAD_S = 4;

/** ws declines with `false` what its types only know a number for: a smaller window is one that a shared frame does not fit. */
const NO_SMALLER_WINDOW: object = { serverMaxWindowBits: false };
const SHARED_DEFLATE = Object.assign(
  { serverNoContextTakeover: true, clientNoContextTakeover: true },
  NO_SMALLER_WINDOW,
);

type GatewayServer = WebSocketServer & { readonly options: ServerOptions };

/**
 * Nest's way to ws, with everything decided before the upgrade is accepted and one dispatcher for all connections. What
 * Nest calls the client in handlers and guards is the {@link Connection}.
 */
export class GatewayAdapter extends WsAdapter implements SocketListener {
  private readonly log = new Logger('Gateway');
  private readonly settings: Settings;
  private readonly upgrade: Upgrade;
  private readonly dispatcher: Dispatcher;
  private readonly errors: ErrorFilter;
  private readonly telemetry: Telemetry;
  private readonly turn: Turn;
  private readonly writes: SocketWrites | null;
  private readonly gateway: RealtimeGateway;
  /** By socket, the answer to the last plain request on it. */
  private readonly answers = new WeakMap<Duplex, ServerResponse>();
  /** Closed at once, and still there. */
  private readonly refused = new Set<WebSocket>();
  private server: WebSocketServer | null = null;

  constructor(app: INestApplicationContext) {
    super(app);
    this.settings = app.get(Settings);
    this.upgrade = app.get(Upgrade);
    this.dispatcher = app.get(Dispatcher);
    this.errors = app.get(ErrorFilter);
    this.telemetry = app.get(Telemetry);
    this.turn = app.get(Turn);
    this.gateway = app.get(RealtimeGateway);
    this.writes = app.get<SocketWrites, SocketWrites | null>(SocketWrites);
  }

  override create(): GatewayServer {
    const options: ServerOptions & { closeTimeout: number } = {
      noServer: true,
      WebSocket: ClientSocket,
      // The connections are counted already, and a listener and a place in a set for each cost memory.
      clientTracking: false,
      // It would write between our frames.
      autoPong: false,
      maxPayload: this.settings.MAX_MESSAGE_BYTES,
      maxFragments: MAX_FRAGMENTS,
      maxBufferedChunks: MAX_BUFFERED_CHUNKS,
      closeTimeout: CLOSE_TIMEOUT_MS,
      // No context is taken over, so that what many receivers get is compressed once.
      perMessageDeflate: this.settings.PERMESSAGE_DEFLATE && SHARED_DEFLATE,
      handleProtocols: (offered) => offered.has(SUBPROTOCOL) && SUBPROTOCOL,
    };
    const server = new WebSocketServer(options);
    this.server = server;
    const http: Server = this.httpServer;
    http.on('request', this.onRequest);
    http.on('upgrade', this.onUpgrade);
    return server;
  }

  /**
   * Nest would make a callback for the end of each connection, and one for each type of message. The adapter calls the
   * gateway's hooks itself, and messages go through the dispatcher, which was given the gateway's decorators at boot.
   */
  override bindClientConnect(): void {
    // Nothing to bind for each connection.
  }

  override async close(server: WebSocketServer): Promise<void> {
    this.httpServer.off('request', this.onRequest);
    this.httpServer.off('upgrade', this.onUpgrade);
    for (const ws of this.refused) ws.terminate();
    await super.close(server);
  }

  private readonly onRequest = ({ socket }: IncomingMessage, response: ServerResponse): void => {
    this.answers.set(socket, response);
  };

  private readonly onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    // What was asked before on the same connection is answered first, not into the WebSocket.
    const answer = this.answers.get(socket);
    if (answer === undefined || answer.closed) {
      this.answerUpgrade(request, socket, head);
      return;
    }
    const forget = withoutErrors(socket);
    answer.once('close', () => {
      forget();
      this.answerUpgrade(request, socket, head);
    });
  };

  private answerUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    let admission: Admission | Promise<Admission>;
    try {
      admission = this.upgrade.decide(request);
    } catch (error) {
      this.turnAway(request, socket, head, error);
      return;
    }
    if (admission instanceof Promise) this.acceptLater(request, socket, head, admission);
    else this.accept(request, socket, head, admission);
  }

  private acceptLater(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    admission: Promise<Admission>,
  ): void {
    const forget = withoutErrors(socket);
    admission.then(
      (given) => {
        forget();
        this.accept(request, socket, head, given);
      },
      (error: unknown) => {
        forget();
        this.turnAway(request, socket, head, error);
      },
    );
  }

  private turnAway(request: IncomingMessage, socket: Duplex, head: Buffer, error: unknown): void {
    const refused = error instanceof UpgradeRefused ? error : null;
    if (refused === null) this.log.error(error);
    if (refused?.closeWith) this.acceptAndClose(request, socket, head, refused);
    else
      this.refuse(request, socket, refused?.statusCode ?? 500, refused?.message ?? 'Something went wrong.');
  }

  private accept(request: IncomingMessage, socket: Duplex, head: Buffer, admission: Admission): void {
    if (socket.destroyed) return;
    // The answer to the handshake goes out in one piece with the first message.
    socket.cork();
    this.server?.handleUpgrade(request, socket, head, (ws) => this.connect(ws, socket, admission));
  }

  /** Separate from the upgrade: a closure in there would keep the request for as long as the connection lives. */
  private connect(ws: WebSocket, socket: Duplex, { identity, address, plainText, resume }: Admission): void {
    const nowMs = monotonicMs();
    const transport = new WsTransport(ws, socket, this.writes);
    const limits = { slowConsumerBytes: this.settings.SLOW_CONSUMER_BYTES };
    const connection = new Connection(
      randomUUID(),
      identity,
      address,
      plainText,
      transport,
      this.turn,
      limits,
      nowMs,
    );
    const { RATE_LIMIT_PER_SECOND, RATE_LIMIT_BURST } = this.settings;
    if (RATE_LIMIT_PER_SECOND > 0)
      connection.bucket = new TokenBucket(RATE_LIMIT_PER_SECOND, RATE_LIMIT_BURST, nowMs);
    // What comes before the connection is open waits in the socket.
    connection.pause(true);
    if (ws instanceof ClientSocket) ws.tell(this, connection);
    this.gateway.handleConnection(connection, resume);
  }

  private acceptAndClose(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    { statusCode, closeWith }: UpgradeRefused,
  ): void {
    this.telemetry.handshakeRejected(statusCode);
    this.server?.handleUpgrade(request, socket, head, (ws) => {
      this.refused.add(ws);
      ws.on('close', () => this.refused.delete(ws));
      ws.on('error', () => ws.terminate());
      ws.close(closeWith?.code, closeWith?.reason);
    });
  }

  private refuse({ method }: IncomingMessage, socket: Duplex, statusCode: number, message: string): void {
    this.telemetry.handshakeRejected(statusCode);
    const error = STATUS_CODES[statusCode] ?? 'Error';
    const body = JSON.stringify({ statusCode, error, message });
    const head = [
      `HTTP/1.1 ${statusCode} ${error}`,
      'Connection: close',
      'Content-Type: application/json; charset=utf-8',
      `Content-Length: ${Buffer.byteLength(body)}`,
    ];
    if (statusCode === 401) head.push('WWW-Authenticate: Bearer');
    if (statusCode === 405) head.push('Allow: GET');
    if (statusCode === 426) head.push('Sec-WebSocket-Version: 13');
    if (statusCode === 503 || statusCode === 429) {
      head.push(`Retry-After: ${RETRY_AFTER_MIN_S + Math.floor(Math.random() * RETRY_AFTER_SPREAD_S)}`);
    }
    withoutErrors(socket);
    socket.once('finish', () => socket.destroy());
    // To HEAD, the answer has the head of one that is complete, and no body.
    socket.end(`${head.join('\r\n')}\r\n\r\n${method === 'HEAD' ? '' : body}`);
  }

  onMessage(connection: Connection, data: RawData, isBinary: boolean): void {
    if (connection.isGone) return;
    const nowMs = monotonicMs();
    connection.lastSeenMs = nowMs;
    if (isBinary) {
      connection.close(CLOSE.binary);
      return;
    }
    // ws hands a text message on as one Buffer.
    const text = Buffer.isBuffer(data) ? data.toString('utf8') : '';
    const waitMs = connection.bucket?.take(nowMs) ?? 0;
    if (waitMs === 0) this.dispatcher.dispatch(connection, text);
    else this.limit(connection, text, nowMs, waitMs);
  }

  onPing(connection: Connection, data: Buffer): void {
    connection.lastSeenMs = monotonicMs();
    connection.pong(data);
  }

  onPong(connection: Connection): void {
    connection.lastSeenMs = monotonicMs();
  }

  onClosing(connection: Connection): void {
    connection.finish();
  }

  onClose(connection: Connection, code: number): void {
    if (connection.closeCode === 0) connection.closeCode = code;
    this.gateway.handleDisconnect(connection);
  }

  /** ws closes by itself after an error, with the code for it. */
  onError(connection: Connection, error: Error): void {
    this.log.debug(`connection ${connection.id}: ${error.message}`);
  }

  private limit(connection: Connection, text: string, nowMs: number, waitMs: number): void {
    const limited = (connection.limited ??= { sinceMs: nowMs, lastMs: nowMs });
    if (nowMs - limited.lastMs > PAUSE_MS) limited.sinceMs = nowMs;
    limited.lastMs = nowMs;
    if (nowMs - limited.sinceMs >= LIMITED_TOO_LONG_MS) {
      connection.close(CLOSE.rateLimited);
      return;
    }
    this.telemetry.messageReceived('limited');
    const error = new ProtocolError('rate_limited', undefined, { retry_after_ms: waitMs });
    this.errors.answer(connection, error, this.dispatcher.refOfText(text));
  }
}

/** Until ws takes over, a reset of the peer must not end the process. Answers what makes the socket as it was. */
function withoutErrors(socket: Duplex): () => void {
  const end = (): void => {
    socket.destroy();
  };
  socket.on('error', end);
  return () => socket.off('error', end);
}
