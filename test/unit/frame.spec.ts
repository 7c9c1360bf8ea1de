import type { Writable } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as ws from 'ws';
import type { Frame } from '../../src/core/frame.js';
import { frameEvent, frameServerEvent, frameText, heartbeatFrame } from '../../src/core/frame.js';

type Constructor = new (...args: never[]) => unknown;

/** What ws exports and its types do not know. */
function hidden(name: 'Receiver' | 'PerMessageDeflate'): Constructor {
  const found: unknown = Reflect.get(ws, name);
  if (typeof found !== 'function') throw new Error(`ws has no ${name}`);
  return found as Constructor;
}

/** Parses frames as ws does for a client that has negotiated what the gateway offers. */
async function receive(bytes: Buffer, compressed: boolean, chunk = bytes.length): Promise<string[]> {
  const extensions: Record<string, unknown> = {};
  if (compressed) {
    const options = { serverNoContextTakeover: true, clientNoContextTakeover: true, isServer: false };
    const deflate: unknown = Reflect.construct(hidden('PerMessageDeflate'), [options]);
    const accept: unknown = Reflect.get(deflate as object, 'accept');
    if (typeof accept !== 'function') throw new Error('ws has another PerMessageDeflate');
    Reflect.apply(accept, deflate, [
      [{ server_no_context_takeover: [true], client_no_context_takeover: [true] }],
    ]);
    extensions['permessage-deflate'] = deflate;
  }
  const receiver = Reflect.construct(hidden('Receiver'), [{ isServer: false, extensions }]) as Writable;
  const read: string[] = [];
  receiver.on('message', (data: Buffer, isBinary: boolean) => {
    read.push(`${isBinary ? 'binary' : 'text'} ${data.toString('utf8')}`);
  });
  receiver.on('ping', (data: Buffer) => read.push(`ping ${data.toString('utf8')}`));
  await new Promise<void>((resolve, reject) => {
    receiver.on('error', reject);
    receiver.on('finish', resolve);
    for (let at = 0; at < bytes.length; at += chunk) receiver.write(bytes.subarray(at, at + chunk));
    receiver.end();
  });
  return read;
}

function eventFrame(bodyText: string, id: number | null): Frame {
  const position = id === null ? null : { epoch: 'a.1', id };
  return frameEvent({ channel: 'broadcast', position, exclude: '', body: Buffer.from(bodyText) });
}

describe('a frame', () => {
  it.each([
    [0, 2],
    [1, 2],
    [125, 2],
    [126, 4],
    [127, 4],
    [65_535, 4],
    [65_536, 10],
    [200_000, 10],
  ])('of %d bytes has a header of %d, and ws reads it', async (length, header) => {
    const text = 'x'.repeat(length);
    const { bytes } = frameText(text);
    expect(bytes).toHaveLength(header + length);
    expect(await receive(bytes, false)).toEqual([`text ${text}`]);
  });

  it('counts bytes, not characters', async () => {
    const text = '日'.repeat(42);
    expect(frameText(text).bytes).toHaveLength(4 + 126);
    expect(await receive(frameText(text).bytes, false)).toEqual([`text ${text}`]);
  });

  it('is read by ws whatever its text is', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', maxLength: 400 }), async (text) => {
        expect(await receive(frameText(text).bytes, false, 7)).toEqual([`text ${text}`]);
      }),
      { numRuns: 200 },
    );
  });

  it('of an event has the id as its last field, and none where it is not numbered', async () => {
    const body = '{"event":"chat","content":"ä"';
    expect(await receive(eventFrame(body, 7).bytes, false)).toEqual([`text ${body},"id":7}`]);
    expect(await receive(eventFrame(body, Number.MAX_SAFE_INTEGER).bytes, false)).toEqual([
      `text ${body},"id":9007199254740991}`,
    ]);
    expect(await receive(eventFrame(body, null).bytes, false)).toEqual([`text ${body}}`]);
  });

  it.each([120, 130, 65_520, 65_540])(
    'of an event with a body of %d bytes is one JSON text',
    async (length) => {
      const body = `{"event":"chat","content":"${'é'.repeat((length - 30) / 2)}"`;
      const [text = ''] = await receive(eventFrame(body, 12_345).bytes, false);
      expect(JSON.parse(text.slice(5))).toMatchObject({ event: 'chat', id: 12_345 });
    },
  );

  it('of the gateway itself is its JSON text', async () => {
    const { bytes } = frameServerEvent({ event: 'pong', ref: 'a' });
    expect(await receive(bytes, false)).toEqual(['text {"event":"pong","ref":"a"}']);
  });

  it('of the heartbeat is the JSON ping and the protocol ping in one write', async () => {
    expect(await receive(heartbeatFrame().bytes, false)).toEqual(['text {"type":"ping"}', 'ping ']);
    expect(await receive(heartbeatFrame().deflated(), true)).toEqual(['text {"type":"ping"}', 'ping ']);
  });
});

describe('a deflated frame', () => {
  it.each([0, 1, 1_023, 1_024, 1_025, 70_000, 200_000])(
    'of %d bytes inflates to the same',
    async (length) => {
      const text = 'abcdefghij'.repeat(length / 10 + 1).slice(0, length);
      expect(await receive(frameText(text).deflated(), true)).toEqual([`text ${text}`]);
    },
  );

  it('inflates to the same where nothing in it can be squeezed', async () => {
    let seed = 1;
    const noise = Array.from({ length: 70_000 }, () => {
      seed = (seed * 48_271) % 2_147_483_647;
      return String.fromCodePoint(0x20 + (seed % 0x5f));
    }).join('');
    expect(await receive(frameText(noise).deflated(), true)).toEqual([`text ${noise}`]);
  });

  it('takes nothing over from the one before, so that every receiver can be given the same', async () => {
    const first = frameText('first '.repeat(500));
    const second = frameText('second '.repeat(500));
    const all = Buffer.concat([first.deflated(), second.deflated(), first.deflated()]);
    expect(await receive(all, true, 11)).toEqual([
      `text ${'first '.repeat(500)}`,
      `text ${'second '.repeat(500)}`,
      `text ${'first '.repeat(500)}`,
    ]);
  });

  it('is made once for all receivers', () => {
    const frame = frameText('x'.repeat(5_000));
    expect(frame.deflated()).toBe(frame.deflated());
    expect(frame.deflated().length).toBeLessThan(frame.bytes.length);
  });

  it('is the plain one where compressing is not worth it', () => {
    const frame = frameText('x'.repeat(1_023));
    expect(frame.deflated()).toBe(frame.bytes);
  });
});
