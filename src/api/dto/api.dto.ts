import {
  ArrayMaxSize,
  IsArray,
  IsInt,
  IsNumber,
  IsPositive,
  IsString,
  Length,
  Max,
  Min,
} from 'class-validator';
import {
  IsChannel,
  IsCloseReason,
  IsContent,
  IsCursor,
  IsEventId,
  IsEventName,
  IsMessageId,
  IsRoomName,
  IsUserId,
  NotWith,
  Optional,
} from '../../validation/rules.js';
import { isRoomName, isUserId } from '../../protocol/names.js';

const MAX_BATCH = 1_000;
const MAX_PAGE = 1_000;
const MAX_HISTORY = 100;
const MAX_TOKEN_ID_LENGTH = 256;

/** Where a page of rooms ended: a name, over Redis after its partition. */
function isRoomsCursor(decoded: string): boolean {
  return isRoomName(decoded.replace(/^\d{1,3} /, ''));
}

export class PublicationDto {
  @IsChannel() channel: string;
  @IsContent() content: unknown;
  @Optional() @IsEventName() event?: string;
  @Optional() @IsUserId() from?: string;
  @Optional() @IsMessageId() message_id?: string;
  @Optional() @IsString() @Length(1, 64) exclude_connection?: string;
}

export class BatchDto {
  @IsArray() @ArrayMaxSize(MAX_BATCH) messages: unknown[];
}

export class RoomParams {
  @IsRoomName() room: string;
}

export class UserParams {
  @IsUserId() id: string;
}

export class UserRoomParams extends UserParams {
  @IsRoomName() room: string;
}

export class MembersQuery {
  @Optional() @IsInt() @Min(1) @Max(MAX_PAGE) limit?: number;
  @Optional() @IsCursor(isUserId) cursor?: string;
}

export class RoomsQuery {
  @Optional() @IsInt() @Min(1) @Max(MAX_PAGE) limit?: number;
  @Optional() @IsCursor(isRoomsCursor) cursor?: string;
}

export class HistoryQuery {
  @Optional() @IsEventId() before?: number;
  @Optional() @IsInt() @Min(1) @Max(MAX_HISTORY) limit?: number;
}

export class DisconnectDto {
  /** Sent in the close frame. */
  @Optional() @IsCloseReason() reason?: string;
}

export class RevokeDto {
  @Optional() @IsString() @Length(1, MAX_TOKEN_ID_LENGTH) jti?: string;
  @Optional() @NotWith('jti') @IsUserId() sub?: string;
  /** Seconds. */
  @Optional() @IsNumber() @IsPositive() expires_at?: number;
  /** Seconds. */
  @Optional() @IsNumber() @Min(0) issued_before?: number;
}
