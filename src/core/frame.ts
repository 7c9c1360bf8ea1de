import { constants, deflateRawSync } from 'node:zlib';
import type { ServerEvent } from '../protocol/messages.js';
import { jsonText } from '../protocol/messages.js';
import type { EventEnvelope } from './broker.js';

const FIN_TEXT = 0x81;
const RSV1 = 0x40;
const FIN_PING = 0x89;
const FIN_PONG = 0x8a;
/** Below this a compressed frame is seldom smaller, and never worth its time. */
const DEFLATE_FROM_BYTES = 1024;

/** Complete WebSocket frames as they are written, shared by all their receivers. */
export interface Frames {
  readonly bytes: Buffer;
  /** The same messages compressed, made once at the first receiver that wants them. */
  deflated(): Buffer;
}

/** One text message as WebSocket frame bytes (RFC 6455 section 5.2, unmasked). */
export class Frame implements Frames {
  private compressed: Buffer | undefined;

  constructor(
    readonly bytes: Buffer,
    private readonly headerBytes: number,
  ) {}

  /** RFC 7692 section 7.2.1. */
  deflated(): Buffer {
    if (this.compressed === undefined) {
      const payload = this.bytes.subarray(this.headerBytes);
      if (payload.length < DEFLATE_FROM_BYTES) {
        this.compressed = this.bytes;
      } else {
        const squeezed = deflateRawSync(payload, { finishFlush: constants.Z_SYNC_FLUSH });
        const body = squeezed.subarray(0, squeezed.length - 4);
        const header = headerLength(body.length);
        const bytes = Buffer.allocUnsafe(header + body.length);
        writeHeader(bytes, FIN_TEXT | RSV1, body.length);
        body.copy(bytes, header);
        this.compressed = bytes;
      }
    }
    return this.compressed;
  }
}

class JoinedFrames implements Frames {
  readonly bytes: Buffer;
  private compressed: Buffer | undefined;

  constructor(private readonly frames: readonly Frame[]) {
    this.bytes = Buffer.concat(frames.map(({ bytes }) => bytes));
  }

  deflated(): Buffer {
    return (this.compressed ??= Buffer.concat(this.frames.map((frame) => frame.deflated())));
  }
}

/** Several messages as one piece, in order. */
export function joinFrames(frames: readonly Frame[]): Frames {
  const [first] = frames;
  return first !== undefined && frames.length === 1 ? first : new JoinedFrames(frames);
}

export function frameText(text: string): Frame {
  const length = Buffer.byteLength(text);
  const header = headerLength(length);
  const bytes = Buffer.allocUnsafe(header + length);
  writeHeader(bytes, FIN_TEXT, length);
  bytes.write(text, header, 'utf8');
  return new Frame(bytes, header);
}

export function frameServerEvent(event: ServerEvent): Frame {
  return frameText(jsonText(event));
}

/** The published event with its id, closed; the body's bytes are copied once and never parsed. */
export function frameEvent(event: EventEnvelope): Frame {
  const tail = event.position === null ? '}' : `,"id":${event.position.id}}`;
  const length = event.body.length + tail.length;
  const header = headerLength(length);
  const bytes = Buffer.allocUnsafe(header + length);
  writeHeader(bytes, FIN_TEXT, length);
  event.body.copy(bytes, header);
  bytes.write(tail, header + event.body.length, 'latin1');
  return new Frame(bytes, header);
}

/** The heartbeat: the JSON ping for programs and the protocol ping for everything below them, in one write. */
export function heartbeatFrame(): Frame {
  const text = frameText('{"type":"ping"}');
  const ping = Buffer.from([FIN_PING, 0]);
  // Never long enough to be compressed, so the two frames can travel as one.
  return new Frame(Buffer.concat([text.bytes, ping]), 2);
}

/** The answer to a protocol ping, with its 0 to 125 bytes; never compressed (RFC 7692 section 6.1). */
export function pongFrame(data: Buffer): Frame {
  return new Frame(Buffer.concat([Buffer.from([FIN_PONG, data.length]), data]), 2);
}

function headerLength(payloadBytes: number): number {
  if (payloadBytes < 126) return 2;
  return payloadBytes < 65_536 ? 4 : 10;
}

function writeHeader(target: Buffer, firstByte: number, payloadBytes: number): void {
  target[0] = firstByte;
  if (payloadBytes < 126) {
    target[1] = payloadBytes;
  } else if (payloadBytes < 65_536) {
    target[1] = 126;
    target.writeUInt16BE(payloadBytes, 2);
  } else {
    target[1] = 127;
    target.writeBigUInt64BE(BigInt(payloadBytes), 2);
  }
}
