import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isUserId } from '../../src/protocol/names.js';
import type { BusMessage } from '../../src/redis/bus-message.js';
import { BusReader } from '../../src/redis/bus-message.js';

const BODY = '{"event":"chat","content":1';

/** As the publishing script writes it. */
function written(seq: number, id: number, epoch: string, exclude: string, body: string): Buffer {
  return Buffer.from(`1 ${seq} ${id} ${epoch} ${Buffer.byteLength(body)} ${exclude}\n${body}`, 'utf8');
}

/** All that a piece brings; null where there is something in it that no gateway wrote. */
function readAll(channel: string, piece: Buffer): BusMessage[] | null {
  const reader = new BusReader(channel, piece);
  const messages: BusMessage[] = [];
  do {
    const message = reader.next();
    if (message === null) return null;
    messages.push(message);
  } while (!reader.isDone);
  return messages;
}

function readBusMessage(channel: string, piece: Buffer): BusMessage | null {
  const messages = readAll(channel, piece);
  return messages?.length === 1 ? (messages[0] ?? null) : null;
}

const read = (text: string | Buffer) => readBusMessage('room:a', Buffer.from(text));

describe('a bus message', () => {
  it('carries the position, who is excluded, the partition’s number and the body', () => {
    expect(readBusMessage('room:a', written(12, 7, 'life.3', 'user:alice', BODY))).toEqual({
      event: {
        channel: 'room:a',
        position: { epoch: 'life.3', id: 7 },
        exclude: 'user:alice',
        body: Buffer.from(BODY),
      },
      seq: 12,
    });
  });

  it('is not numbered where its id is 0', () => {
    expect(readBusMessage('broadcast', written(0, 0, '-', '', '{"event":"user_joined"'))).toEqual({
      event: {
        channel: 'broadcast',
        position: null,
        exclude: '',
        body: Buffer.from('{"event":"user_joined"'),
      },
      seq: 0,
    });
  });

  it('comes back as it was written, whatever is in it', () => {
    const userId = fc.string({ unit: 'binary', minLength: 1, maxLength: 128 }).filter(isUserId);
    const exclude = fc.oneof(
      fc.constant(''),
      fc.uuid().map((id) => `connection:${id}`),
      userId.map((id) => `user:${id}`),
    );
    const message = fc.record({
      seq: fc.nat(),
      id: fc.integer({ min: 1, max: 2 ** 50 }),
      life: fc.string({
        unit: fc.constantFrom(...Array.from('0123456789abcxyz')),
        minLength: 1,
        maxLength: 20,
      }),
      exclude,
      content: fc.jsonValue({ stringUnit: 'binary', maxDepth: 2 }),
    });
    fc.assert(
      fc.property(message, ({ seq, id, life, exclude: who, content }) => {
        const body = `{"event":"chat","content":${JSON.stringify(content)}`;
        const epoch = `${life}.${seq}`;
        const event = { channel: 'room:a', position: { epoch, id }, exclude: who, body: Buffer.from(body) };
        expect(readBusMessage('room:a', written(seq, id, epoch, who, body))).toEqual({ event, seq });
      }),
      { numRuns: 500 },
    );
  });

  it('brings several events in one piece, in order', () => {
    const exclude = 'user:日本';
    const piece = Buffer.concat([
      written(1, 1, 'e.1', '', BODY),
      written(0, 0, '-', exclude, `${BODY}\n"ä"`),
      written(2, 2, 'e.1', '', BODY),
    ]);
    const messages = readAll('room:a', piece) ?? [];
    expect(messages.map(({ event, seq }) => [seq, event.position?.id, event.exclude])).toEqual([
      [1, 1, ''],
      [0, undefined, exclude],
      [2, 2, ''],
    ]);
    expect(messages.map(({ event }) => event.body.toString())).toEqual([BODY, `${BODY}\n"ä"`, BODY]);
  });

  it('hands on the events before what is none of ours', () => {
    const reader = new BusReader('room:a', Buffer.concat([written(1, 1, 'e.1', '', BODY), Buffer.from('x')]));
    expect(reader.next()?.seq).toBe(1);
    expect([reader.isDone, reader.next()]).toEqual([false, null]);
  });

  it('can exclude the longest user id there is', () => {
    const exclude = `user:${'😀'.repeat(128)}`;
    expect(readBusMessage('room:a', written(1, 1, 'x'.repeat(64), exclude, BODY))?.event.exclude).toBe(
      exclude,
    );
  });

  it('keeps every line of a body but the first for the body', () => {
    const body = `${BODY}\n1 2 3 4 5\n`;
    expect(readBusMessage('room:a', written(1, 1, 'e.1', '', body))?.event.body.toString()).toBe(body);
  });

  it.each([
    ['nothing', ''],
    ['no header', BODY],
    ['no line feed', '1 1 1 e.1 27 '],
    ['an empty header', `\n${BODY}`],
    ['another version', `2 1 1 e.1 27 \n${BODY}`],
    ['a version that begins alike', `11 1 1 e.1 27 \n${BODY}`],
    ['a space before it', ` 1 1 1 e.1 27 \n${BODY}`],
    ['a negative number', `1 -1 1 e.1 27 \n${BODY}`],
    ['a negative id', `1 1 -1 e.1 27 \n${BODY}`],
    ['an id with a fraction', `1 1 1.5 e.1 27 \n${BODY}`],
    ['an id in another notation', `1 1 1e3 e.1 27 \n${BODY}`],
    ['an id of too many digits', `1 1 ${'9'.repeat(17)} e.1 27 \n${BODY}`],
    ['digits of another script', `1 1 ٣ e.1 27 \n${BODY}`],
    ['no epoch', `1 1 1  27 \n${BODY}`],
    ['an epoch that is too long', `1 1 1 ${'e'.repeat(65)} 27 \n${BODY}`],
    ['an epoch with a line feed', `1 1 1 e\n1 27 \n${BODY}`],
    ['no length', `1 1 1 e.1 \n${BODY}`],
    ['no space after the length', `1 1 1 e.1 27\n${BODY}`],
    ['a negative length', `1 1 1 e.1 -27 \n${BODY}`],
    ['a length beyond its end', `1 1 1 e.1 28 \n${BODY}`],
    ['more than its length', `1 1 1 e.1 26 \n${BODY}`],
    ['a length of nothing', `1 1 1 e.1 0 \n${BODY}`],
    ['a header that is too long', `1 1 1 e.1 27 user:${'x'.repeat(1_100)}\n${BODY}`],
    ['no body', '1 1 1 e.1 27 \n'],
    ['a body that is a list', '1 1 1 e.1 8 \n["event"'],
    ['a body that is another object', '1 1 1 e.1 14 \n{"type":"ping"'],
    ['a body that begins with a space', `1 1 1 e.1 28 \n ${BODY}`],
    ['a body that is cut in its first key', '1 1 1 e.1 9 \n{"event":'],
  ])('is none of ours with %s', (_what, text) => {
    expect(read(text)).toBeNull();
  });

  it('is none of ours where it is noise, and is never more than refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2_000 }), (bytes) => {
        expect(read(Buffer.from(bytes))).toBeNull();
      }),
      { numRuns: 1_000 },
    );
    const header = fc.string({ unit: fc.constantFrom(...Array.from('1 0-.e\n{}":nv')), maxLength: 40 });
    fc.assert(
      fc.property(header, (text) => {
        const message = read(`${text}${BODY.length} \n${BODY}`);
        if (message === null) return;
        expect(`1 ${message.seq} ${message.event.position?.id ?? 0} `).toMatch(/^1 \d+ \d+ $/);
        expect(message.event.body.toString()).toMatch(/^\{"event":"/);
      }),
      { numRuns: 3_000 },
    );
  });

  it('that is very long is refused', () => {
    expect(read('1 1 1 e.1 27 '.repeat(1_000_000))).toBeNull();
  });
});
