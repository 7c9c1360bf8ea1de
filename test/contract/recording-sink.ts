import type { BrokerSink, EventEnvelope } from '../../src/core/broker.js';
import type { Position } from '../../src/protocol/messages.js';
import { within } from '../support/eventually.js';

/** What a broker told its instance, in order; what is still to come can be awaited. */
export class RecordingSink implements BrokerSink {
  readonly events: EventEnvelope[] = [];
  /** Is told everything, too. */
  next: BrokerSink | null = null;
  readonly heads: { channel: string; head: Position }[] = [];
  private waiting: (() => void)[] = [];

  onEvent(event: EventEnvelope): void {
    this.events.push(event);
    this.next?.onEvent(event);
    this.wake();
  }

  onHead(channel: string, head: Position): void {
    this.heads.push({ channel, head });
    this.next?.onHead(channel, head);
    this.wake();
  }

  of(channel: string): EventEnvelope[] {
    return this.events.filter((event) => event.channel === channel);
  }

  ids(channel: string): (number | null)[] {
    return this.of(channel).map(({ position }) => position?.id ?? null);
  }

  bodies(channel: string): string[] {
    return this.of(channel).map(({ body }) => body.toString('utf8'));
  }

  /** Resolves when that many events of the channel have come. */
  async received(channel: string, count: number): Promise<EventEnvelope[]> {
    const what = (): string => `${count} events of ${channel}, got ${JSON.stringify(this.ids(channel))}`;
    await this.until(() => this.of(channel).length >= count, what);
    return this.of(channel);
  }

  /** Resolves when what was told makes it true. */
  async until(holds: () => boolean, what: string | (() => string), timeoutMs = 8_000): Promise<void> {
    const told = async (): Promise<void> => {
      while (!holds()) {
        await new Promise<void>((resolve) => {
          this.waiting.push(resolve);
        });
      }
    };
    await within(told(), timeoutMs, what);
  }

  private wake(): void {
    const waiting = this.waiting;
    this.waiting = [];
    for (const resolve of waiting) resolve();
  }
}
