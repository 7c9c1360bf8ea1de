import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BROADCAST,
  channelFields,
  compilePattern,
  isEventName,
  isRef,
  isRoomName,
  isUserId,
  roomChannel,
  userChannel,
} from '../../src/protocol/names.js';

const notText = [undefined, null, 0, 1, true, {}, [], ['a'], Symbol('a')];

describe('a room name', () => {
  it.each(['a', 'A9._:@/-', 'room:with:colons', '-', '.', '..', '__proto__', 'constructor', 'x'.repeat(128)])(
    'may be %s',
    (name) => {
      expect(isRoomName(name)).toBe(true);
    },
  );

  it.each([
    ['empty', ''],
    ['longer than 128', 'x'.repeat(129)],
    ['a space', 'a b'],
    ['a line feed at the end', 'a\n'],
    ['a brace', 'a{b}'],
    ['a star', 'a*'],
    ['a percent sign', 'a%20'],
    ['a letter beyond ASCII', 'ä'],
    ['a null byte', 'a\u0000'],
    ['a digit of another script', '٣'],
  ])('is refused: %s', (_what, name) => {
    expect(isRoomName(name)).toBe(false);
  });

  it.each(notText)('is text, and %o is none', (value) => {
    expect([isRoomName(value), isUserId(value), isEventName(value)]).toEqual([false, false, false]);
  });
});

describe('a user id', () => {
  it.each([
    'a',
    'alice@example.com',
    'a b',
    'ä ö ü',
    '日本語',
    '👩‍👩‍👧',
    '{a}:b',
    '*',
    '%41',
    '\u2028',
    'x'.repeat(128),
    '😀'.repeat(128),
  ])('may be %s', (id) => {
    expect(isUserId(id)).toBe(true);
  });

  it.each([
    ['empty', ''],
    ['129 characters', 'x'.repeat(129)],
    ['129 code points in 130 units', `${'x'.repeat(128)}😀`],
    ['129 code points beyond the basic plane', '😀'.repeat(129)],
    ['half a surrogate pair', 'a\ud83d'],
    ['a surrogate pair the wrong way round', '\ude00\ud83d'],
    ['a line feed', 'a\nb'],
    ['a null byte', '\u0000'],
    ['an escape', '\u001b[2J'],
    ['a delete', 'a\u007f'],
    ['a C1 control', 'a\u0085'],
  ])('is refused: %s', (_what, id) => {
    expect(isUserId(id)).toBe(false);
  });

  it('is refused for every control character, wherever it stands', () => {
    const controls = [...Array(0x20).keys(), ...Array.from({ length: 0x21 }, (_, at) => 0x7f + at)];
    for (const code of controls) expect(isUserId(`a${String.fromCharCode(code)}b`)).toBe(false);
    expect(isUserId('a\u00a0b')).toBe(true);
  });
});

describe('an event name', () => {
  it.each(['chat', 'order.paid', 'a:b-c_d', 'x'.repeat(64), 'Connected', 'error2'])('may be %s', (name) => {
    expect(isEventName(name)).toBe(true);
  });

  it.each(['', 'x'.repeat(65), 'a b', 'a/b', 'a@b', 'ä', 'a\n'])('is refused: %j', (name) => {
    expect(isEventName(name)).toBe(false);
  });

  it.each([
    'connected',
    'user_connected',
    'user_disconnected',
    'text',
    'user_joined',
    'user_left',
    'joined_room',
    'left_room',
    'presence',
    'history',
    'pong',
    'ack',
    'error',
    'gap',
    'reconnect',
  ])('is refused where the gateway uses it itself: %s', (name) => {
    expect(isEventName(name)).toBe(false);
  });
});

describe('a ref', () => {
  it.each([0, -1, 7, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, '', 'a', 'x'.repeat(64)])(
    'may be %j',
    (ref) => {
      expect(isRef(ref)).toBe(true);
    },
  );

  it.each([1.5, Number.NaN, Infinity, 2 ** 53, 'x'.repeat(65), null, true, {}, ['a'], undefined])(
    'is refused: %o',
    (ref) => {
      expect(isRef(ref)).toBe(false);
    },
  );
});

describe('a channel', () => {
  it('tells a room, a user and broadcast apart in what a message carries', () => {
    expect(channelFields(BROADCAST)).toEqual({});
    expect(channelFields(roomChannel('a:b'))).toEqual({ room: 'a:b' });
    expect(channelFields(userChannel('broadcast'))).toEqual({ direct: true });
    expect(channelFields(userChannel('room:a'))).toEqual({ direct: true });
  });
});

describe('a pattern', () => {
  it.each([
    ['room:*', 'room:a', true],
    ['room:*', 'room:', true],
    ['room:*', 'rooms:a', false],
    ['*', '', true],
    ['**', 'anything', true],
    ['', '', true],
    ['', 'a', false],
    ['a*b', 'ab', true],
    ['a*b', 'axxb', true],
    ['a*b', 'a', false],
    ['ab*ba', 'aba', false],
    ['*a*a*', 'a', false],
    ['*ab*', 'aab', true],
    ['a.c', 'abc', false],
    ['a?c', 'abc', false],
    ['(a+)+$', '(a+)+$', true],
    ['a*', 'b a', false],
  ])('%s says for %j: %s', (pattern, value, matches) => {
    expect(compilePattern(pattern)(value)).toBe(matches);
  });

  it('means the same as a regular expression with .* for each star', () => {
    const text = (alphabet: string): fc.Arbitrary<string> =>
      fc.string({ unit: fc.constantFrom(...Array.from(alphabet)), maxLength: 10 });
    fc.assert(
      fc.property(text('ab*.'), fc.array(text('ab.'), { minLength: 1, maxLength: 8 }), (pattern, values) => {
        const source = pattern.split('*').map((part) => part.replaceAll('.', '\\.'));
        const expression = new RegExp(`^${source.join('.*')}$`, 's');
        const matches = compilePattern(pattern);
        for (const value of values) expect(matches(value)).toBe(expression.test(value));
      }),
      { numRuns: 3_000 },
    );
  });

  it('matches what it was filled with, whatever stands for its stars', () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { minLength: 1 }), fc.array(fc.string()), (parts, fillings) => {
        const fixed = parts.map((part) => part.replaceAll('*', ''));
        const value = fixed.reduce((text, part, at) => `${text}${fillings[at - 1] ?? ''}${part}`);
        expect(compilePattern(fixed.join('*'))(value)).toBe(true);
      }),
    );
  });

  it('takes linear time for a pattern and a value made to backtrack', () => {
    const matches = compilePattern(`${'a*'.repeat(1_500)}b`);
    const startedMs = performance.now();
    expect(matches('a'.repeat(100_000))).toBe(false);
    expect(matches(`${'a'.repeat(100_000)}b`)).toBe(true);
    expect(performance.now() - startedMs).toBeLessThan(200);
  });
});
