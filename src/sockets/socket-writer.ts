import type { Duplex } from 'node:stream';
import type { SocketWrites } from './socket-writes.js';
import type { TcpSocket } from './tcp-socket.js';
import { isTcpSocket } from './tcp-socket.js';

/** Up to so many bytes, several pieces are copied into one rather than written one by one. */
const MAX_JOINED_BYTES = 65_536;

/**
 * Writes to one socket: below its stream while nothing waits there, else to the stream, which knows best how to wait.
 * Nobody else may write to it meanwhile. A socket that was corked is let go with the first bytes.
 */
export class SocketWriter {
  /** Null where the socket is always written to as a stream. */
  private readonly tcp: TcpSocket | null;
  /** Bytes may wait: the cork, the stream or the kernel has to be asked. */
  private waits = true;
  private isCorked = true;
  /** Written below the stream, and not taken by the kernel yet. */
  private directBytes = 0;
  /** The batch that it was last written to with. */
  batch = 0;
  /** Its descriptor, once it was asked for; good for as long as the socket has its handle. */
  fd = -1;

  constructor(
    protected readonly socket: Duplex,
    private readonly writes: SocketWrites | null,
  ) {
    this.tcp = writes !== null && isTcpSocket(socket) ? socket : null;
  }

  /** Bytes written that the kernel has not taken yet. */
  get queuedBytes(): number {
    return this.waits ? this.socket.writableLength + this.directBytes : 0;
  }

  write(bytes: Buffer): void {
    const { tcp, writes } = this;
    if (tcp === null || writes === null || tcp._handle === null || this.mustWait()) this.writeToStream(bytes);
    else writes.write(this, tcp, bytes);
  }

  /** The same for several pieces, in one system call where it can. */
  writeAll(pieces: readonly Buffer[]): void {
    if (this.tcp !== null && total(pieces) <= MAX_JOINED_BYTES) {
      this.write(Buffer.concat(pieces));
      return;
    }
    this.socket.cork();
    for (const piece of pieces) this.writeToStream(piece);
    this.socket.uncork();
  }

  /** What was written before goes out now, and whatever else writes to the socket may do so. */
  protected settle(): void {
    this.writes?.settle(this);
    this.uncork();
  }

  /** The kernel has not taken these bytes. */
  onLeft(bytes: Buffer): void {
    this.writeToStream(bytes);
  }

  /** So many bytes are in Node's hands, who calls {@link onTaken} when they are in the kernel's. */
  onQueued(bytes: number): void {
    this.directBytes += bytes;
    this.waits = true;
  }

  /** A status below 0: the kernel never will. */
  onTaken(bytes: number, status: number): void {
    this.directBytes -= bytes;
    if (status < 0) this.socket.destroy();
  }

  private mustWait(): boolean {
    if (!this.waits) return false;
    this.waits = this.isCorked || this.queuedBytes > 0;
    return this.waits;
  }

  private writeToStream(bytes: Buffer): void {
    if (!this.socket.writable) return;
    this.writes?.settle(this);
    this.waits = true;
    this.socket.write(bytes);
    this.uncork();
  }

  private uncork(): void {
    if (!this.isCorked) return;
    this.isCorked = false;
    this.socket.uncork();
  }
}

function total(pieces: readonly Buffer[]): number {
  let bytes = 0;
  for (const piece of pieces) bytes += piece.length;
  return bytes;
}
