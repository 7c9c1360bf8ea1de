/** The byte pipe below one connection: all that the core needs of a socket. */
export interface Transport {
  /** Writes complete WebSocket frames. */
  write(frames: Buffer): void;
  /** The same for several pieces, in one system call where it can. */
  writeAll(pieces: readonly Buffer[]): void;
  /** Bytes written that the kernel has not taken yet. */
  readonly queuedBytes: number;
  /** The peer takes frames compressed by permessage-deflate without context take-over. */
  readonly deflate: boolean;
  /** Stops or goes on reading: back-pressure to the client. */
  pause(paused: boolean): void;
  /** Sends a close frame and gives the peer a while to answer it. */
  close(code: number, reason: string): void;
  /** Cuts at once. */
  terminate(): void;
}
