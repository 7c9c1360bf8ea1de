import { ValidateBy, ValidateIf } from 'class-validator';
import { isEventName, isRoomName, isUserId, MAX_REF_LENGTH } from '../../protocol/names.js';

function rule(name: string, problem: string, holds: (value: unknown) => boolean): PropertyDecorator {
  return ValidateBy({ name, validator: { validate: holds, defaultMessage: () => `$property ${problem}` } });
}

/** Not there, or null: clients hand back what they were given, and that may be null. */
export const Optional = (): PropertyDecorator =>
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
    `must be a string of 1 to ${MAX_REF_LENGTH} characters`,
    (value) => typeof value === 'string' && value.length > 0 && value.length <= MAX_REF_LENGTH,
  );
