import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import type { Transport } from '../core/transport.js';
import { SocketWriter } from '../sockets/socket-writer.js';
import type { SocketWrites } from '../sockets/socket-writes.js';

/**
 * A ws WebSocket and the socket below it, which was corked before the handshake was answered. Frames are complete and go
 * to the socket as they are. While it is open ws writes nothing itself: no message of ours goes through it, and it answers
 * no ping.
 */
export class WsTransport extends SocketWriter implements Transport {
  readonly deflate: boolean;

  constructor(
    private readonly ws: WebSocket,
    socket: Duplex,
    writes: SocketWrites | null,
  ) {
    super(socket, writes);
    this.deflate = ws.extensions.includes('permessage-deflate');
  }

  pause(paused: boolean): void {
    if (paused) this.ws.pause();
    else this.ws.resume();
  }

  close(code: number, reason: string): void {
    this.settle();
    // A paused socket would never see the answer to the close frame.
    this.ws.resume();
    this.ws.close(code, reason);
  }

  terminate(): void {
    this.settle();
    this.ws.terminate();
  }
}
