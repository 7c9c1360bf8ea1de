import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import type { Transport } from '../core/transport.js';
import type { DirectWriter, DirectWrites } from './direct-writes.js';

/** Up to so many bytes, several pieces are copied into one rather than written one by one. */
const MAX_JOINED_BYTES = 65_536;

/**
 * A ws WebSocket and the socket below it, which was corked before the handshake was answered. Frames are complete and go
 * to the socket as they are, which is safe between ws's own: it writes control frames in one piece, and no messages of
 * ours go through it.
 */
export class WsTransport implements Transport, DirectWriter {
  readonly deflate: boolean;
  /** Null where the socket is written to as a stream. */
  private readonly handle: ReturnType<DirectWrites['handleOf']>;
  /** Written directly, and not taken by the kernel yet. */
  private directBytes = 0;
  /** The answer to the handshake waits for what is written first. */
  private isCorked = true;

  constructor(
    private readonly ws: WebSocket,
    private readonly socket: Duplex,
    private readonly direct: DirectWrites | null,
  ) {
    this.deflate = ws.extensions.includes('permessage-deflate');
    this.handle = direct?.handleOf(socket) ?? null;
  }

  get queuedBytes(): number {
    return this.socket.writableLength + this.directBytes;
  }

  write(frames: Buffer): void {
    if (!this.socket.writable) return;
    // Nothing may overtake what waits, and a stream knows best how to wait.
    if (this.handle === null || this.direct === null || this.queuedBytes > 0) {
      this.socket.write(frames);
      this.uncork();
      return;
    }
    const queued = this.direct.write(this.handle, frames, this);
    if (queued < 0) this.socket.write(frames);
    else this.directBytes += queued;
  }

  writeAll(pieces: readonly Buffer[]): void {
    if (this.handle !== null && total(pieces) <= MAX_JOINED_BYTES) {
      this.write(Buffer.concat(pieces));
      return;
    }
    if (!this.socket.writable) return;
    this.socket.cork();
    for (const piece of pieces) this.socket.write(piece);
    this.socket.uncork();
    this.uncork();
  }

  pause(paused: boolean): void {
    if (paused) this.ws.pause();
    else this.ws.resume();
  }

  close(code: number, reason: string): void {
    this.uncork();
    // A paused socket would never see the answer to the close frame.
    this.ws.resume();
    this.ws.close(code, reason);
  }

  terminate(): void {
    this.ws.terminate();
  }

  private uncork(): void {
    if (!this.isCorked) return;
    this.isCorked = false;
    this.socket.uncork();
  }

  onTaken(bytes: number, status: number): void {
    this.directBytes -= bytes;
    if (status < 0) this.socket.destroy();
  }
}

function total(pieces: readonly Buffer[]): number {
  let bytes = 0;
  for (const piece of pieces) bytes += piece.length;
  return bytes;
}
