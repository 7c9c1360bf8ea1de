import type { LoggerService } from '@nestjs/common';
import type { Logger } from 'pino';
import { pino } from 'pino';
import pretty from 'pino-pretty';
import type { Settings } from './settings.js';

/** What must never be in a log, whoever put it into a message: `?token=`, bearer headers, bearer subprotocols. */
const SECRETS = /([?&]token=|\bbearer(?: +|\.))[^\s&"',]+/gi;

/** What Nest says of every module and route while it starts; of use only when that goes wrong. */
const BOOT_CONTEXTS = new Set<unknown>([
  'NestFactory',
  'InstanceLoader',
  'RoutesResolver',
  'RouterExplorer',
  'WebSocketsController',
]);

/** Nest's logger over pino: JSON lines in production, readable ones elsewhere. */
export class PinoLogger implements LoggerService {
  private readonly pino: Logger;

  constructor(settings: Pick<Settings, 'LOG_LEVEL' | 'isProduction'>, instance: string) {
    const options = { level: settings.LOG_LEVEL, base: { instance } };
    this.pino = settings.isProduction
      ? pino(options)
      : pino(
          options,
          pretty({
            colorize: process.stdout.isTTY,
            ignore: 'pid,hostname,instance,context',
            messageFormat: '{if context}[{context}] {end}{msg}',
            sync: true,
          }),
        );
  }

  log(message: unknown, ...rest: unknown[]): void {
    if (BOOT_CONTEXTS.has(rest.at(-1))) this.pino.debug(...line(message, rest));
    else this.pino.info(...line(message, rest));
  }

  error(message: unknown, ...rest: unknown[]): void {
    this.pino.error(...line(message, rest));
  }

  warn(message: unknown, ...rest: unknown[]): void {
    this.pino.warn(...line(message, rest));
  }

  debug(message: unknown, ...rest: unknown[]): void {
    this.pino.debug(...line(message, rest));
  }

  verbose(message: unknown, ...rest: unknown[]): void {
    this.pino.trace(...line(message, rest));
  }

  fatal(message: unknown, ...rest: unknown[]): void {
    this.pino.fatal(...line(message, rest));
  }
}

/** Nest hands the context as the last argument, and for errors a stack before it. */
function line(message: unknown, rest: readonly unknown[]): [object, string] {
  const last = rest.at(-1);
  const context = typeof last === 'string' ? last : undefined;
  const fields: Record<string, unknown> = context === undefined ? {} : { context };
  if (message instanceof Error) fields.stack = redact(message.stack ?? '');
  else if (rest.length > 1 && typeof rest[0] === 'string') fields.stack = redact(rest[0]);
  return [fields, redact(message instanceof Error ? message.message : String(message))];
}

export function redact(text: string): string {
  return text.replace(SECRETS, '$1[redacted]');
}
