import { randomBytes } from 'node:crypto';
import { connect as connectTcp, type Socket } from 'node:net';
import { within } from './eventually.js';

export interface RawOptions {
  headers?: Record<string, string>;
  /** Answer a close frame and end the stream, as a decent client does. Default true. */
  answersClose?: boolean;
  /** Bytes that leave together with the upgrade request. */
  early?: Buffer;
}

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface FrameOptions {
  fin?: boolean;
  /** The three reserved bits, 0 to 7. */
  rsv?: number;
  opcode?: number;
  payload?: Buffer | string;
  masked?: boolean;
  /** The length that the header claims, whatever the payload is. */
  claimedLength?: bigint;
}

export interface RawFrame {
  readonly fin: boolean;
  readonly opcode: number;
  readonly payload: Buffer;
}

export interface RawClose {
  /** The code of the close frame; undefined when the stream ended without one. */
  readonly code: number | undefined;
  readonly reason: string;
}

/** A WebSocket client that keeps none of the rules unless told to: the attacker's end of the wire. */
export class RawSocket {
  readonly frames: RawFrame[] = [];
  /** Settles with the server's close frame, or when the stream ends without one. */
  readonly closed: Promise<RawClose>;
  #unparsed = Buffer.alloc(0);
  #unread: RawFrame[] = [];
  #arrival: (() => void) | undefined;
  #settle: (close: RawClose) => void = () => undefined;
  #isClosed = false;

  private constructor(
    readonly socket: Socket,
    readonly head: string,
    rest: Buffer,
    private readonly answersClose: boolean,
  ) {
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
    socket.on('data', (chunk: Buffer) => {
      this.#read(chunk);
    });
    socket.on('close', () => {
      this.#end({ code: undefined, reason: '' });
    });
    this.#read(rest);
  }

  /** Resolves once the server has accepted the upgrade. */
  static async open(url: string, options: RawOptions = {}): Promise<RawSocket> {
    const target = new URL(url);
    const socket = await dial(target.hostname, Number(target.port));
    const request = Buffer.from(upgradeRequest(target, options.headers ?? {}));
    socket.write(Buffer.concat([request, options.early ?? Buffer.alloc(0)]));
    const { head, rest } = await within(
      responseHead(socket),
      5_000,
      'the gateway does not answer the upgrade',
    );
    if (!head.startsWith('HTTP/1.1 101 ')) {
      socket.destroy();
      throw new Error(`the upgrade was refused: ${head.split('\r\n')[0]}`);
    }
    return new RawSocket(socket, head, rest, options.answersClose ?? true);
  }

  write(bytes: Buffer | string): void {
    this.socket.write(bytes);
  }

  send(frame: FrameOptions): void {
    this.write(encode(frame));
  }

  /** Sends a well-formed text frame. */
  text(payload: string): void {
    this.send({ payload });
  }

