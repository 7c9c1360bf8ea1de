import { once } from 'node:events';
import { createRequire } from 'node:module';
import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Settings } from '../../src/config/settings.js';
import { Turn } from '../../src/core/turn.js';
import { DirectWrites } from '../../src/sockets/direct-writes.js';
import { ADDON, NativeWrites } from '../../src/sockets/native-writes.js';
import { SocketWriter } from '../../src/sockets/socket-writer.js';
import { SocketWrites } from '../../src/sockets/socket-writes.js';
import { socketWrites } from '../../src/sockets/sockets.module.js';
import { isTcpSocket } from '../../src/sockets/tcp-socket.js';
import { prove } from '../../src/sockets/writes-proof.js';
import { eventually } from '../support/eventually.js';

type Way = Settings['SOCKET_WRITES'];

const WAYS: readonly Way[] = ['ring', 'batch', 'direct', 'stream'];
const addon = createRequire(import.meta.url)(ADDON) as {
  BATCH: number;
  open(...values: unknown[]): (...values: unknown[]) => number;
};
const open: { destroy(): void }[] = [];

afterEach(() => {
  vi.restoreAllMocks();
  for (const one of open.splice(0)) one.destroy();
});

function writesOf(way: Way): SocketWrites | null {
  if (way === 'stream') return null;
  return way === 'direct' ? DirectWrites.open() : NativeWrites.open(way);
}

/** Both ends of a TCP connection; what the far end reads, once it reads. */
async function pair() {
  const server = createServer({ pauseOnConnect: true });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const { port } = server.address() as AddressInfo;
  const far = connect(port, '127.0.0.1');
  const near = await accepted;
  server.close();
  open.push(near, far);
  const chunks: Buffer[] = [];
  const read = (): void => void far.on('data', (chunk: Buffer) => chunks.push(chunk));
  return { near, far, read, received: () => Buffer.concat(chunks) };
}

const descriptorOf = (socket: Socket): number => (isTcpSocket(socket) ? (socket._handle?.fd ?? -1) : -1);

const piece = (label: number): Buffer => Buffer.alloc(60_000, `${label} `);

const withoutBinding = () => vi.spyOn(process as unknown as { binding: () => object }, 'binding');

describe('SOCKET_WRITES', () => {
  it.each(['ring', 'batch'] as const)('%s is proved here', async (way) => {
    const warn = vi.spyOn(Logger.prototype, 'warn');
    expect(await socketWrites({ SOCKET_WRITES: way })).toBeInstanceOf(NativeWrites);
    expect(warn).not.toHaveBeenCalled();
  });

  it('direct is proved here', async () => {
    expect(await socketWrites({ SOCKET_WRITES: 'direct' })).toBeInstanceOf(DirectWrites);
  });

  it('stream is no way below them', async () => {
    expect(await socketWrites({ SOCKET_WRITES: 'stream' })).toBeNull();
  });

  it('is the next that can be had, and says why', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockReturnValue(undefined);
    vi.spyOn(NativeWrites, 'open').mockImplementation(() => {
      throw new Error('no io_uring: Operation not permitted');
    });
    expect(await socketWrites({ SOCKET_WRITES: 'ring' })).toBeInstanceOf(DirectWrites);
    expect(warn.mock.calls.flat().join()).toMatch(/ring can't be had: no io_uring.*batch can't be had/);
  });

  it.each([
    [
      'does not offer what they need',
      () => withoutBinding().mockReturnValue({ WriteWrap: class {} }),
      'binding',
    ],
    [
      'does not let them',
      () =>
        withoutBinding().mockImplementation(() => {
          throw new Error('access denied');
        }),
      'access denied',
    ],
  ])('direct is not used where Node %s', async (_, spoil, reason) => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockReturnValue(undefined);
    spoil();
    expect(await socketWrites({ SOCKET_WRITES: 'direct' })).toBeNull();
    expect(warn.mock.calls.flat().join()).toMatch(reason);
  });
});

describe('the proof', () => {
  class Lossy extends SocketWrites {
    constructor(private readonly way: SocketWrites) {
      super();
    }
    override write(...[writer, socket, bytes]: Parameters<SocketWrites['write']>): void {
      if (bytes.toString() !== 'to both ') this.way.write(writer, socket, bytes);
    }
  }

  it('sees that nothing goes that way', async () => {
    class Idle extends SocketWrites {
      override write(...[writer, , bytes]: Parameters<SocketWrites['write']>): void {
        writer.onLeft(bytes);
      }
    }
    await expect(prove(new Idle())).rejects.toThrow('the kernel takes nothing');
  });

  it('sees that something does not arrive', async () => {
    await expect(prove(new Lossy(DirectWrites.open()))).rejects.toThrow('did not arrive');
  });
});

