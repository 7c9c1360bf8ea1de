import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chatBody, textBody } from '../../src/core/event-body.js';

/** What a receiver parses: the body, the id the broker gave, and the brace. */
function received(body: string): unknown {
  return JSON.parse(`${body},"id":7}`);
}

describe('the body of an event', () => {
  it('carries the fields in the order of the protocol, and the id last', () => {
    const fields = { event: 'chat', from: 'alice', room: 'a', content: { text: 'hi' }, messageId: 'm1' };
    expect(`${chatBody(fields, 5)},"id":7}`).toBe(
      '{"event":"chat","from":"alice","room":"a","content":{"text":"hi"},"ts":5,"message_id":"m1","id":7}',
    );
  });

  it('leaves out what it was not given', () => {
    expect(chatBody({ event: 'x', from: undefined, content: null }, 5)).toBe(
      '{"event":"x","content":null,"ts":5',
    );
  });

  it('says where it is direct', () => {
    expect(received(chatBody({ event: 'chat', from: 'a', content: 1, direct: true }, 5))).toEqual({
      event: 'chat',
      from: 'a',
      direct: true,
      content: 1,
      ts: 5,
      id: 7,
    });
  });

  it('brings any JSON content, any user and any name through as they were', () => {
    const fields = fc.record({
      from: fc.string({ unit: 'binary' }),
      room: fc.string({ unit: 'binary' }),
      messageId: fc.string({ unit: 'binary' }),
      content: fc.jsonValue({ stringUnit: 'binary', maxDepth: 2 }),
    });
    fc.assert(
      fc.property(fields, fc.nat(), ({ from, room, messageId, content }, tsMs) => {
        const body = chatBody({ event: 'chat', from, room, messageId, content }, tsMs);
        const expected: unknown = {
          event: 'chat',
          from,
          room,
          content,
          ts: tsMs,
          message_id: messageId,
          id: 7,
        };
        expect(received(body)).toEqual(JSON.parse(JSON.stringify(expected)));
      }),
    );
  });

  it('keeps keys of the content that mean something to JavaScript', () => {
    const content: unknown = JSON.parse('{"__proto__":{"admin":true},"constructor":1,"toJSON":2}');
    const body = chatBody({ event: 'chat', from: 'a', content }, 5);
    expect(body).toContain('"content":{"__proto__":{"admin":true},"constructor":1,"toJSON":2}');
  });

  it('can’t be broken open by what stands in it', () => {
    const evil = '","admin":true,"x":"\u2028</script>\\';
    const body = chatBody({ event: 'chat', from: evil, room: evil, content: evil, messageId: evil }, 5);
    expect(Object.keys(received(body) as object)).toEqual([
      'event',
      'from',
      'room',
      'content',
      'ts',
      'message_id',
      'id',
    ]);
  });

  it('of plain text has the sender and the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (sender, text) => {
        const expected: unknown = JSON.parse(JSON.stringify({ event: 'text', sender, text, ts: 5, id: 7 }));
        expect(received(textBody(sender, text, 5))).toEqual(expected);
      }),
    );
  });
});
