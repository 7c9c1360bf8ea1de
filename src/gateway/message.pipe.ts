import type { ArgumentMetadata, PipeTransform, Type } from '@nestjs/common';
import { Injectable } from '@nestjs/common';
import { getMetadataStorage, validateSync } from 'class-validator';
import type { FieldProblem } from '../protocol/errors.js';
import { ProtocolError } from '../protocol/errors.js';
import type { ClientMessage } from './message-parser.js';

/**
 * Makes a message its DTO: copies the fields that the class declares, own ones only, and validates them. `content` is
 * handed on untouched: nothing is merged, deep-copied or transformed, so no key in it can mean anything here.
 */
@Injectable()
export class MessagePipe implements PipeTransform<ClientMessage | string, object | string> {
  private readonly fields = new Map<Type<object>, readonly string[]>();

  transform(
    message: ClientMessage | string,
    { metatype }: Pick<ArgumentMetadata, 'metatype'>,
  ): object | string {
    if (metatype === undefined || typeof message === 'string') return message;
    const dto: object = new metatype();
    for (const field of this.fieldsOf(metatype)) {
      if (Object.hasOwn(message, field)) Reflect.set(dto, field, message[field]);
    }
    const errors = validateSync(dto, { forbidUnknownValues: false, stopAtFirstError: true });
    if (errors.length === 0) return dto;
    const details = errors.map(({ property, constraints }): FieldProblem => {
      const problem = Object.values(constraints ?? {})[0] ?? 'is not valid';
      return { field: property, problem: problem.replace(`${property} `, '') };
    });
    throw new ProtocolError('invalid_message', undefined, { details });
  }

  private fieldsOf(metatype: Type<object>): readonly string[] {
    let fields = this.fields.get(metatype);
    if (fields === undefined) {
      const metadata = getMetadataStorage().getTargetValidationMetadatas(metatype, '', false, false);
      fields = [...new Set(metadata.map(({ propertyName }) => propertyName))];
      this.fields.set(metatype, fields);
    }
    return fields;
  }
}