describe('a TCP socket', () => {
  it('has a handle of the shape that is known', async () => {
    const { near } = await pair();
    expect(isTcpSocket(near)).toBe(true);
    for (const other of [{}, { _handle: null }, { _handle: { writeBuffer: () => 0, fd: 1 } }])
      expect(isTcpSocket(other)).toBe(false);
  });

  it('has none once it is destroyed', async () => {
    const { near } = await pair();
    near.destroy();
    expect(isTcpSocket(near)).toBe(false);
  });
});

describe.each(WAYS)('a socket that is written to by SOCKET_WRITES=%s', (way) => {
  it('brings everything in order, also what a reader that sleeps leaves unread', async () => {
    const { near, read, received } = await pair();
    const writer = new SocketWriter(near, writesOf(way));
    const sent: Buffer[] = [];
    for (let label = 0; label < 200; label += 1) {
      const pieces =
        label % 3 === 0 ? [piece(label), Buffer.from('and'), Buffer.from('more')] : [piece(label)];
      sent.push(...pieces);
      if (pieces.length === 1) writer.write(piece(label));
      else writer.writeAll(pieces);
    }
    expect(writer.queuedBytes).toBeGreaterThan(1_000_000);
    read();
    const whole = Buffer.concat(sent);
    await eventually(() => expect(received().length).toBe(whole.length));
    expect(received().equals(whole)).toBe(true);
    await eventually(() => expect(writer.queuedBytes).toBe(0));
    writer.write(Buffer.from('end'));
    await eventually(() => expect(received().subarray(-3).toString()).toBe('end'));
  });

  it('writes nothing after the end, and nothing to a socket that is gone', async () => {
    const { near, far, read, received } = await pair();
    const writer = new SocketWriter(near, writesOf(way));
    near.end('bye');
    writer.write(Buffer.from('late'));
    writer.writeAll([Buffer.from('later'), Buffer.from('still')]);
    read();
    await eventually(() => expect(received().toString()).toBe('bye'));
    near.destroy();
    writer.write(Buffer.from('gone'));
    far.destroy();
    expect(writer.queuedBytes).toBe(0);
  });

  it('ends with the connection when the far end is gone', async () => {
    const { near, far } = await pair();
    const errors: Error[] = [];
    near.on('error', (error) => errors.push(error));
    const writer = new SocketWriter(near, writesOf(way));
    far.resetAndDestroy();
    await eventually(() => {
      writer.write(piece(1));
      expect(near.destroyed).toBe(true);
    });
    writer.write(piece(2));
    await eventually(() => expect(writer.queuedBytes).toBe(0));
  });

  it('keeps the order where the kernel takes a part of what was first in the batch', async () => {
    const { near, read, received } = await pair();
    const writes = writesOf(way);
    const writer = new SocketWriter(near, writes);
    const large = Buffer.alloc(30_000_000, 'large ');
    writer.write(Buffer.from('first '));
    writes?.hold();
    writer.write(large);
    writer.write(Buffer.from('second '));
    read();
    await eventually(() => expect(received().length).toBeGreaterThan(1_000_000));
    writer.write(Buffer.from('third '));
    writes?.release();
    const whole = Buffer.concat([Buffer.from('first '), large, Buffer.from('second third ')]);
    await eventually(() => expect(received().length).toBe(whole.length));
    expect(received().equals(whole)).toBe(true);
  });

  it('is nobody else, whose descriptor is the one it had', async () => {
    const { near } = await pair();
    const writer = new SocketWriter(near, writesOf(way));
    writer.write(Buffer.from('own'));
    writer.write(Buffer.from('own'));
    const had = descriptorOf(near);
    near.destroy();
    await pause(10);
    const heirs = await Promise.all(Array.from({ length: 20 }, () => pair()));
    const heir = heirs.find((one) => descriptorOf(one.near) === had || descriptorOf(one.far) === had);
    if (heir === undefined) throw new Error('nobody has got the descriptor');
    writer.write(Buffer.from('not yours'));
    const ends = [heir.near, heir.far];
    const came = Promise.race(ends.map((end) => once(end, 'data')));
    for (const end of ends) end.resume().end('mine');
    expect(String(await came)).toBe('mine');
  });

  it('is let go with the first bytes, if it was corked', async () => {
    const { near, read, received } = await pair();
    read();
    near.cork();
    near.write('head ');
    const writer = new SocketWriter(near, writesOf(way));
    writer.write(Buffer.from('body'));
    await eventually(() => expect(received().toString()).toBe('head body'));
  });

  it('gets what a turn has for it in one batch with others, each its own', async () => {
    const writes = writesOf(way);
    const pairs = await Promise.all(Array.from({ length: 30 }, () => pair()));
    const writers = pairs.map(({ near, read }) => {
      read();
      const writer = new SocketWriter(near, writes);
      writer.write(Buffer.from('first '));
      return writer;
    });
    const shared = Buffer.from('shared ');
    writes?.hold();
    for (const [index, writer] of writers.entries())
      writer.write(index % 10 === 0 ? Buffer.from(`own ${index} `) : shared);
    // Pieces too large to be joined, and the second of one batch.
    writers[4]?.writeAll([piece(4), piece(5)]);
    writers[3]?.write(Buffer.from('second '));
    writes?.release();
    const expected = (index: number): Buffer =>
      Buffer.concat([
        Buffer.from(`first ${index % 10 === 0 ? `own ${index} ` : 'shared '}`),
        ...(index === 3 ? [Buffer.from('second ')] : []),
        ...(index === 4 ? [piece(4), piece(5)] : []),
      ]);
    for (const [index, { received }] of pairs.entries())
      await eventually(() => expect(received().equals(expected(index))).toBe(true));
  });

  it('does not keep others in its batch from theirs by being full, gone or reset', async () => {
    const writes = writesOf(way);
    const [full, gone, reset, well] = [await pair(), await pair(), await pair(), await pair()];
    const writers = [full, gone, reset, well].map(({ near }) => {
      near.on('error', () => undefined);
      const writer = new SocketWriter(near, writes);
      writer.write(Buffer.from('first '));
      return writer;
    });
    well.read();
    for (let count = 0; writers[0]?.queuedBytes === 0; count += 1) writers[0].write(piece(count));
    const before = writers[0]?.queuedBytes ?? 0;
    reset.far.resetAndDestroy();
    await pause(20);
    writes?.hold();
    gone.near.destroy();
    for (const writer of writers) writer.write(Buffer.from('shared'));
    writes?.release();
    await eventually(() => expect(well.received().toString()).toBe('first shared'));
    expect(writers[0]?.queuedBytes).toBe(before + 6);
  });
});

