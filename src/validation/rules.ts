import type { ValidationArguments } from 'class-validator';
import { ValidateBy, ValidateIf } from 'class-validator';
import {
  BROADCAST,
  isEventName,
  isRoomName,
  isShort,
  isUserId,
  MAX_EPOCH_LENGTH,
  MAX_REF_LENGTH,
} from '../protocol/names.js';

function rule(
  name: string,
  problem: string,
  holds: (value: unknown, args?: ValidationArguments) => boolean,
): PropertyDecorator {
  return ValidateBy({ name, validator: { validate: holds, defaultMessage: () => `$property ${problem}` } });
}

/** It may be missing; null is a value, and a wrong one. */
export const Optional = (): PropertyDecorator => ValidateIf((_message, value) => value !== undefined);

/** Missing or null: a position is null on an ephemeral channel, and clients hand back what they were given. */
export const Nullable = (): PropertyDecorator =>
  ValidateIf((_message, value) => value !== undefined && value !== null);

/** Any JSON value, null too, but there must be one. */
export const IsContent = (): PropertyDecorator =>
  rule('isContent', 'must be present', (value) => value !== undefined);

export const IsRoomName = (): PropertyDecorator =>
  rule('isRoomName', 'must be 1 to 128 of A-Z a-z 0-9 . _ : @ / -', isRoomName);

export const IsUserId = (): PropertyDecorator =>
  rule('isUserId', 'must be 1 to 128 characters, none of them a control character', isUserId);

export const IsEventName = (): PropertyDecorator =>
  rule('isEventName', 'must be 1 to 64 of A-Z a-z 0-9 . _ : - and not a name the gateway uses', isEventName);

export const IsMessageId = (): PropertyDecorator =>
  rule(
    'isMessageId',
    // An empty one is a client's mistake, and would make doubles of all that it sends.
    `must be a string of 1 to ${MAX_REF_LENGTH} characters`,
    (value) => typeof value === 'string' && value !== '' && isShort(value, MAX_REF_LENGTH),
  );

/** 0 before the first event, up to what a double holds exactly. */
function isEventId(value: unknown): boolean {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

const EVENT_ID = 'must be an integer from 0 to 9007199254740991';

export const IsEventId = (): PropertyDecorator => rule('isEventId', EVENT_ID, isEventId);

export const IsEventIdOrAcked = (): PropertyDecorator =>
  rule('isEventIdOrAcked', `${EVENT_ID}, or "acked"`, (value) => value === 'acked' || isEventId(value));

export const IsEpoch = (): PropertyDecorator =>
  rule(
    'isEpoch',
    `must be a string of at most ${MAX_EPOCH_LENGTH} characters`,
    (value) => typeof value === 'string' && value.length <= MAX_EPOCH_LENGTH,
  );

/** The two fields exclude each other. */
export const NotWith = (other: string): PropertyDecorator =>
  rule('notWith', `must not be given together with ${other}`, (_value, args) => {
    const given: unknown = args === undefined ? undefined : Reflect.get(args.object, other);
    return given === undefined || given === null;
  });

/** `broadcast`, `room:<name>` or `user:<id>`. */
export const IsChannel = (): PropertyDecorator =>
  rule('isChannel', 'must be broadcast, room:<name> or user:<id>', (value) => {
    if (typeof value !== 'string') return false;
    if (value.startsWith('room:')) return isRoomName(value.slice(5));
    return value === BROADCAST || (value.startsWith('user:') && isUserId(value.slice(5)));
  });

/** What fits a close frame (RFC 6455 section 5.5). */
export const IsCloseReason = (): PropertyDecorator =>
  rule(
    'isCloseReason',
    'must be a string of at most 123 bytes',
    (value) => typeof value === 'string' && value.isWellFormed() && Buffer.byteLength(value) <= 123,
  );

/** A cursor that the gateway made: text that stands for one, and says what `holds` asks of it. */
export const IsCursor = (holds: (decoded: string) => boolean): PropertyDecorator =>
  rule('isCursor', 'must be a cursor that an answer had', (value) => {
    if (typeof value !== 'string') return false;
    const decoded = Buffer.from(value, 'base64url').toString('utf8');
    return Buffer.from(decoded, 'utf8').toString('base64url') === value && holds(decoded);
  });
