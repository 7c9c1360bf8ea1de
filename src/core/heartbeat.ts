import { CLOSE } from '../protocol/close-codes.js';
import { monotonicMs } from './clock.js';
import type { Connection } from './connection.js';
import { heartbeatFrame } from './frame.js';

export interface HeartbeatOptions {
  intervalMs: number;
  timeoutMs: number;
}

/** How often all connections are looked at, at the most and at the least. */
const MAX_SWEEP_MS = 500;
const MIN_SWEEP_MS = 10;

/**
 * One timer for all connections: pings the ones that are due, closes the ones that were silent for interval + timeout,
 * whose token has ended, or that have stopped reading while nothing is sent to them.
 */
export class Heartbeat {
  private readonly frame = heartbeatFrame();
  private timer: NodeJS.Timeout | null = null;

  constructor(
    private readonly options: HeartbeatOptions,
    private readonly connections: Iterable<Connection>,
    private readonly nowMs: () => number = monotonicMs,
    private readonly wallMs: () => number = () => Date.now(),
    private readonly random: () => number = Math.random,
  ) {}

  start(): void {
    const { intervalMs, timeoutMs } = this.options;
    const everyMs = Math.min(MAX_SWEEP_MS, Math.max(MIN_SWEEP_MS, Math.min(intervalMs, timeoutMs) / 10));
    this.timer = setInterval(() => this.sweep(), everyMs);
  }

  stop(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
  }

  /** Gives a new connection its place in the interval, so that those that came together are not pinged together. */
  schedule(connection: Connection): void {
    const waitMs = this.options.intervalMs * (0.5 + 0.5 * this.random());
    connection.nextPingMs = this.nowMs() + Math.ceil(waitMs);
  }

  sweep(): void {
    const nowMs = this.nowMs();
    const wallMs = this.wallMs();
    const silentMs = this.options.intervalMs + this.options.timeoutMs;
    for (const connection of this.connections) {
      if (!connection.isOpen) continue;
      if (connection.identity.expiresAtMs <= wallMs) connection.close(CLOSE.unauthorized);
      else if (connection.outbox.isSlow()) connection.close(CLOSE.slowConsumer);
      else if (!connection.isPaused && nowMs - connection.lastSeenMs > silentMs)
        connection.close(CLOSE.heartbeatMissed);
      else if (nowMs >= connection.nextPingMs) {
        connection.nextPingMs = nowMs + this.options.intervalMs;
        connection.push(this.frame);
      }
    }
  }
}
