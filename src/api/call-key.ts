import { BadRequestException, createParamDecorator } from '@nestjs/common';
import type { ExecutionContext } from '@nestjs/common';

const KEY = /^[\x21-\x7e]{1,128}$/;

/** The `Idempotency-Key` of a call, within the API key that makes it. */
export interface CallKey {
  scope: string;
  key: string;
}

interface KeyedRequest {
  headers: Record<string, string | string[] | undefined>;
}

/** Null where the call has none. Throws 400 for one that is not 1 to 128 printable characters. */
export function callKeyOf({ headers }: KeyedRequest): CallKey | null {
  const key = headers['idempotency-key'];
  if (key === undefined) return null;
  if (typeof key !== 'string' || !KEY.test(key)) {
    throw new BadRequestException('Idempotency-Key must be 1 to 128 printable characters.');
  }
  return { scope: `call ${String(headers.authorization)}`, key };
}

export const CallKey = createParamDecorator((_: unknown, context: ExecutionContext) =>
  callKeyOf(context.switchToHttp().getRequest<KeyedRequest>()),
);
