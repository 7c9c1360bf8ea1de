import { Injectable } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import type { Rights } from '../core/identity.js';
import { AuthorizeHook } from './authorize-hook.js';
import { RoomRights } from './room-rights.js';

/** Makes a user's rights: what the token says, else what the backend answers, else the policy. */
@Injectable()
export class RightsService {
  /** One for all users. */
  private readonly policy: Rights['allows'];

  constructor(
    private readonly hook: AuthorizeHook,
    { ROOM_POLICY }: Settings,
  ) {
    this.policy = () => ROOM_POLICY === 'open';
  }

  of(userId: string, claims: object): Rights {
    if (this.hook.isSet)
      return new RoomRights(claims, (action, channel) => this.hook.allows(userId, action, channel));
    return new RoomRights(claims, this.policy);
  }
}
