import { applyDecorators, Controller, UseGuards, UsePipes } from '@nestjs/common';
import { ApiGuard } from './api.guard.js';
import { InputPipe } from './input.pipe.js';

/** A controller under `/api/v1`, with the key checked, input validated, and errors in one shape. */
export function ApiController(path: string): ClassDecorator {
  return applyDecorators(Controller(`api/v1/${path}`), UseGuards(ApiGuard), UsePipes(InputPipe));
}
