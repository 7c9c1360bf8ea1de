import type { BeforeApplicationShutdown } from '@nestjs/common';
import { Injectable, Logger } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import type { Connection } from '../core/connection.js';
import { PresenceService } from '../presence/presence.service.js';
import { CLOSE } from '../protocol/close-codes.js';
import { ConnectionsService } from './connections.service.js';

/** Connections closed at a time, and the pause between two such waves: as long as the connections need, no longer. */
const WAVE = 50;
const WAVE_PAUSE_MS = 50;
/** Clients are asked to come back spread over this, more for more connections. */
const RECONNECT_MIN_MS = 100;
const RECONNECT_MS_PER_CONNECTION = 2;
/** How long peers get to answer the close frame before they are cut. */
const LINGER_MS = 3_000;
const POLL_MS = 10;

/**
 * The end of an instance: not ready at once, serving on for the delay so that balancers notice, then every connection
 * is told to come back elsewhere and closed with 1012, in waves, and presence is released.
 */
@Injectable()
export class DrainService implements BeforeApplicationShutdown {
  private readonly logger = new Logger('Drain');
  private draining = false;
  private closing = false;

  constructor(
    private readonly connections: ConnectionsService,
    private readonly presence: PresenceService,
    private readonly settings: Settings,
  ) {}

  /** Not ready any more. */
  get isDraining(): boolean {
    return this.draining;
  }

  /** New connections are refused: the delay is over. */
  get isClosing(): boolean {
    return this.closing;
  }

  async beforeApplicationShutdown(): Promise<void> {
    this.draining = true;
    const startedMs = performance.now();
    if (this.settings.DRAIN_DELAY_MS > 0) await pause(this.settings.DRAIN_DELAY_MS);
    this.closing = true;
    const count = this.connections.count;
    await this.closeInWaves(count);
    await this.presence.release();
    this.logger.log(`drained ${count} connections in ${Math.round(performance.now() - startedMs)} ms`);
  }

  /** A second signal: everybody is told to go, nobody is waited for. */
  closeAllNow(): void {
    this.draining = true;
    this.closing = true;
    for (const connection of this.connections.all()) connection.close(CLOSE.goingAway);
  }

  private async closeInWaves(count: number): Promise<void> {
    const deadlineMs = performance.now() + this.settings.DRAIN_TIMEOUT_MS;
    const waves = Math.max(1, Math.ceil(count / WAVE));
    const pauseMs = Math.min(WAVE_PAUSE_MS, this.settings.DRAIN_TIMEOUT_MS / (2 * waves));
    const spreadMs = RECONNECT_MIN_MS + count * RECONNECT_MS_PER_CONNECTION;
    let inWave = 0;
    for (const connection of shuffled([...this.connections.all()])) {
      this.dismiss(connection, Math.round(Math.random() * spreadMs));
      inWave += 1;
      if (inWave < WAVE) continue;
      inWave = 0;
      await pause(pauseMs * (0.5 + Math.random()));
    }
    const lingerUntilMs = Math.min(deadlineMs, performance.now() + LINGER_MS);
    while (this.connections.count > 0 && performance.now() < lingerUntilMs) await pause(POLL_MS);
    for (const connection of this.connections.all()) connection.terminate();
  }

  private dismiss(connection: Connection, afterMs: number): void {
    const reconnect = { event: 'reconnect', reason: 'restart', after_ms: afterMs } as const;
    connection.close(CLOSE.restart, connection.isOpen ? reconnect : null);
  }
}

function shuffled<T>(items: T[]): T[] {
  for (let last = items.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [items[last], items[other]] = [items[other] as T, items[last] as T];
  }
  return items;
}

function pause(durationMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}
