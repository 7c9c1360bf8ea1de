import type { IncomingMessage } from 'node:http';
import type { CanActivate, ExecutionContext } from '@nestjs/common';
import { BadRequestException, Injectable, NotFoundException } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { ApiKeyGuard, Scope } from '../auth/api-key.guard.js';
import { Settings } from '../config/settings.js';
import { InternalPortGuard } from '../http/internal.guard.js';

export interface ApiRequest {
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

  /** At the first line of a request, before anything of its body is read. Throws 404, 401 or 400. */
  checkDoor(request: ApiRequest): void {
    if (this.settings.API_KEYS.length === 0) throw new NotFoundException('There is no API without API_KEYS.');
    this.port.check(request.raw);
    this.apiKeys.scopesOf(request);
    const type = request.headers['content-type'];
    if (type !== undefined && !/^application\/json\s*(;|$)/i.test(type)) {
      throw new BadRequestException('The body must be JSON (content-type: application/json).');
    }
  }

  canActivate(context: ExecutionContext): boolean {
    const request = context.switchToHttp().getRequest<ApiRequest>();
    this.checkDoor(request);
    return this.apiKeys.check(
      request,
      this.reflector.getAllAndOverride(Scope, [context.getHandler(), context.getClass()]),
    );
  }
}
