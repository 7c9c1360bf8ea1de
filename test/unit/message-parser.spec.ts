import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isTooDeep, MAX_DEPTH, parseMessage, refOf } from '../../src/gateway/message-parser.js';
import { ProtocolError } from '../../src/protocol/errors.js';

/** Levels of a JSON value, by walking it. */
function depthOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return 1 + Object.values(value).reduce((deepest: number, child) => Math.max(deepest, depthOf(child)), 0);
}

/** What `parseMessage` throws, or the type of the message. */
function outcome(text: string): string {
  try {
    return `type ${parseMessage(text).type}`;
  } catch (error) {
    return error instanceof ProtocolError ? error.code : String(error);
  }
}

function nested(levels: number, open: string, close: string): string {
  return `${open.repeat(levels)}1${close.repeat(levels)}`;
}

describe('the depth of a message', () => {
  it('is seen by the scan as by walking the parsed value', () => {
    const { deep } = fc.letrec<{ deep: unknown; leaf: unknown }>((tie) => ({
      leaf: fc.oneof(fc.string({ unit: fc.constantFrom('[', ']', '{', '}', '"', '\\', 'a') }), fc.integer()),
      deep: fc.oneof(
        { maxDepth: 80, depthSize: 'max' },
        { arbitrary: tie('leaf'), weight: 1 },
        { arbitrary: fc.array(tie('deep'), { maxLength: 2 }), weight: 3 },
        {
          arbitrary: fc.dictionary(fc.constantFrom('{[', ']}', 'a', '"\\'), tie('deep'), { maxKeys: 2 }),
          weight: 3,
        },
      ),
    }));
    const wrapped = fc.tuple(deep, fc.integer({ min: 0, max: 70 }), fc.boolean());
    fc.assert(
      fc.property(wrapped, ([value, levels, asObject]) => {
        let text = JSON.stringify(value);
        for (let level = 0; level < levels; level += 1) text = asObject ? `{"a":${text}}` : `["]",${text}]`;
        expect(isTooDeep(text)).toBe(depthOf(JSON.parse(text)) > MAX_DEPTH);
      }),
      { numRuns: 2_000 },
    );
  });

  it.each([
    ['64 levels of objects', nested(64, '{"a":', '}'), false],
    ['65 levels of objects', nested(65, '{"a":', '}'), true],
    ['64 levels of arrays', nested(64, '[', ']'), false],
    ['65 levels of arrays', nested(65, '[', ']'), true],
    ['many arrays beside each other', `[${'[],'.repeat(1_000)}0]`, false],
    ['brackets in a string', JSON.stringify('['.repeat(1_000)), false],
    ['brackets after an escaped quote', `"\\"${'['.repeat(100)}"`, false],
    [
      'brackets after an escaped backslash and the end of the string',
      `["\\\\",${nested(64, '[', ']')}]`,
      true,
    ],
    ['an unclosed string', `"${'['.repeat(1_000)}`, false],
    ['closing brackets that owe levels', `${']'.repeat(100)}`, false],
  ])('of %s is too much: %s', (_what, text, tooDeep) => {
    expect(isTooDeep(text)).toBe(tooDeep);
  });

  it('is found without parsing, however deep it is', () => {
    expect(outcome('['.repeat(2_000_000))).toBe('invalid_message');
    expect(outcome(`{"type":"chat","content":${nested(30_000, '[', ']')}}`)).toBe('invalid_message');
  });
});

describe('a message', () => {
  it('is an object with a type that is a string', () => {
    expect(parseMessage('{"type":"chat","content":1}')).toEqual({ type: 'chat', content: 1 });
    expect(outcome('{"type":""}')).toBe('type ');
    expect(outcome(' \t\r\n{"type":"a"}\n')).toBe('type a');
  });

  it.each([
    ['', 'invalid_json'],
    ['{', 'invalid_json'],
    ["{'type':'chat'}", 'invalid_json'],
    ['{"type":"chat"} x', 'invalid_json'],
    ['{"type":"chat","content":NaN}', 'invalid_json'],
    ['{"type":"chat","content":Infinity}', 'invalid_json'],
    ['\ufeff{"type":"chat"}', 'invalid_json'],
    ['null', 'invalid_message'],
    ['1', 'invalid_message'],
    ['"chat"', 'invalid_message'],
    ['[{"type":"chat"}]', 'invalid_message'],
    ['{}', 'invalid_message'],
    ['{"type":1}', 'invalid_message'],
    ['{"type":null}', 'invalid_message'],
    ['{"type":["chat"]}', 'invalid_message'],
    ['{"Type":"chat"}', 'invalid_message'],
    ['{"__proto__":{"type":"chat"}}', 'invalid_message'],
  ])('is not %s: %s', (text, code) => {
    expect(outcome(text)).toBe(code);
  });

  it('says which field is wrong where it has no type', () => {
    expect(() => parseMessage('{"type":7}')).toThrow(
      expect.objectContaining({ extra: { details: [{ field: 'type', problem: 'must be a string' }] } }),
    );
  });

  it('gets the one answer that its text deserves, whatever the text is', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.json(),
      fc.string({ unit: fc.constantFrom(...Array.from('{}[]",:\\u0041e+-.19 ntf')) }),
      fc.jsonValue({ maxDepth: 2 }).map((content) => JSON.stringify({ type: 'chat', content })),
    );
    fc.assert(
      fc.property(text, (frame) => {
        expect(outcome(frame)).toBe(expected(frame));
      }),
      { numRuns: 1_000 },
    );
  });
});

