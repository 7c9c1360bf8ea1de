import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import type { Transport } from '../core/transport.js';

/**
 * A ws WebSocket and the socket below it. Frames are complete and go to the socket as they are, which is safe between
 * ws's own: it writes control frames in one piece, and no messages of ours go through it.
 */
export class WsTransport implements Transport {
  readonly deflate: boolean;

  constructor(
    private readonly ws: WebSocket,
    private readonly socket: Duplex,
  ) {
    this.deflate = ws.extensions.includes('permessage-deflate');
  }

  get queuedBytes(): number {
    return this.socket.writableLength;
  }

  write(frames: Buffer): void {
    if (this.socket.writable) this.socket.write(frames);
  }

  writeAll(pieces: readonly Buffer[]): void {
    if (!this.socket.writable) return;
    this.socket.cork();
    for (const piece of pieces) this.socket.write(piece);
    this.socket.uncork();
  }

  pause(paused: boolean): void {
    if (paused) this.ws.pause();
    else this.ws.resume();
  }

  close(code: number, reason: string): void {
    // A paused socket would never see the answer to the close frame.
    this.ws.resume();
    this.ws.close(code, reason);
  }

  terminate(): void {
    this.ws.terminate();
  }
}
