import type { Type } from '@nestjs/common';
import { getMetadataStorage, validateSync } from 'class-validator';
import type { FieldProblem } from '../protocol/errors.js';
import { ProtocolError } from '../protocol/errors.js';
import type { DtoCheck } from './compiled-dto.js';
import { compileDto } from './compiled-dto.js';

/** What a DTO class declares. */
interface DtoShape {
  fields: readonly string[];
  check: DtoCheck | null;
}

const shapes = new Map<Type<object>, DtoShape>();

/**
 * Makes input its DTO: copies the fields that the class declares, own ones only, and validates them. Values are handed on
 * untouched: nothing is merged, deep-copied or transformed, so no key in them can mean anything here. Throws
 * `invalid_message` with the fault of each field, and never with what was in it.
 */
export function readDto<T extends object>(metatype: Type<T>, input: object): T {
  const { fields, check } = shapeOf(metatype);
  const dto = new metatype();
  for (const field of fields) {
    if (Object.hasOwn(input, field)) Reflect.set(dto, field, Reflect.get(input, field));
  }
  if (check?.(dto) === true) return dto;
  const details = problemsOf(dto);
  if (details.length === 0) return dto;
  throw new ProtocolError('invalid_message', undefined, { details });
}

/** The first fault of each field, in class-validator's judgement. */
export function problemsOf(dto: object): FieldProblem[] {
  const errors = validateSync(dto, { forbidUnknownValues: false, stopAtFirstError: true });
  return errors.map(({ property, constraints }): FieldProblem => {
    const problem = Object.values(constraints ?? {})[0] ?? 'is not valid';
    return { field: property, problem: problem.replace(`${property} `, '') };
  });
}

/** The fields that a DTO class declares by validation decorators; none for any other class. */
export function fieldsOf(metatype: Type<object>): readonly string[] {
  return shapeOf(metatype).fields;
}

function shapeOf(metatype: Type<object>): DtoShape {
  let shape = shapes.get(metatype);
  if (shape === undefined) {
    const metadata = getMetadataStorage().getTargetValidationMetadatas(metatype, '', false, false);
    const fields = [...new Set(metadata.map(({ propertyName }) => propertyName))];
    shape = { fields, check: compileDto(metatype) };
    shapes.set(metatype, shape);
  }
  return shape;
}
