import type { Duplex } from 'node:stream';

/** What lies below a TCP socket; private to Node. */
export interface TcpHandle {
  /** The file descriptor, below 0 where there is none. */
  readonly fd: number;
  /** 0, or the negated error number. What the kernel does not take at once goes out later, in order. */
  writeBuffer(request: object, bytes: Buffer): number;
}

/** A plain TCP socket of Node's. */
export interface TcpSocket extends Duplex {
  /** Null from the moment that the socket is destroyed: its descriptor is closed, and may be another socket's. */
  readonly _handle: TcpHandle | null;
}

/** Whether something is a TCP socket that is open, and of the shape that is known here. */
export function isTcpSocket(socket: object): socket is TcpSocket {
  const handle: unknown = Reflect.get(socket, '_handle');
  return (
    typeof handle === 'object' &&
    handle !== null &&
    handle.constructor.name === 'TCP' &&
    'writeBuffer' in handle &&
    typeof handle.writeBuffer === 'function' &&
    'fd' in handle &&
    typeof handle.fd === 'number' &&
    handle.fd >= 0
  );
}
