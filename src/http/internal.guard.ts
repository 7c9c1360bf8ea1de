import type { IncomingMessage } from 'node:http';
import type { CanActivate, ExecutionContext } from '@nestjs/common';
import { Injectable, NotFoundException } from '@nestjs/common';
import { ApiKeyGuard } from '../auth/api-key.guard.js';
import { Settings } from '../config/settings.js';
import { Listeners } from './listeners.js';

/**
 * For what only operators should see: on the internal port alone where there is one; else open in development, and in
 * production only with an API key that has the scope `read`.
 */
@Injectable()
export class InternalGuard implements CanActivate {
  constructor(
    private readonly settings: Settings,
    private readonly listeners: Listeners,
    private readonly apiKeys: ApiKeyGuard,
  ) {}

  canActivate(context: ExecutionContext): boolean {
    const request = context
      .switchToHttp()
      .getRequest<{ raw: IncomingMessage; headers: IncomingMessage['headers'] }>();
    if (this.settings.INTERNAL_PORT !== undefined)
      return onlyInternally(this.listeners.isInternal(request.raw));
    return !this.settings.isProduction || this.apiKeys.check(request, 'read');
  }
}

/** For what is no secret, but belongs to the internal port where there is one. */
@Injectable()
export class InternalPortGuard implements CanActivate {
  constructor(
    private readonly settings: Settings,
    private readonly listeners: Listeners,
  ) {}

  canActivate(context: ExecutionContext): boolean {
    return this.check(context.switchToHttp().getRequest<{ raw: IncomingMessage }>().raw);
  }

  /** Throws 404 where it came in on the wrong port. */
  check(request: IncomingMessage): boolean {
    return this.settings.INTERNAL_PORT === undefined || onlyInternally(this.listeners.isInternal(request));
  }
}

function onlyInternally(isInternal: boolean): boolean {
  if (!isInternal) throw new NotFoundException('There is nothing here.');
  return true;
}
