export const WEBHOOK_TYPES = [
  'user.connected',
  'user.disconnected',
  'room.occupied',
  'room.vacated',
] as const;
export type WebhookType = (typeof WEBHOOK_TYPES)[number];

export interface WebhookEvent {
  /** The same whenever it is sent again: receivers drop doubles by it. */
  id: string;
  type: WebhookType;
  /** ISO 8601. */
  timestamp: string;
  data: { user_id: string } | { room: string };
}

export interface WebhookBatch {
  events: WebhookEvent[];
  /** They were received: forget them. Rejects with `BrokerUnavailable`; they are sent again then. */
  confirm: () => Promise<void>;
  /** They were not: somebody tries again. */
  release: () => Promise<void>;
}

/** What backends are to be told, kept until they were. Whoever takes a batch is the only one that sends it. */
export abstract class WebhookOutbox {
  /** Null where nothing waits, or somebody else sends it. Rejects with `BrokerUnavailable`. */
  abstract take(): Promise<WebhookBatch | null>;
}
