import {
  IsContent,
  IsEventName,
  IsMessageId,
  IsRoomName,
  IsUserId,
  Optional,
} from '../../validation/rules.js';

/** What every message that publishes may carry. */
export class PublishDto {
  @IsContent() content: unknown;
  @Optional() @IsEventName() event?: string;
  @Optional() @IsMessageId() message_id?: string;
}

export class ChatDto extends PublishDto {
  @Optional() @IsRoomName() room?: string;
}

export class RoomMessageDto extends PublishDto {
  @IsRoomName() room: string;
}

export class DirectMessageDto extends PublishDto {
  @IsUserId() target_user: string;
}
