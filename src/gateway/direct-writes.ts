import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer } from 'node:net';

/** The handle below a TCP socket; private to Node. */
interface StreamHandle {
  /** 0, or the negated error number. What the kernel does not take at once goes out later, in order. */
  writeBuffer(request: WriteRequest, bytes: Buffer): number;
}

/** What a write that is not done at once is known by. */
interface WriteRequest {
  /** Keeps the bytes alive. */
  buffer?: Buffer;
  oncomplete?: (status: number) => void;
}

/** The part of Node's `stream_wrap` binding that is needed. */
interface StreamBinding {
  WriteWrap: new () => WriteRequest;
  streamBaseState: Int32Array;
  kLastWriteWasAsync: number;
}

/** Whose bytes are written. */
export interface DirectWriter {
  /** The kernel has taken bytes that it did not take at once; a status below 0: it never will. */
  onTaken(bytes: number, status: number): void;
}

/** Far more than the buffers of a loopback connection hold. */
const PROOF_PIECES = 512;
const PROOF_PIECE_BYTES = 65_536;
const PROOF_TIMEOUT_MS = 2_000;

/**
 * Writes to TCP sockets below Node's streams: one call into the kernel for each, without the state machine, the request
 * object and the callback of a stream's write. It uses what is private to Node, so {@link DirectWrites.prove} shows at
 * every start that it does what is expected here; where it does not, streams are written to.
 */
export class DirectWrites {
  /** Reused for as long as the kernel takes everything at once, in which case Node keeps nothing of it. */
  private request: WriteRequest;

  private constructor(private readonly binding: StreamBinding) {
    this.request = new binding.WriteWrap();
  }

  /** Tries it on a loopback connection; null and the reason where it can't be used. */
  static async prove(): Promise<DirectWrites | string> {
    try {
      const binding = readBinding();
      if (binding === null) return 'the binding of this version of Node is another one';
      const writes = new DirectWrites(binding);
      return (await isSound(writes)) ? writes : 'what was written did not arrive';
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** The handle of a socket; null for what is no plain TCP socket. */
  handleOf(socket: object): StreamHandle | null {
    const handle: unknown = Reflect.get(socket, '_handle');
    return isStreamHandle(handle) ? handle : null;
  }

  /**
   * Writes to a socket that has nothing queued. Answers how many bytes the kernel has yet to take (0, or all of them, and
   * the writer is told when it has), or -1 where nothing was written.
   */
  write(handle: StreamHandle, bytes: Buffer, writer: DirectWriter): number {
    const { request, binding } = this;
    if (handle.writeBuffer(request, bytes) !== 0) return -1;
    if (binding.streamBaseState[binding.kLastWriteWasAsync] === 0) return 0;
    this.request = new binding.WriteWrap();
    request.buffer = bytes;
    request.oncomplete = (status) => writer.onTaken(bytes.length, status);
    return bytes.length;
  }
}

function readBinding(): StreamBinding | null {
  const load: unknown = Reflect.get(process, 'binding');
  if (typeof load !== 'function') return null;
  const binding: unknown = load('stream_wrap');
  return isStreamBinding(binding) ? binding : null;
}

function isStreamBinding(value: unknown): value is StreamBinding {
  if (typeof value !== 'object' || value === null) return false;
  const { WriteWrap, streamBaseState, kLastWriteWasAsync }: Partial<Record<keyof StreamBinding, unknown>> =
    value;
  return (
    typeof WriteWrap === 'function' &&
    streamBaseState instanceof Int32Array &&
    typeof kLastWriteWasAsync === 'number' &&
    kLastWriteWasAsync < streamBaseState.length
  );
}

function isStreamHandle(value: unknown): value is StreamHandle {
  return (
    typeof value === 'object' &&
    value !== null &&
    value.constructor.name === 'TCP' &&
    'writeBuffer' in value &&
    typeof value.writeBuffer === 'function'
  );
}

/** Writes until the kernel takes no more, then by the stream, and looks at what arrives and at what was called back. */
async function isSound(writes: DirectWrites): Promise<boolean> {
  const server = createServer({ pauseOnConnect: true });
  const sockets: Socket[] = [];
  try {
    const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    const { port } = server.address() as AddressInfo;
    const reader = connect(port, '127.0.0.1');
    sockets.push(reader);
    const writer = await within(accepted);
    sockets.push(writer);
    const handle = writes.handleOf(writer);
    if (handle === null) return false;
    const proof = new Proof(writes, handle);
    proof.write();
    writer.end(proof.tail);
    return proof.holdsFor(await within(readAll(reader)));
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

/** What is written to see whether it arrives. */
class Proof implements DirectWriter {
  readonly tail = Buffer.from('by the stream');
  private readonly sent: Buffer[] = [];
  private queuedBytes = 0;
  private takenBytes = 0;

  constructor(
    private readonly writes: DirectWrites,
    private readonly handle: StreamHandle,
  ) {}

  onTaken(bytes: number, status: number): void {
    if (status === 0) this.takenBytes += bytes;
  }

  write(): void {
    for (let piece = 0; piece < PROOF_PIECES && this.queuedBytes === 0; piece += 1) {
      const bytes = Buffer.alloc(PROOF_PIECE_BYTES, `${piece} `);
      this.queuedBytes = this.writes.write(this.handle, bytes, this);
      this.sent.push(bytes);
    }
  }

  holdsFor(arrived: Buffer): boolean {
    return (
      this.queuedBytes > 0 &&
      this.takenBytes === this.queuedBytes &&
      arrived.equals(Buffer.concat([...this.sent, this.tail]))
    );
  }
}

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) if (Buffer.isBuffer(chunk)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function within<T>(promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the proof took too long')), PROOF_TIMEOUT_MS);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
