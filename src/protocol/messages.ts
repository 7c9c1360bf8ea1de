import type { ErrorEvent } from './errors.js';

/** Where a reader stands in a channel: the last `id` it saw and the `epoch` that id belongs to. */
export interface Position {
  readonly epoch: string;
  /** 0 before the first event, then one higher from event to event. */
  readonly id: number;
}

/** Text that is known to be one JSON value; made only by `jsonText`. */
export type JsonText = string & { readonly jsonText: unique symbol };

/** The one place where a value becomes wire text. `value` must come from JSON or from our own code. */
export function jsonText(value: unknown): JsonText {
  return JSON.stringify(value) as JsonText;
}

export type Ref = string | number;

export interface ConnectedEvent {
  event: 'connected';
  connection_id: string;
  user_id: string;
  instance: string;
  last_event_id: number | null;
  epoch: string | null;
  last_direct_event_id: number | null;
  direct_epoch: string | null;
  recovered: boolean;
  heartbeat_ms: number;
  max_message_bytes: number;
}

export interface JoinedRoomReply {
  event: 'joined_room';
  room: string;
  last_event_id: number | null;
  epoch: string | null;
  recovered: boolean;
  replayed: number;
}

export interface LeftRoomReply {
  event: 'left_room';
  room: string;
}

export interface PresenceMember {
  user_id: string;
  name?: string;
  connections: number;
}

export interface PresenceReply {
  event: 'presence';
  room: string;
  /** Users in the room over all instances, not only those on this page. */
  count: number;
  members: PresenceMember[];
  /** Absent on the last page. */
  cursor?: string;
}

export interface AckReply {
  event: 'ack';
  /** Absent on an ephemeral channel. */
  id?: number | undefined;
  duplicate?: true | undefined;
}

export interface PongReply {
  event: 'pong';
}

/** A direct answer to one message; the dispatcher adds its `ref`. */
export type Reply = JoinedRoomReply | LeftRoomReply | PresenceReply | AckReply | PongReply;

export interface GapEvent {
  event: 'gap';
  room?: string;
  direct?: true;
  /** Events after `after` and before `next` can't be had any more. */
  after: number;
  next: number;
  epoch: string;
}

export interface ReconnectEvent {
  event: 'reconnect';
  reason: string;
  after_ms: number;
}

/** What the gateway itself says to one connection (published events never take this form: they are text already). */
export type ServerEvent = ConnectedEvent | (Reply & { ref?: Ref }) | ErrorEvent | GapEvent | ReconnectEvent;
