export interface CloseCode {
  code: number;
  /** Sent in the close frame; at most 123 bytes (RFC 6455 section 5.5). */
  reason: string;
}

/**
 * The codes the gateway closes with itself; ws adds 1002, 1007, 1008 and 1009 for broken frames.
 * For codes not listed: 4000 to 4499 may come back, 4500 to 4999 may not.
 */
export const CLOSE = {
  goingAway: { code: 1001, reason: 'going away' },
  binary: { code: 1003, reason: 'binary frames are not supported' },
  internal: { code: 1011, reason: 'internal error' },
  restart: { code: 1012, reason: 'restart' },
  tryAgain: { code: 1013, reason: 'try again later' },
  unauthorized: { code: 4001, reason: 'unauthorized' },
  slowConsumer: { code: 4008, reason: 'slow consumer' },
  heartbeatMissed: { code: 4009, reason: 'heartbeat missed' },
  rateLimited: { code: 4029, reason: 'rate limit' },
  forbidden: { code: 4503, reason: 'forbidden' },
} as const satisfies Record<string, CloseCode>;
