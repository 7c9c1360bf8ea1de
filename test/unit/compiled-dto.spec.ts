import type { Type } from '@nestjs/common';
import { IsArray, IsInt, IsString, Min, ValidateIf, ValidateNested } from 'class-validator';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as api from '../../src/api/dto/api.dto.js';
import * as auth from '../../src/gateway/dto/auth.dto.js';
import * as publish from '../../src/gateway/dto/publish.dto.js';
import * as room from '../../src/gateway/dto/room.dto.js';
import { compileDto } from '../../src/validation/compiled-dto.js';
import { fieldsOf, problemsOf } from '../../src/validation/read-dto.js';

const classes = Object.entries({ ...api, ...auth, ...publish, ...room }).filter(
  (entry): entry is [string, Type<object>] =>
    typeof entry[1] === 'function' && fieldsOf(dtoClass(entry[1])).length > 0,
);

function dtoClass(value: object): Type<object> {
  return value as Type<object>;
}

const names = [
  '',
  'a',
  'room-1',
  'user:a',
  'room:a',
  'broadcast',
  'acked',
  'chat',
  'connected',
  'a b',
  'ä',
  '*',
];
const texts = [...[64, 65, 128, 129].map((length) => 'x'.repeat(length)), '日本', '\u0000', '\ud800', 'YQ'];
const numbers = [0, 1, -1, 0.5, 100, 101, 1_000, 1_001, Number.MAX_SAFE_INTEGER, 2 ** 53, NaN, Infinity];

const rest: unknown[] = [
  ...names,
  ...texts,
  ...numbers,
  true,
  false,
  null,
  undefined,
  [],
  {},
  ['a'],
  { a: 1 },
];

/** What fields may hold: often just right, often just wrong. */
const values = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom<unknown[]>('a', 'room:a', 'broadcast', 1, true) },
  { weight: 4, arbitrary: fc.constantFrom(...rest) },
  fc.jsonValue(),
  fc.string({ unit: 'binary', maxLength: 140 }),
);

function filled(metatype: Type<object>): fc.Arbitrary<object> {
  const fields = Object.fromEntries(fieldsOf(metatype).map((field) => [field, values]));
  return fc.record(fields, { requiredKeys: [] }).map((input) => Object.assign(new metatype(), input));
}

describe('a compiled DTO', () => {
  it('is every one that messages and the API have', () => {
    expect(classes.length).toBeGreaterThan(12);
    for (const [name, metatype] of classes) expect([name, compileDto(metatype)]).not.toEqual([name, null]);
  });

  it.each(classes)(
    '%s is judged as class-validator judges it, whatever its fields hold',
    (_name, metatype) => {
      const check = compileDto(metatype);
      let valid = 0;
      fc.assert(
        fc.property(filled(metatype), (dto) => {
          const isValid = problemsOf(dto).length === 0;
          if (isValid) valid += 1;
          expect(check?.(dto)).toBe(isValid);
        }),
        { numRuns: 1_500 },
      );
      expect(valid).toBeGreaterThan(0);
    },
  );

  it('is none where a class asks for more than rules and conditions of its own fields', () => {
    class Nested {
      @ValidateNested() child: object;
    }
    class Each {
      @IsString({ each: true }) names: string[];
    }
    class Grouped {
      @IsInt({ groups: ['a'] }) count: number;
    }
    class Plain {
      @IsArray() list: unknown[];
      @ValidateIf(({ list }: Plain) => list.length > 0) @IsInt() @Min(3) count: number;
    }
    expect([Nested, Each, Grouped].map((metatype) => compileDto(metatype))).toEqual([null, null, null]);
    const check = compileDto(Plain);
    expect(check?.(Object.assign(new Plain(), { list: [], count: 'x' }))).toBe(true);
    expect(check?.(Object.assign(new Plain(), { list: [1], count: 2 }))).toBe(false);
    expect(check?.(Object.assign(new Plain(), { list: [1], count: 3 }))).toBe(true);
  });
});
