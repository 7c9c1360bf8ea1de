import type { ArgumentMetadata, PipeTransform } from '@nestjs/common';
import { Injectable } from '@nestjs/common';
import { fieldsOf, readDto } from '../validation/read-dto.js';
import { InvalidInput } from '../http/http-errors.js';

/** Numbers come as text in a query. */
const NUMERIC = new Set(['limit', 'before']);

/** Makes a body, query or path the DTO that the handler declares. A missing body is an empty one. */
@Injectable()
export class InputPipe implements PipeTransform {
  transform(value: unknown, { metatype, type }: ArgumentMetadata): unknown {
    if (metatype === undefined || fieldsOf(metatype).length === 0) return value;
    const input = value ?? {};
    if (typeof input !== 'object' || Array.isArray(input)) {
      throw new InvalidInput([{ field: 'body', problem: 'must be a JSON object' }]);
    }
    return readDto(metatype, type === 'query' ? numbersIn(input) : input);
  }
}

function numbersIn(query: object): object {
  return Object.fromEntries(
    Object.entries(query).map(([name, value]: [string, unknown]) => [
      name,
      NUMERIC.has(name) && typeof value === 'string' && /^\d{1,16}$/.test(value) ? Number(value) : value,
    ]),
  );
}
