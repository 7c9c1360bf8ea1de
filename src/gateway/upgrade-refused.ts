import type { CloseCode } from '../protocol/close-codes.js';

/** An upgrade that is refused: an HTTP answer before the socket is accepted. */
export class UpgradeRefused extends Error {
  constructor(
    readonly statusCode: 400 | 401 | 403 | 404 | 405 | 426 | 429 | 503,
    message: string,
    /** Accepted and closed with this instead, where browsers are to see why (`AUTH_REJECT=close`). */
    readonly closeWith: CloseCode | null = null,
  ) {
    super(message);
    this.name = 'UpgradeRefused';
  }
}
