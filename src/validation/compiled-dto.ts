import type { Type } from '@nestjs/common';
import type { ValidationArguments } from 'class-validator';
import { getMetadataStorage } from 'class-validator';

/** Whether a DTO is valid; class-validator has the words for what is wrong with one that is not. */
export type DtoCheck = (dto: object) => boolean;

type FieldCheck = (dto: object, value: unknown) => boolean;
type FieldMetadata = ReturnType<
  ReturnType<typeof getMetadataStorage>['getTargetValidationMetadatas']
>[number];

/**
 * The validation decorators of a class as one function that calls the same validators: what class-validator gathers anew
 * for every object costs it 6 µs, the validators themselves well below one. Null where the class uses something else
 * than plain rules and conditions of its own fields, in which case class-validator has to judge.
 */
export function compileDto(metatype: Type<object>): DtoCheck | null {
  const storage = getMetadataStorage();
  const metadata = storage.getTargetValidationMetadatas(metatype, '', false, false);
  const fields = new Map<string, { conditions: FieldCheck[]; rules: FieldCheck[] }>();
  for (const one of metadata) {
    const isCondition = one.type === 'conditionalValidation';
    if (!isCondition && one.type !== 'customValidation') return null;
    if (one.each || one.groups.length > 0 || one.validateIf !== undefined || one.context !== undefined)
      return null;
    const field = fields.get(one.propertyName) ?? { conditions: [], rules: [] };
    fields.set(one.propertyName, field);
    if (isCondition) {
      field.conditions.push(one.constraints[0]);
      continue;
    }
    const rules = rulesOf(metatype, one);
    if (rules === null) return null;
    field.rules.push(...rules);
  }
  const checks = [...fields].map(([property, { conditions, rules }]) =>
    fieldCheck(property, conditions, rules),
  );
  return (dto) => checks.every((check) => check(dto));
}

function rulesOf(metatype: Type<object>, metadata: FieldMetadata): FieldCheck[] | null {
  const found = getMetadataStorage().getTargetValidatorConstraints(metadata.constraintCls);
  if (found.some((constraint) => constraint.async)) return null;
  const targetName = metatype.name;
  const { propertyName: property, constraints } = metadata;
  return found.map(({ instance: validator }) => (object, value) => {
    const args: ValidationArguments = { targetName, property, constraints, object, value };
    return Boolean(validator.validate(value, args));
  });
}

function fieldCheck(
  property: string,
  conditions: readonly FieldCheck[],
  rules: readonly FieldCheck[],
): DtoCheck {
  return (dto) => {
    const value: unknown = Reflect.get(dto, property);
    for (const isAsked of conditions) if (!isAsked(dto, value)) return true;
    for (const holds of rules) if (!holds(dto, value)) return false;
    return true;
  };
}
