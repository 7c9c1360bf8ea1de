import { createHash, timingSafeEqual } from 'node:crypto';
import type { CanActivate, ExecutionContext } from '@nestjs/common';
import { ForbiddenException, Injectable, UnauthorizedException } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { Settings } from '../config/settings.js';

export type ApiScope = 'publish' | 'read' | 'control';

/** The scope an API key must have. */
export const Scope = Reflector.createDecorator<ApiScope>();

interface HttpRequest {
  headers: { authorization?: string };
}

/** Checks `Authorization: Bearer <API key>`; compares digests of equal length, all of them, in constant time. */
@Injectable()
export class ApiKeyGuard implements CanActivate {
  private readonly keys: { digest: Buffer; scopes: ReadonlySet<string> }[];

  constructor(
    private readonly reflector: Reflector,
    settings: Settings,
  ) {
    this.keys = settings.API_KEYS.map(({ key, scopes }) => ({ digest: digestOf(key), scopes }));
  }

  canActivate(context: ExecutionContext): boolean {
    const scope = this.reflector.getAllAndOverride(Scope, [context.getHandler(), context.getClass()]);
    return this.check(context.switchToHttp().getRequest<HttpRequest>(), scope);
  }

  /** Throws 401 without a valid key and 403 without the scope. */
  check(request: HttpRequest, scope: ApiScope): boolean {
    if (!this.scopesOf(request).has(scope))
      throw new ForbiddenException('The API key does not have the scope for this.');
    return true;
  }

  /** What the request's key may do. Throws 401 without a valid one. */
  scopesOf(request: HttpRequest): ReadonlySet<string> {
    const presented = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
    const digest = digestOf(presented ?? '');
    let scopes: ReadonlySet<string> | null = null;
    for (const key of this.keys) if (timingSafeEqual(key.digest, digest)) scopes = key.scopes;
    if (presented === undefined || scopes === null)
      throw new UnauthorizedException('A valid API key is needed.');
    return scopes;
  }
}

function digestOf(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
