/** The grammar of names on the wire. Everything that reaches a Redis key has passed through here. */

const ROOM = /^[A-Za-z0-9._:@/-]{1,128}$/;
const EVENT = /^[A-Za-z0-9._:-]{1,64}$/;
// eslint-disable-next-line no-control-regex -- control characters are exactly what is refused
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

export const MAX_USER_ID_CODE_POINTS = 128;
/** Also the longest `message_id`. */
export const MAX_REF_LENGTH = 64;
/** Ours are shorter; anything up to this is only another epoch. */
export const MAX_EPOCH_LENGTH = 128;

/** Event names that only the gateway itself may use. */
const RESERVED_EVENTS: ReadonlySet<string> = new Set([
  'connected',
  'user_connected',
  'user_disconnected',
  'text',
  'user_joined',
  'user_left',
  'joined_room',
  'left_room',
  'presence',
  'history',
  'pong',
  'ack',
  'error',
  'gap',
  'reconnect',
]);

export function isRoomName(value: unknown): value is string {
  return typeof value === 'string' && ROOM.test(value);
}

/** 1 to 128 code points, well formed, no control characters. */
export function isUserId(value: unknown): value is string {
  if (typeof value !== 'string' || value.length === 0 || value.length > 2 * MAX_USER_ID_CODE_POINTS)
    return false;
  if (!value.isWellFormed() || CONTROL.test(value)) return false;
  return value.length <= MAX_USER_ID_CODE_POINTS || Array.from(value).length <= MAX_USER_ID_CODE_POINTS;
}

/** A name that a client may give its events: the grammar, and none of the gateway's own. */
export function isEventName(value: unknown): value is string {
  return typeof value === 'string' && EVENT.test(value) && !RESERVED_EVENTS.has(value);
}

/** At most so many characters: code points, as people count. */
export function isShort(value: string, maxCharacters: number): boolean {
  if (value.length <= maxCharacters) return true;
  return value.length <= 2 * maxCharacters && Array.from(value).length <= maxCharacters;
}

export function isRef(value: unknown): value is string | number {
  if (typeof value === 'string') return isShort(value, MAX_REF_LENGTH);
  return Number.isSafeInteger(value);
}

export type ChannelName = 'broadcast' | `room:${string}` | `user:${string}`;

export const BROADCAST = 'broadcast' satisfies ChannelName;

export function roomChannel(room: string): ChannelName {
  return `room:${room}`;
}

export function userChannel(userId: string): ChannelName {
  return `user:${userId}`;
}

/** What a message or reply about `channel` carries: its room, `direct: true`, or neither for broadcast. */
export function channelFields(channel: string): { room?: string; direct?: true } {
  if (channel.startsWith('room:')) return { room: channel.slice(5) };
  return channel === BROADCAST ? {} : { direct: true };
}

/** `*` stands for any run of characters; everything else for itself. */
export function compilePattern(pattern: string): (value: string) => boolean {
  const parts = pattern.split('*');
  if (parts.length === 1) return (value) => value === pattern;
  const first = parts[0] ?? '';
  const last = parts[parts.length - 1] ?? '';
  const middle = parts.slice(1, -1).filter((part) => part !== '');
  // Greedy left to right, no backtracking: linear for any pattern that a token can carry.
  return (value) => {
    if (value.length < first.length + last.length) return false;
    if (!value.startsWith(first) || !value.endsWith(last)) return false;
    let at = first.length;
    const end = value.length - last.length;
    for (const part of middle) {
      const found = value.indexOf(part, at);
      if (found === -1 || found + part.length > end) return false;
      at = found + part.length;
    }
    return true;
  };
}
