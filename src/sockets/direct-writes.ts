import { SocketWrites } from './socket-writes.js';
import type { SocketWriter } from './socket-writer.js';
import type { TcpSocket } from './tcp-socket.js';

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

/**
 * Writes to the handle below a socket's stream: one call into the kernel for each, without the state machine, the request
 * object and the callback of a stream's write.
 */
export class DirectWrites extends SocketWrites {
  /** Reused for as long as the kernel takes everything at once, in which case Node keeps nothing of it. */
  private request: WriteRequest;

  private constructor(private readonly binding: StreamBinding) {
    super();
    this.request = new binding.WriteWrap();
  }

  /** Throws where Node does not offer what is needed. */
  static open(): DirectWrites {
    const binding = readBinding();
    if (binding === null) throw new Error('the binding of this version of Node is another one');
    return new DirectWrites(binding);
  }

  override write(writer: SocketWriter, { _handle: handle }: TcpSocket, bytes: Buffer): void {
    const { request, binding } = this;
    if (handle === null || handle.writeBuffer(request, bytes) !== 0) {
      writer.onLeft(bytes);
      return;
    }
    if (binding.streamBaseState[binding.kLastWriteWasAsync] === 0) return;
    this.request = new binding.WriteWrap();
    request.buffer = bytes;
    request.oncomplete = (status) => writer.onTaken(bytes.length, status);
    writer.onQueued(bytes.length);
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