  /** The next frame that matches; the others are dropped. */
  async next(wanted: (frame: RawFrame) => boolean, timeoutMs = 5_000): Promise<RawFrame> {
    const search = async (): Promise<RawFrame> => {
      for (;;) {
        const frame = this.#unread.shift();
        if (frame === undefined) {
          if (this.#isClosed) throw new Error('the connection ended before the frame that was asked for');
          await new Promise<void>((resolve) => {
            this.#arrival = resolve;
          });
        } else if (wanted(frame)) {
          return frame;
        }
      }
    };
    return within(search(), timeoutMs, 'the frame that was asked for did not come');
  }

  /** The next text frame whose JSON has this `event`. */
  async nextEvent(event: string): Promise<RawFrame> {
    return this.next(
      (frame) => frame.opcode === opcode.text && frame.payload.toString().includes(`"event":"${event}"`),
    );
  }

  /** Ends the TCP connection with a reset. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  destroy(): void {
    this.socket.destroy();
  }

  #read(chunk: Buffer): void {
    this.#unparsed = Buffer.concat([this.#unparsed, chunk]);
    for (;;) {
      const parsed = decode(this.#unparsed);
      if (parsed === undefined) break;
      this.#unparsed = this.#unparsed.subarray(parsed.length);
      this.frames.push(parsed.frame);
      this.#unread.push(parsed.frame);
      if (parsed.frame.opcode === opcode.close) this.#closeFrame(parsed.frame);
    }
    this.#arrival?.();
  }

  #closeFrame(frame: RawFrame): void {
    const code = frame.payload.length >= 2 ? frame.payload.readUInt16BE(0) : 1005;
    this.#end({ code, reason: frame.payload.subarray(2).toString() });
    if (this.answersClose) this.socket.end(encode({ opcode: opcode.close, payload: frame.payload }));
  }

  #end(close: RawClose): void {
    this.#isClosed = true;
    this.#settle(close);
    this.#arrival?.();
  }
}

/** Opens a TCP connection; errors after that only end it. */
export async function dial(host: string, port: number): Promise<Socket> {
  const socket = connectTcp({ host, port, noDelay: true });
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  // A reset by the peer is an outcome that 'close' reports as well.
  socket.on('error', () => socket.destroy());
  return socket;
}

/** Everything that the server sends until it ends the connection. */
export async function readToEnd(socket: Socket, timeoutMs = 5_000): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  const ended = new Promise<void>((resolve) => {
    socket.once('close', () => {
      resolve();
    });
  });
  await within(
    ended,
    timeoutMs,
    () => `the server keeps the connection open after ${Buffer.concat(chunks).toString()}`,
  );
  return Buffer.concat(chunks).toString();
}

export function upgradeRequest(target: URL, headers: Record<string, string>): string {
  const fields: Record<string, string> = {
    Host: target.host,
    Upgrade: 'websocket',
    Connection: 'Upgrade',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    'Sec-WebSocket-Version': '13',
    ...headers,
  };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return `GET ${target.pathname}${target.search} HTTP/1.1\r\n${lines.join('')}\r\n`;
}

export function encode(frame: FrameOptions): Buffer {
  const payload = Buffer.from(frame.payload ?? '');
  const masked = frame.masked ?? true;
  const first = ((frame.fin ?? true) ? 0x80 : 0) | ((frame.rsv ?? 0) << 4) | (frame.opcode ?? opcode.text);
  const length = encodeLength(frame.claimedLength ?? BigInt(payload.length), masked ? 0x80 : 0);
  if (!masked) return Buffer.concat([Buffer.of(first), length, payload]);
  const mask = randomBytes(4);
  const body = Buffer.from(payload.map((byte, index) => byte ^ (mask[index % 4] ?? 0)));
  return Buffer.concat([Buffer.of(first), length, mask, body]);
}

function encodeLength(length: bigint, maskBit: number): Buffer {
  if (length < 126n) return Buffer.of(maskBit | Number(length));
  if (length < 65_536n) {
    const bytes = Buffer.of(maskBit | 126, 0, 0);
    bytes.writeUInt16BE(Number(length), 1);
    return bytes;
  }
  const bytes = Buffer.alloc(9, maskBit | 127);
  bytes.writeBigUInt64BE(length, 1);
  return bytes;
}

/** The first frame of `bytes` as a server sends it (unmasked), and how many bytes it takes. */
function decode(bytes: Buffer): { frame: RawFrame; length: number } | undefined {
  if (bytes.length < 2) return undefined;
  const first = bytes.readUInt8(0);
  const short = bytes.readUInt8(1);
  if ((short & 0x80) !== 0) throw new Error('the server sent a masked frame');
  let offset = 2;
  let size = short;
  if (short === 126) {
    if (bytes.length < 4) return undefined;
    size = bytes.readUInt16BE(2);
    offset = 4;
  } else if (short === 127) {
    if (bytes.length < 10) return undefined;
    size = Number(bytes.readBigUInt64BE(2));
    offset = 10;
  }
  if (bytes.length < offset + size) return undefined;
  const payload = Buffer.from(bytes.subarray(offset, offset + size));
  return { frame: { fin: (first & 0x80) !== 0, opcode: first & 0x0f, payload }, length: offset + size };
}

async function responseHead(socket: Socket): Promise<{ head: string; rest: Buffer }> {
  let bytes = Buffer.alloc(0);
  return new Promise((resolve, reject) => {
    const onData = (chunk: Buffer): void => {
      bytes = Buffer.concat([bytes, chunk]);
      const end = bytes.indexOf('\r\n\r\n');
      if (end < 0) return;
      socket.off('data', onData);
      socket.off('close', onClose);
      resolve({ head: bytes.subarray(0, end).toString(), rest: bytes.subarray(end + 4) });
    };
    const onClose = (): void => {
      reject(new Error(`the connection ended after ${bytes.toString() || 'nothing'}`));
    };
    socket.on('data', onData);
    socket.on('close', onClose);
  });
}
