import type { ArgumentMetadata, PipeTransform } from '@nestjs/common';
import { Injectable } from '@nestjs/common';
import { readDto } from '../validation/read-dto.js';
import type { ClientMessage } from './message-parser.js';

/** Makes a message the DTO that its handler declares. */
@Injectable()
export class MessagePipe implements PipeTransform<ClientMessage | string, object | string> {
  transform(
    message: ClientMessage | string,
    { metatype }: Pick<ArgumentMetadata, 'metatype'>,
  ): object | string {
    return metatype === undefined || typeof message === 'string' ? message : readDto(metatype, message);
  }
}
