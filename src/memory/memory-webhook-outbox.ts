import { randomUUID } from 'node:crypto';
import type { WebhookBatch, WebhookEvent, WebhookType } from '../core/webhook-outbox.js';
import { WebhookOutbox } from '../core/webhook-outbox.js';

const BATCH = 100;
/** Events kept while the backend does not take them; the oldest is dropped. */
const MAX_EVENTS = 100_000;

export class MemoryWebhookOutbox extends WebhookOutbox {
  private readonly events: WebhookEvent[] = [];

  add(type: WebhookType, data: WebhookEvent['data']): void {
    this.events.push({ id: randomUUID(), type, timestamp: new Date().toISOString(), data });
    if (this.events.length > MAX_EVENTS) this.events.shift();
  }

  async take(): Promise<WebhookBatch | null> {
    const events = this.events.slice(0, BATCH);
    if (events.length === 0) return null;
    const taken = new Set(events);
    const confirm = async (): Promise<void> => {
      const rest = this.events.filter((event) => !taken.has(event));
      this.events.splice(0, this.events.length, ...rest);
    };
    return { events, confirm, release: async () => undefined };
  }
}
