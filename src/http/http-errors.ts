import { STATUS_CODES } from 'node:http';
import type { ArgumentsHost, ExceptionFilter } from '@nestjs/common';
import {
  BadRequestException,
  Catch,
  HttpException,
  Logger,
  PayloadTooLargeException,
  ServiceUnavailableException,
} from '@nestjs/common';
import { BrokerUnavailable } from '../core/broker.js';
import type { FieldProblem } from '../protocol/errors.js';
import { ProtocolError } from '../protocol/errors.js';

interface Reply {
  status(code: number): Reply;
  header(name: string, value: string): Reply;
  send(body: object): void;
}

/** What the HTTP platform itself refuses, which comes with nothing but a text of its own. */
const PLATFORM_ERRORS = new Map<number, () => HttpException>([
  [400, () => new BadRequestException('The request is not valid.')],
  [413, () => new PayloadTooLargeException('The body is too large.')],
  [414, () => new BadRequestException('The path is too long.')],
  [415, () => new BadRequestException('The body must be JSON (content-type: application/json).')],
]);

/** Bad input of a backend, field by field. */
export class InvalidInput extends BadRequestException {
  constructor(details: readonly FieldProblem[]) {
    const [first] = details;
    super({
      statusCode: 400,
      error: 'Bad Request',
      message: first === undefined ? 'The request is not valid.' : `${first.field} ${first.problem}`,
      details,
    });
  }
}

/** Answers `{statusCode, error, message}`; what was not expected is logged and is a 500 that says nothing. */
@Catch()
export class HttpErrorFilter implements ExceptionFilter {
  private readonly logger = new Logger('Http');

  catch(exception: unknown, host: ArgumentsHost): void {
    const reply = host.switchToHttp().getResponse<Reply>();
    const error = asHttp(exception);
    if (error === null) {
      this.logger.error(exception);
      reply
        .status(500)
        .send({ statusCode: 500, error: 'Internal Server Error', message: 'Something went wrong.' });
      return;
    }
    const status = error.getStatus();
    if (status === 503) reply.header('Retry-After', '1');
    if (status === 401) reply.header('WWW-Authenticate', 'Bearer');
    const body = error.getResponse();
    reply
      .status(status)
      .send(
        typeof body === 'string' ? { statusCode: status, error: STATUS_CODES[status], message: body } : body,
      );
  }
}

function asHttp(exception: unknown): HttpException | null {
  if (exception instanceof HttpException) {
    const known = PLATFORM_ERRORS.get(exception.getStatus());
    return typeof exception.getResponse() === 'string' && known !== undefined ? known() : exception;
  }
  if (exception instanceof BrokerUnavailable) return unavailable();
  if (!(exception instanceof ProtocolError)) return null;
  return exception.code === 'broker_unavailable'
    ? unavailable()
    : new InvalidInput(exception.extra.details ?? []);
}

function unavailable(): HttpException {
  return new ServiceUnavailableException('The message broker is out of reach; repeat with the same key.');
}
