import { describe, expect, it } from 'vitest';
import { frameText } from '../../src/core/frame.js';
import { Outbox } from '../../src/core/outbox.js';
import { Turn } from '../../src/core/turn.js';
import { FakeTransport, readTexts, settled } from './fakes.js';

function setUp(maxBytes = 1_000, transport = new FakeTransport(), turn = new Turn()) {
  const slow: string[] = [];
  const outbox = new Outbox(transport, turn, maxBytes, { onSlow: () => slow.push('slow') });
  return { outbox, transport, turn, slow };
}

describe('an outbox', () => {
  it('writes what was pushed in one turn once, in order, at its end', async () => {
    const { outbox, transport } = setUp();
    for (const text of ['a', 'b', 'c']) outbox.push(frameText(text));
    expect(transport.writes).toHaveLength(0);
    await settled();
    expect(transport.writes.map(readTexts)).toEqual([['a', 'b', 'c']]);
  });

  it('writes once per turn, turn after turn', async () => {
    const { outbox, transport } = setUp();
    for (const text of ['a', 'b']) {
      outbox.push(frameText(text));
      outbox.push(frameText(text.toUpperCase()));
      await settled();
    }
    expect(transport.writes.map(readTexts)).toEqual([
      ['a', 'A'],
      ['b', 'B'],
    ]);
  });

  it('shares the end of the turn with the other outboxes', async () => {
    const turn = new Turn();
    const outboxes = Array.from({ length: 5 }, () => setUp(1_000, new FakeTransport(), turn));
    for (const text of ['a', 'b']) for (const { outbox } of outboxes) outbox.push(frameText(text));
    await settled();
    for (const { transport } of outboxes) expect(transport.writes.map(readTexts)).toEqual([['a', 'b']]);
  });

  it('writes at once when it is flushed, and not again at the end of the turn', async () => {
    const { outbox, transport } = setUp();
    outbox.push(frameText('a'));
    outbox.flush();
    expect(transport.texts).toEqual(['a']);
    await settled();
    expect(transport.writes).toHaveLength(1);
  });

  it('writes what is pushed after a flush at the end of the turn, in order', async () => {
    const { outbox, transport } = setUp();
    outbox.push(frameText('a'));
    outbox.flush();
    outbox.push(frameText('b'));
    outbox.push(frameText('c'));
    await settled();
    expect(transport.writes.map(readTexts)).toEqual([['a'], ['b', 'c']]);
  });

  it('gives the compressed frame to a transport that takes it', async () => {
    const { outbox, transport } = setUp(100_000, new FakeTransport(true));
    const frame = frameText('x'.repeat(2_000));
    outbox.push(frame);
    await settled();
    expect(transport.writes).toEqual([frame.deflated()]);
  });

  it('is slow when the client has left more than the limit unread, and then writes nothing more', async () => {
    const { outbox, transport, slow } = setUp(1_000);
    transport.queuedBytes = 1_001;
    outbox.push(frameText('a'));
    outbox.push(frameText('b'));
    await settled();
    expect(slow).toEqual(['slow']);
    transport.queuedBytes = 0;
    outbox.push(frameText('c'));
    await settled();
    expect(transport.writes).toEqual([]);
    expect(slow).toEqual(['slow']);
  });

  it('is not slow at the limit itself', async () => {
    const { outbox, transport, slow } = setUp(1_000);
    transport.queuedBytes = 1_000;
    outbox.push(frameText('a'));
    expect(outbox.isSlow()).toBe(false);
    await settled();
    expect(slow).toEqual([]);
    expect(transport.texts).toEqual(['a']);
  });

  it('hands on a burst larger than the limit while the client reads', async () => {
    const { outbox, transport, slow } = setUp(1_000);
    const texts = Array.from({ length: 50 }, (_, at) => `${at} ${'x'.repeat(200)}`);
    for (const text of texts) outbox.push(frameText(text));
    await settled();
    expect(slow).toEqual([]);
    expect(transport.texts).toEqual(texts);
  });

  it('judges a burst by what the client leaves unread, within the turn too', () => {
    const { outbox, transport, slow } = setUp(1_000);
    let pushed = 0;
    while (slow.length === 0 && pushed < 1_000) {
      outbox.push(frameText('x'.repeat(100)));
      transport.queuedBytes = transport.writes.reduce((bytes, { length }) => bytes + length, 0);
      pushed += 1;
    }
    expect(slow).toEqual(['slow']);
    expect(pushed).toBeLessThan(100);
  });

  it('drops what waits when it is closed, and whatever is pushed later', async () => {
    const { outbox, transport } = setUp();
    outbox.push(frameText('a'));
    outbox.close();
    outbox.push(frameText('b'));
    outbox.flush();
    await settled();
    expect(transport.writes).toEqual([]);
  });
});
