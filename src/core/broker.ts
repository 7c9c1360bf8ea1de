import type { Position } from '../protocol/messages.js';

/** One published event on its way to the members of a channel. */
export interface EventEnvelope {
  channel: string;
  /** Null for what is not numbered: events of ephemeral channels and presence notices. */
  position: Position | null;
  /** `connection:<id>` or `user:<id>` that must not get it; empty: everyone gets it. */
  exclude: string;
  /** The event's JSON text in UTF-8 without its closing brace; the frame adds the id and the brace. */
  body: Buffer;
}

export interface Publication {
  channel: string;
  /** JSON object text without its closing brace, so that the id can be appended without parsing it. */
  body: string;
  exclude?: string;
  /** Within the idempotency time a second publication with the same scope and key is not published again. */
  idempotency?: { scope: string; key: string };
}

export interface Published {
  /** Null on an ephemeral channel. */
  position: Position | null;
  duplicate: boolean;
}

export type History =
  /** Events directly after the asked position, oldest first, without a hole; empty at the head. */
  | { kind: 'events'; events: EventEnvelope[]; head: Position }
  /** What follows the asked position can't be had: another epoch, ahead of the channel, or trimmed. */
  | { kind: 'lost'; head: Position; oldestId: number };

export interface PageLimits {
  events: number;
  /** Of bodies together; at least one event fits. */
  bytes: number;
}

export interface HistoryPage {
  events: EventEnvelope[];
  /** Older events are stored. */
  more: boolean;
  epoch: string;
}

/** The broker can't be reached or did not answer in time: what was asked may or may not have happened. */
export class BrokerUnavailable extends Error {
  constructor(cause?: unknown) {
    super('broker unavailable', { cause });
    this.name = 'BrokerUnavailable';
  }
}

/** What a broker tells the instance it serves; calls come in the order of each channel's bus. */
export interface BrokerSink {
  onEvent(event: EventEnvelope): void;
  /** The head of a subscribed channel, read because events may have been missed. */
  onHead(channel: string, head: Position): void;
}

export interface BrokerHealth {
  up: boolean;
  /** Why it is down, for operators. */
  reason?: string;
}

/**
 * Carries events between instances and keeps those of durable channels.
 *
 * On a durable channel `publish` numbers, stores and announces in one step, so the order of delivery is the order of
 * the ids. Delivery to the sink is at least once in order, or with a hole that `history` can fill or deny.
 * Every method that returns a promise rejects with {@link BrokerUnavailable} within 2 s when the broker is away.
 */
export abstract class Broker {
  /** Starts to serve `sink`; returns at once, `health` tells when the broker has been reached. */
  abstract start(sink: BrokerSink): void;
  abstract isDurable(channel: string): boolean;
  /** Publications of one caller take effect in the order of the calls. */
  abstract publish(publication: Publication): Promise<Published>;
  /** Resolves once every later event of the channel reaches the sink. Asking twice is no error. */
  abstract subscribe(channel: string): Promise<void>;
  /** Releases the subscription, after a while: it may be wanted again at once. */
  abstract unsubscribe(channel: string): void;
  /** Where the channel's live events go on; id 0 where it was never written. Durable channels only. */
  abstract head(channel: string): Promise<Position>;
  /** Stored events after `after`, at most `limit` of them. Durable channels only. */
  abstract history(channel: string, after: Position, limit: number): Promise<History>;
  /** The newest stored events before an id (null: up to the head), oldest first, as many as fit the limits. Durable only. */
  abstract before(channel: string, id: number | null, limits: PageLimits): Promise<HistoryPage>;
  abstract health(): BrokerHealth;
  abstract stop(): Promise<void>;
}
