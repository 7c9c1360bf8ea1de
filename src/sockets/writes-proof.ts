import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { SocketWriter } from './socket-writer.js';
import type { SocketWrites } from './socket-writes.js';

/** Far more than the buffers of a loopback connection hold. */
const PIECES = 512;
const PIECE_BYTES = 65_536;
const TIMEOUT_MS = 2_000;

/**
 * Tries a way to the sockets on two loopback connections: writes to both, to one until the kernel takes no more, and looks
 * at what arrives. Throws where that is not what was written.
 */
export async function prove(writes: SocketWrites): Promise<void> {
  const server = createServer({ pauseOnConnect: true });
  const sockets: Socket[] = [];
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    const { port } = server.address() as AddressInfo;
    const open = async (): Promise<{ near: Socket; far: Socket }> => {
      const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
      const far = connect(port, '127.0.0.1');
      // Then nothing comes, and it takes too long.
      far.on('error', () => undefined);
      sockets.push(far);
      const near = await within(accepted);
      near.on('error', () => undefined);
      sockets.push(near);
      return { near, far };
    };
    const ends = [await open(), await open()] as const;
    const [full, brief] = ends;
    const written = write(writes, full.near, brief.near);
    const arrived = await within(Promise.all(ends.map(({ far }) => readAll(far))));
    if (!arrived.every((bytes, index) => written[index]?.equals(bytes) === true))
      throw new Error('what was written did not arrive');
    for (const { near } of ends) {
      near.destroy();
      // Else nobody could tell its descriptor from that of another socket.
      if (Reflect.get(near, '_handle') !== null) throw new Error('a socket has a handle to its end');
    }
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

/** Says when bytes that fit have gone to the stream all the same, which would hide a way that never works. */
class Observer extends SocketWriter {
  override onLeft(): void {
    throw new Error('the kernel takes nothing');
  }
}

/** Answers what has to arrive at the far end of each. */
function write(writes: SocketWrites, full: Socket, brief: Socket): readonly [Buffer, Buffer] {
  const writer = new SocketWriter(full, writes);
  const writers = [writer, new Observer(brief, writes)];
  // The first bytes of a socket go to its stream.
  const [head, both, tail] = [Buffer.from('first '), Buffer.from('to both '), Buffer.from('by the stream')];
  for (const one of writers) one.write(head);
  writes.hold();
  for (const one of writers) one.write(both);
  writes.release();
  const sent: Buffer[] = [];
  for (let piece = 0; piece < PIECES && writer.queuedBytes === 0; piece += 1) {
    const bytes = Buffer.alloc(PIECE_BYTES, `${piece} `);
    writer.write(bytes);
    sent.push(bytes);
  }
  for (const socket of [full, brief]) socket.end(tail);
  return [Buffer.concat([head, both, ...sent, tail]), Buffer.concat([head, both, tail])];
}

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) if (Buffer.isBuffer(chunk)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function within<T>(promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the proof took too long')), TIMEOUT_MS);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
