import { IsIn, IsInt, Max, Min } from 'class-validator';
import { isUserId } from '../../protocol/names.js';
import {
  IsCursor,
  IsEpoch,
  IsEventId,
  IsEventIdOrAcked,
  IsRoomName,
  NotWith,
  Nullable,
  Optional,
} from '../../validation/rules.js';

const MAX_PRESENCE_LIMIT = 1_000;
const MAX_LIMIT = 100;

export class RoomDto {
  @IsRoomName() room: string;
}

export class JoinRoomDto extends RoomDto {
  @Nullable() @IsEventIdOrAcked() last_event_id?: number | 'acked';
  @Nullable() @IsEpoch() epoch?: string;
  @Optional() @NotWith('last_event_id') @IsInt() @Min(1) @Max(MAX_LIMIT) rewind?: number;
}

export class PresenceDto extends RoomDto {
  @Optional() @IsInt() @Min(1) @Max(MAX_PRESENCE_LIMIT) limit?: number;
  @Optional() @IsCursor(isUserId) cursor?: string;
}

export class HistoryDto extends RoomDto {
  @Nullable() @IsEventId() before?: number | null;
  @Optional() @IsInt() @Min(1) @Max(MAX_LIMIT) limit?: number;
}

export class AckEventsDto {
  @Optional() @IsRoomName() room?: string;
  @Optional() @NotWith('room') @IsIn([true]) direct?: true;
  @IsEventId() last_event_id: number;
  @Nullable() @IsEpoch() epoch?: string;
}
