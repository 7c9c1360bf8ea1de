import { Injectable } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import type { Rights } from '../core/identity.js';
import { AuthorizeHook } from './authorize-hook.js';
import { RoomRights } from './room-rights.js';

/** Makes a user's rights: what the token says, else what the backend answers, else the policy. */
@Injectable()
export class RightsService {
  private readonly policy: Rights['allows'];
  /** One for all users whose token says nothing. */
  private readonly common: Rights;

  constructor(
    private readonly hook: AuthorizeHook,
    { ROOM_POLICY }: Settings,
  ) {
    this.policy = () => ROOM_POLICY === 'open';
    this.common = new RoomRights({}, this.policy);
  }

  of(userId: string, claims: object): Rights {
    if (this.hook.isSet)
      return new RoomRights(claims, (action, channel) => this.hook.allows(userId, action, channel));
    const rights = new RoomRights(claims, this.policy);
    return rights.isSilent ? this.common : rights;
  }
}
