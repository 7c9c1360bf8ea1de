import { randomBytes } from 'node:crypto';

/** A name nobody else uses: tests of one file share a gateway and must not meet. */
export function fresh(prefix: string): string {
  return `${prefix}-${randomBytes(6).toString('hex')}`;
}