/** The same by the book: no scan, no shortcut. */
function expected(frame: string): string {
  let value: unknown;
  try {
    value = JSON.parse(frame);
  } catch {
    return isTooDeep(frame) ? 'invalid_message' : 'invalid_json';
  }
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!isObject || depthOf(value) > MAX_DEPTH || !isFiniteAll(value)) return 'invalid_message';
  const type: unknown = Object.entries(value as object).find(([key]) => key === 'type')?.[1];
  return typeof type === 'string' ? `type ${type}` : 'invalid_message';
}

function isFiniteAll(value: unknown): boolean {
  if (typeof value === 'number') return Number.isFinite(value);
  return typeof value !== 'object' || value === null || Object.values(value).every(isFiniteAll);
}

describe('a number that no double holds', () => {
  it.each([
    '1e309',
    '-1e309',
    '1E400',
    '1e+999',
    '1.5e0309',
    '17.9e308',
    `1${'0'.repeat(309)}`,
    `${'9'.repeat(300)}e9`,
    `${'9'.repeat(309)}.5`,
  ])('is refused wherever it stands: %s', (number) => {
    for (const text of [
      `{"type":"chat","content":${number}}`,
      `{"type":"chat","content":{"a":[1,{"b":${number}}]}}`,
      `{"type":"chat","ref":${number}}`,
    ])
      expect(outcome(text)).toBe('invalid_message');
  });

  it.each(['1e308', '-1.7976931348623157e308', '5e-324', '1e-400', '0e999', '9007199254740993', '-0'])(
    'is another one than %s',
    (number) => {
      expect(outcome(`{"type":"chat","content":${number}}`)).toBe('type chat');
    },
  );

  it('is another one than the same digits in a string', () => {
    expect(outcome(`{"type":"chat","content":"1e999 ${'9'.repeat(400)}"}`)).toBe('type chat');
  });

  it('is found for every way of writing a number', () => {
    const digits = (most: number): fc.Arbitrary<string> =>
      fc.string({
        unit: fc.constantFrom(...Array.from('0123456789')),
        minLength: 1,
        maxLength: most,
        size: 'max',
      });
    const number = fc
      .tuple(
        fc.constantFrom('', '-'),
        digits(330).map((text) => text.replace(/^0+(?=\d)/, '')),
        fc.option(digits(330), { nil: undefined }),
        fc.option(fc.tuple(fc.constantFrom('e', 'E', 'e+', 'E+', 'e-'), digits(4)), { nil: undefined }),
      )
      .map(
        ([sign, whole, fraction, exponent]) =>
          `${sign}${whole}${fraction === undefined ? '' : `.${fraction}`}${exponent === undefined ? '' : exponent.join('')}`,
      );
    fc.assert(
      fc.property(number, (text) => {
        const expected = Number.isFinite(Number(text)) ? 'type chat' : 'invalid_message';
        expect(outcome(`{"type":"chat","content":[${text}]}`)).toBe(expected);
      }),
      { numRuns: 3_000 },
    );
  });
});

describe('the ref of a message', () => {
  it.each([
    [{ ref: 'a' }, 'a'],
    [{ ref: 0 }, 0],
    [{ ref: '' }, ''],
    [{ ref: 'x'.repeat(65) }, undefined],
    [{ ref: 1.5 }, undefined],
    [{ ref: null }, undefined],
    [{ ref: {} }, undefined],
    [{}, undefined],
    [null, undefined],
    ['text', undefined],
    [['ref'], undefined],
    [Object.create({ ref: 'inherited' }), undefined],
  ])('of %o is %o', (message, ref) => {
    expect(refOf(message)).toBe(ref);
  });
});
