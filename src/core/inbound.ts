/** A client's message as backend workers read it. */
export interface InboundRecord {
  user: string;
  connection: string;
  channel: string;
  event: string;
  /** JSON text. */
  content: string;
  messageId: string | undefined;
  /** Null on an ephemeral channel. */
  id: number | null;
  /** What the id belongs to. */
  epoch: string | null;
  tsMs: number;
}

/** Hands client messages to backend workers, at least once. */
export abstract class Inbound {
  /** Whether messages to this channel are handed on. */
  abstract takes(channel: string): boolean;
  /** Rejects with `BrokerUnavailable` while the workers are too far behind to take more. */
  abstract admit(): Promise<void>;
  /** Rejects with `BrokerUnavailable`: it may have been written. */
  abstract append(record: InboundRecord): Promise<void>;
}

/** Where no `INBOUND_STREAM` is set. */
export class NoInbound extends Inbound {
  takes(): boolean {
    return false;
  }

  async admit(): Promise<void> {
    // Nothing is ever handed on.
  }

  async append(): Promise<void> {
    // Nothing is ever handed on.
  }
}
