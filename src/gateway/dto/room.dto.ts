import { IsInt, IsString, Max, MaxLength, Min } from 'class-validator';
import { IsRoomName, Optional } from './rules.js';

const MAX_PRESENCE_LIMIT = 1_000;
/** A cursor is a user id of at most 128 code points, encoded. */
const MAX_CURSOR_LENGTH = 1_024;

export class RoomDto {
  @IsRoomName() room: string;
}

export class PresenceDto extends RoomDto {
  @Optional() @IsInt() @Min(1) @Max(MAX_PRESENCE_LIMIT) limit?: number;
  @Optional() @IsString() @MaxLength(MAX_CURSOR_LENGTH) cursor?: string;
}
