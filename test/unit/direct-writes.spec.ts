import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { WebSocket } from 'ws';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { DirectWrites } from '../../src/gateway/direct-writes.js';
import { WsTransport } from '../../src/gateway/ws-transport.js';
import { eventually } from '../support/eventually.js';

const open: { destroy(): void }[] = [];

afterEach(() => {
  vi.restoreAllMocks();
  for (const one of open.splice(0)) one.destroy();
});

async function proved(): Promise<DirectWrites> {
  const writes = await DirectWrites.prove();
  if (typeof writes === 'string') throw new Error(writes);
  return writes;
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

function transportOf(socket: Socket, writes: DirectWrites | null): WsTransport {
  // As a server makes one: without an address.
  const ws: WebSocket = Reflect.construct(WebSocket, [null, undefined, {}]);
  return new WsTransport(ws, socket, writes);
}

const piece = (label: number): Buffer => Buffer.alloc(60_000, `${label} `);

describe('direct writes', () => {
  it('do on this version of Node what is expected of them', async () => {
    expect(await DirectWrites.prove()).toBeInstanceOf(DirectWrites);
  });

  it('are not used where Node does not offer what they need', async () => {
    vi.spyOn(process as unknown as { binding: () => object }, 'binding').mockReturnValue({
      WriteWrap: class {},
    });
    expect(await DirectWrites.prove()).toMatch('binding');
  });

  it('are not used where Node does not let them', async () => {
    vi.spyOn(process as unknown as { binding: () => object }, 'binding').mockImplementation(() => {
      throw new Error('access denied');
    });
    expect(await DirectWrites.prove()).toMatch('access denied');
  });

  it('know no handle of what is no TCP socket', async () => {
    const writes = await proved();
    expect(writes.handleOf({})).toBeNull();
    expect(writes.handleOf({ _handle: null })).toBeNull();
    expect(writes.handleOf({ _handle: { writeBuffer: () => 0 } })).toBeNull();
  });
});

describe.each(['direct', 'stream'])('a transport that writes %s', (way) => {
  const writesOf = async () => (way === 'direct' ? proved() : null);

  it('brings everything in order, also what a reader that sleeps leaves unread', async () => {
    const { near, read, received } = await pair();
    const transport = transportOf(near, await writesOf());
    const sent: Buffer[] = [];
    for (let label = 0; label < 200; label += 1) {
      const pieces =
        label % 3 === 0 ? [piece(label), Buffer.from('and'), Buffer.from('more')] : [piece(label)];
      sent.push(...pieces);
      if (pieces.length === 1) transport.write(piece(label));
      else transport.writeAll(pieces);
    }
    expect(transport.queuedBytes).toBeGreaterThan(1_000_000);
    read();
    const whole = Buffer.concat(sent);
    await eventually(() => expect(received().length).toBe(whole.length));
    expect(received().equals(whole)).toBe(true);
    await eventually(() => expect(transport.queuedBytes).toBe(0));
    transport.write(Buffer.from('end'));
    await eventually(() => expect(received().subarray(-3).toString()).toBe('end'));
  });

  it('keeps its place between what others write to the socket', async () => {
    const { near, read, received } = await pair();
    const transport = transportOf(near, await writesOf());
    const sent: Buffer[] = [];
    for (let label = 0; label < 120; label += 1) {
      sent.push(piece(label));
      if (label % 2 === 0) transport.write(piece(label));
      else near.write(piece(label));
    }
    near.end('bye');
    read();
    const whole = Buffer.concat([...sent, Buffer.from('bye')]);
    await eventually(() => expect(received().length).toBe(whole.length));
    expect(received().equals(whole)).toBe(true);
  });

  it('writes nothing after the end, and nothing to a socket that is gone', async () => {
    const { near, far, read, received } = await pair();
    const transport = transportOf(near, await writesOf());
    near.end('bye');
    transport.write(Buffer.from('late'));
    transport.writeAll([Buffer.from('later'), Buffer.from('still')]);
    read();
    await eventually(() => expect(received().toString()).toBe('bye'));
    near.destroy();
    transport.write(Buffer.from('gone'));
    far.destroy();
    expect(transport.queuedBytes).toBe(0);
  });

  it('ends with the connection when the far end is gone', async () => {
    const { near, far } = await pair();
    const errors: Error[] = [];
    near.on('error', (error) => errors.push(error));
    const transport = transportOf(near, await writesOf());
    far.resetAndDestroy();
    await eventually(() => {
      transport.write(piece(1));
      expect(near.destroyed).toBe(true);
    });
    transport.write(piece(2));
    await eventually(() => expect(transport.queuedBytes).toBe(0));
  });
});
