import { createHash } from 'node:crypto';
import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common';
import {
  BadRequestException,
  ConflictException,
  Injectable,
  ServiceUnavailableException,
} from '@nestjs/common';
import type { Observable } from 'rxjs';
import { firstValueFrom, from } from 'rxjs';
import { IdempotencyStore } from '../core/control.js';

const KEY = /^[\x21-\x7e]{1,128}$/;
/** How long a twin waits for the answer of the call that acts, and how often it looks. */
const TWIN_MS = 5_000;
const LOOK_MS = 20;

interface WriteRequest {
  headers: Record<string, string | string[] | undefined>;
  method: string;
  url: string;
  body: unknown;
}

/** `Idempotency-Key`: one of several equal calls acts, all get its answer. */
@Injectable()
export class IdempotencyInterceptor implements NestInterceptor {
  constructor(private readonly store: IdempotencyStore) {}

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const request = context.switchToHttp().getRequest<WriteRequest>();
    const given = request.headers['idempotency-key'];
    if (given === undefined || request.method === 'GET') return next.handle();
    if (typeof given !== 'string' || !KEY.test(given)) {
      throw new BadRequestException('Idempotency-Key must be 1 to 128 printable characters.');
    }
    const { authorization } = request.headers;
    const key = digest([String(authorization), request.method, request.url.split('?')[0], given]);
    return from(this.once(key, digest(request.body ?? null), () => firstValueFrom(next.handle())));
  }

  private async once(key: string, fingerprint: string, act: () => Promise<unknown>): Promise<unknown> {
    const untilMs = performance.now() + TWIN_MS;
    for (;;) {
      const claim = await this.store.claim(key, fingerprint);
      switch (claim.kind) {
        case 'first':
          return this.act(key, fingerprint, act);
        case 'done':
          return { ...JSON.parse(claim.answer), duplicate: true };
        case 'conflict':
          throw new ConflictException('This Idempotency-Key was used with another body.');
        case 'pending':
          if (performance.now() > untilMs)
            throw new ServiceUnavailableException('The first call has no answer yet; repeat.');
          await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
          break;
        default: {
          const exhaustive: never = claim;
          throw new Error(`unknown claim ${JSON.stringify(exhaustive)}`);
        }
      }
    }
  }

  private async act(key: string, fingerprint: string, act: () => Promise<unknown>): Promise<unknown> {
    try {
      const answer = await act();
      await this.store.finish(key, fingerprint, JSON.stringify(answer));
      return answer;
    } catch (error) {
      // A call that failed has done nothing that can't be repeated.
      await this.store.abandon(key);
      throw error;
    }
  }
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('base64url');
}
