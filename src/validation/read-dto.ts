import type { Type } from '@nestjs/common';
import { getMetadataStorage, validateSync } from 'class-validator';
import type { FieldProblem } from '../protocol/errors.js';
import { ProtocolError } from '../protocol/errors.js';

const fields = new Map<Type<object>, readonly string[]>();

/**
 * Makes input its DTO: copies the fields that the class declares, own ones only, and validates them. Values are handed on
 * untouched: nothing is merged, deep-copied or transformed, so no key in them can mean anything here. Throws
 * `invalid_message` with the fault of each field, and never with what was in it.
 */
export function readDto<T extends object>(metatype: Type<T>, input: object): T {
  const dto = new metatype();
  for (const field of fieldsOf(metatype)) {
    if (Object.hasOwn(input, field)) Reflect.set(dto, field, Reflect.get(input, field));
  }
  const errors = validateSync(dto, { forbidUnknownValues: false, stopAtFirstError: true });
  if (errors.length === 0) return dto;
  const details = errors.map(({ property, constraints }): FieldProblem => {
    const problem = Object.values(constraints ?? {})[0] ?? 'is not valid';
    return { field: property, problem: problem.replace(`${property} `, '') };
  });
  throw new ProtocolError('invalid_message', undefined, { details });
}

/** The fields that a DTO class declares by validation decorators; none for any other class. */
export function fieldsOf(metatype: Type<object>): readonly string[] {
  let known = fields.get(metatype);
  if (known === undefined) {
    const metadata = getMetadataStorage().getTargetValidationMetadatas(metatype, '', false, false);
    known = [...new Set(metadata.map(({ propertyName }) => propertyName))];
    fields.set(metatype, known);
  }
  return known;
}
