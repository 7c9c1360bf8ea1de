/** What the core counts; the metrics module gives it a body. */
export abstract class Telemetry {
  abstract messageReceived(type: string): void;
  abstract eventPublished(
    durability: 'durable' | 'ephemeral',
    result: 'ok' | 'duplicate' | 'unavailable',
  ): void;
  abstract eventsDelivered(count: number): void;
  abstract connectionOpened(): void;
  abstract connectionClosed(code: number): void;
  abstract handshakeRejected(status: number): void;
  abstract errorSent(code: string): void;
  /** A hole in a channel was found: filled from the stored events, or told to the members. */
  abstract holeFound(result: 'filled' | 'gap' | 'failed'): void;
  abstract busMessageDropped(reason: 'malformed'): void;
  abstract redisReconnected(role: string): void;
  abstract probeMissed(): void;
}
