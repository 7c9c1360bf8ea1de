import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { SocketWrites } from './socket-writes.js';
import type { SocketWriter } from './socket-writer.js';
import type { TcpSocket } from './tcp-socket.js';

/** `native/socket-writes.c`, compiled by the build. */
export const ADDON = fileURLToPath(new URL('../../native/build/socket-writes.node', import.meta.url));

interface Addon {
  /** How many sockets one call can send to. */
  readonly BATCH: number;
  /**
   * Makes the function that sends: to `fds[i]` goes `pieces[pieceOf[i]]`, for the first `count`; `pieceOf` never falls. To
   * `taken` go the bytes that the kernel has taken, or the negated error number. It answers how many were not taken whole.
   * Throws where the kernel has no io_uring or refuses it.
   */
  open(fds: Int32Array, pieceOf: Int32Array, taken: Int32Array, withRing: boolean): Send;
}

/** So many have numbers of their own; one that comes round again only makes a batch end early. */
const BATCHES = 2 ** 30;

type Send = (count: number, pieces: readonly Buffer[]) => number;

/**
 * Writes to the descriptors of sockets, for many of them in one native call: at the end of a turn, what goes to all members
 * of all rooms. With io_uring that is one system call too. Nothing is left to be done when it returns: what the kernel has
 * not taken is the stream's.
 */
export class NativeWrites extends SocketWrites {
  private readonly fds: Int32Array;
  private readonly pieceOf: Int32Array;
  private readonly taken: Int32Array;
  private readonly send: Send;
  private count = 0;
  private pieces: Buffer[] = [];
  private last: Buffer | null = null;
  private writers: SocketWriter[] = [];
  /** Of those that are held back now. */
  private batch = 1;
  private isHeld = false;

  private constructor(addon: Addon, withRing: boolean) {
    super();
    const { BATCH } = addon;
    this.fds = new Int32Array(BATCH);
    this.pieceOf = new Int32Array(BATCH);
    this.taken = new Int32Array(BATCH);
    this.send = addon.open(this.fds, this.pieceOf, this.taken, withRing);
  }

  /** Throws where it is not built, or the kernel does not offer what is needed. */
  static open(way: 'ring' | 'batch'): NativeWrites {
    return new NativeWrites(load(), way === 'ring');
  }

  override write(writer: SocketWriter, { _handle: handle }: TcpSocket, bytes: Buffer): void {
    if (writer.batch === this.batch && this.count > 0) {
      // What becomes of the first write says which way the second goes.
      this.flush();
      writer.write(bytes);
      return;
    }
    if (writer.fd < 0) writer.fd = handle?.fd ?? -1;
    writer.batch = this.batch;
    if (bytes !== this.last) {
      this.last = bytes;
      this.pieces.push(bytes);
    }
    this.fds[this.count] = writer.fd;
    this.pieceOf[this.count] = this.pieces.length - 1;
    this.writers.push(writer);
    this.count += 1;
    if (!this.isHeld || this.count === this.fds.length) this.flush();
  }

  override settle(writer: SocketWriter): void {
    if (writer.batch === this.batch) this.flush();
  }

  override hold(): void {
    this.isHeld = true;
  }

  override release(): void {
    this.isHeld = false;
    this.flush();
  }

  private flush(): void {
    const { count, pieces, writers } = this;
    if (count === 0) return;
    this.count = 0;
    this.pieces = [];
    this.writers = [];
    this.last = null;
    this.batch = (this.batch + 1) % BATCHES;
    if (this.send(count, pieces) > 0) this.handBack(writers, pieces);
  }

  /** Gives to the streams what the kernel has not taken; they also find out what is wrong with a socket. */
  private handBack(writers: readonly SocketWriter[], pieces: readonly Buffer[]): void {
    for (const [index, writer] of writers.entries()) {
      const bytes = pieces[this.pieceOf[index] ?? 0];
      const taken = this.taken[index] ?? 0;
      if (bytes !== undefined && taken !== bytes.length) writer.onLeft(bytes.subarray(Math.max(taken, 0)));
    }
  }
}

function load(): Addon {
  if (!existsSync(ADDON))
    throw new Error('native/ is not built, for which `npm run build` needs a C compiler');
  const addon: unknown = createRequire(import.meta.url)(ADDON);
  if (!isAddon(addon)) throw new Error(`${ADDON} is another one`);
  return addon;
}

function isAddon(value: unknown): value is Addon {
  return (
    typeof value === 'object' &&
    value !== null &&
    'BATCH' in value &&
    typeof value.BATCH === 'number' &&
    'open' in value &&
    typeof value.open === 'function'
  );
}