describe.each(['ring', 'batch'] as const)('SOCKET_WRITES=%s', (way) => {
  it('holds back what a turn writes, to its end', async () => {
    const { near, read, received } = await pair();
    read();
    const writes = NativeWrites.open(way);
    const writer = new SocketWriter(near, writes);
    writer.write(Buffer.from('first '));
    await eventually(() => expect(received().toString()).toBe('first '));
    const turn = new Turn(writes);
    turn.addOutbox({ flush: () => writer.write(Buffer.from('held')) });
    turn.addOutbox({
      flush: () => {
        throw new Error('a fault');
      },
    });
    const fault = new Promise((resolve) => process.once('uncaughtException', resolve));
    expect(await fault).toMatchObject({ message: 'a fault' });
    await eventually(() => expect(received().toString()).toBe('first held'));
    writer.write(Buffer.from(' at once'));
    await eventually(() => expect(received().toString()).toBe('first held at once'));
  });

  it('sends to more sockets than one call takes', async () => {
    const { near, read, received } = await pair();
    read();
    const writes = NativeWrites.open(way);
    const writer = new SocketWriter(near, writes);
    writer.write(Buffer.from('.'));
    // Each a writer of its own, as if to another socket.
    const writers = Array.from({ length: 3_000 }, () => new SocketWriter(near, writes));
    for (const one of writers) one.write(Buffer.from('.'));
    await eventually(() => expect(received().length).toBe(3_001));
    const shared = Buffer.from('+');
    writes.hold();
    for (const one of writers) one.write(shared);
    writes.release();
    await eventually(() => expect(received().toString()).toBe('.'.repeat(3_001) + '+'.repeat(3_000)));
  });

  it('refuses what it was not made for', () => {
    const numbers = () => new Int32Array(addon.BATCH);
    const send = addon.open(numbers(), numbers(), numbers(), way === 'ring');
    for (const wrong of [[], [1], [-1, []], [addon.BATCH + 1, []], [1, []], [1, ['text']], ['1', []]])
      expect(() => send(...wrong)).toThrow('wants');
    expect(send(0, [])).toBe(0);
    for (const wrong of [[], [numbers()], [numbers(), numbers(), new Int32Array(1), false], [1, 2, 3, true]])
      expect(() => addon.open(...wrong)).toThrow('wants');
  });
});
