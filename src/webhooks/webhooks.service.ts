import { createHmac } from 'node:crypto';
import type { OnApplicationBootstrap, OnApplicationShutdown } from '@nestjs/common';
import { Injectable, Logger } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import { readBody } from '../core/answer-body.js';
import type { WebhookEvent } from '../core/webhook-outbox.js';
import { WebhookOutbox } from '../core/webhook-outbox.js';

const LOOK_MS = 500;
const TIMEOUT_MS = 10_000;
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 60_000;
const SECRET_PREFIX = 'whsec_';

/** Tells the backend what happened to users and rooms, signed as Standard Webhooks do, until it answers 2xx. */
@Injectable()
export class WebhooksService implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly logger = new Logger('Webhooks');
  private timer: NodeJS.Timeout | null = null;
  private failures = 0;
  private stopped = false;

  constructor(
    private readonly outbox: WebhookOutbox,
    private readonly settings: Settings,
  ) {}

  onApplicationBootstrap(): void {
    if (this.settings.WEBHOOK_URL !== undefined) this.lookAfter(LOOK_MS);
  }

  onApplicationShutdown(): void {
    this.stopped = true;
    if (this.timer !== null) clearTimeout(this.timer);
  }

  private lookAfter(durationMs: number): void {
    if (this.stopped) return;
    this.timer = setTimeout(() => {
      this.work().then(
        (sent) => {
          if (sent) this.failures = 0;
          this.lookAfter(sent ? 0 : LOOK_MS);
        },
        (error: unknown) => {
          this.failures += 1;
          this.logger.warn(
            `events were not delivered: ${error instanceof Error ? error.message : String(error)}`,
          );
          this.lookAfter(backoffMs(this.failures));
        },
      );
    }, durationMs);
  }

  /** Sends one batch; answers whether there was one. Rejects where it was not received. */
  private async work(): Promise<boolean> {
    const batch = await this.outbox.take();
    if (batch === null) return false;
    try {
      await this.send(batch.events);
    } catch (error) {
      await batch.release();
      throw error;
    }
    await batch.confirm();
    return true;
  }

  private async send(events: readonly WebhookEvent[]): Promise<void> {
    const { WEBHOOK_URL = '', WEBHOOK_SECRET = '' } = this.settings;
    const body = JSON.stringify({ events });
    const id = `msg_${events[0]?.id ?? ''}_${events.length}`;
    const timestamp = String(Math.floor(Date.now() / 1000));
    const response = await fetch(WEBHOOK_URL, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'webhook-id': id,
        'webhook-timestamp': timestamp,
        'webhook-signature': `v1,${signatureOf(WEBHOOK_SECRET, `${id}.${timestamp}.${body}`)}`,
      },
      body,
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    await readBody(response);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
  }
}

/** A secret with the standard prefix is base64; any other is taken as it is. */
function signatureOf(secret: string, signed: string): string {
  const key = secret.startsWith(SECRET_PREFIX)
    ? Buffer.from(secret.slice(SECRET_PREFIX.length), 'base64')
    : Buffer.from(secret, 'utf8');
  return createHmac('sha256', key).update(signed).digest('base64');
}

function backoffMs(failures: number): number {
  return Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(failures, 10)) * (0.5 + Math.random() / 2);
}
