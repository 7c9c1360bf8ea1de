import type { IncomingMessage } from 'node:http';
import type { CanActivate, ExecutionContext } from '@nestjs/common';
import { Injectable, NotFoundException } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { ApiKeyGuard, Scope } from '../auth/api-key.guard.js';
import { Settings } from '../config/settings.js';
import { InternalPortGuard } from '../http/internal.guard.js';

interface ApiRequest {
  raw: IncomingMessage;
  headers: IncomingMessage['headers'];
}

/** The API is not there without API keys, nor on the public port where there is an internal one. */
@Injectable()
export class ApiGuard implements CanActivate {
  constructor(
    private readonly reflector: Reflector,
    private readonly settings: Settings,
    private readonly port: InternalPortGuard,
    private readonly apiKeys: ApiKeyGuard,
  ) {}

  canActivate(context: ExecutionContext): boolean {
    if (this.settings.API_KEYS.length === 0) throw new NotFoundException('There is no API without API_KEYS.');
    this.port.canActivate(context);
    const scope = this.reflector.getAllAndOverride(Scope, [context.getHandler(), context.getClass()]);
    return this.apiKeys.check(context.switchToHttp().getRequest<ApiRequest>(), scope);
  }
}
