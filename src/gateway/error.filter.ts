import type { ArgumentsHost, ExceptionFilter } from '@nestjs/common';
import { Catch, Logger } from '@nestjs/common';
import type { Connection } from '../core/connection.js';
import { Telemetry } from '../core/telemetry.js';
import { ProtocolError } from '../protocol/errors.js';
import { refOf } from './message-parser.js';

/** Turns what a message handler throws into one `error` event. What was not expected is logged, and is `internal`. */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  private readonly logger = new Logger('Gateway');

  constructor(private readonly telemetry: Telemetry) {}

  catch(exception: unknown, host: ArgumentsHost): void {
    const ws = host.switchToWs();
    this.answer(ws.getClient<Connection>(), exception, refOf(ws.getData()));
  }

  answer(connection: Connection, exception: unknown, ref: ReturnType<typeof refOf>): void {
    const error = exception instanceof ProtocolError ? exception : new ProtocolError('internal');
    if (error !== exception) this.logger.error(exception);
    this.telemetry.errorSent(error.code);
    connection.send(error.toEvent(ref));
  }
}
