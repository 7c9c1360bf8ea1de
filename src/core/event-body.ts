import type { JsonText } from '../protocol/messages.js';
import { jsonText } from '../protocol/messages.js';
import type { EventEnvelope } from './broker.js';

export interface ChatFields {
  /** The event name its receivers see. */
  event: string;
  from: string | undefined;
  content: unknown;
  room?: string;
  direct?: true;
  messageId?: string;
}

/**
 * The JSON text of a published event, made once at the publisher's instance and never parsed again. Without its closing
 * brace: the id, which the broker gives, comes last.
 */
export function chatBody(fields: ChatFields, tsMs: number): string {
  const { event, from, content, room, direct, messageId } = fields;
  let body = `{"event":${jsonText(event)}`;
  if (from !== undefined) body += `,"from":${jsonText(from)}`;
  if (room !== undefined) body += `,"room":${jsonText(room)}`;
  if (direct) body += ',"direct":true';
  const value: JsonText = jsonText(content);
  body += `,"content":${value},"ts":${tsMs}`;
  if (messageId !== undefined) body += `,"message_id":${jsonText(messageId)}`;
  return body;
}

/** A stored event as the JSON object its readers get. */
export function eventText({ body, position }: EventEnvelope): string {
  return `${body.toString('utf8')}${position === null ? '' : `,"id":${position.id}`}}`;
}

export function textBody(sender: string, text: string, tsMs: number): string {
  return `{"event":"text","sender":${jsonText(sender)},"text":${jsonText(text)},"ts":${tsMs}`;
}
