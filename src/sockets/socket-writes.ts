import type { Batch } from '../core/turn.js';
import type { SocketWriter } from './socket-writer.js';
import type { TcpSocket } from './tcp-socket.js';

/** A way to TCP sockets below Node's streams, for sockets with nothing queued. */
export abstract class SocketWrites implements Batch {
  /** Says to the writer what the kernel does not take at once. */
  abstract write(writer: SocketWriter, socket: TcpSocket, bytes: Buffer): void;

  /** Sends what is held back of this writer: it is about to write another way, or to end. */
  settle(_writer: SocketWriter): void {
    // Who holds nothing back has nothing to do here, nor below.
  }

  hold(): void {
    // See above.
  }

  release(): void {
    // See above.
  }
}
