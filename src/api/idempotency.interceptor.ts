import { createHash } from 'node:crypto';
import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common';
import { ConflictException, Injectable, ServiceUnavailableException } from '@nestjs/common';
import type { Observable } from 'rxjs';
import { firstValueFrom, from } from 'rxjs';
import { IdempotencyStore } from '../core/control.js';
import { callKeyOf } from './call-key.js';

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
    const callKey = request.method === 'GET' ? null : callKeyOf(request);
    if (callKey === null) return next.handle();
    const key = digest([callKey, request.method, request.url.split('?')[0]]);
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
      if (isComplete(answer)) await this.store.finish(key, fingerprint, JSON.stringify(answer));
      else await this.store.abandon(key);
      return answer;
    } catch (error) {
      // A call that failed has done nothing that can't be repeated.
      await this.store.abandon(key);
      throw error;
    }
  }
}

/** A batch of which something could not be stored is there to be repeated. */
function isComplete(answer: unknown): boolean {
  if (
    typeof answer !== 'object' ||
    answer === null ||
    !('results' in answer) ||
    !Array.isArray(answer.results)
  )
    return true;
  return !answer.results.some(
    (result: { error?: { code?: string } }) => result.error?.code === 'broker_unavailable',
  );
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('base64url');
}
