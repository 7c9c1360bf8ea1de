import type { CanActivate, ExecutionContext } from '@nestjs/common';
import { Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { Connection } from '../core/connection.js';
import type { Action } from '../core/identity.js';
import { BROADCAST, isRoomName, isUserId, roomChannel, userChannel } from '../protocol/names.js';

export interface Requirement {
  action: Action;
  /** The channel a message is about; null where its fields are wrong, which validation will say. */
  channel: (message: Readonly<Record<string, unknown>>) => string | null;
}

/** The right that a message type needs (section "Rights" of PROTOCOL.md). */
export const Requires = Reflector.createDecorator<Requirement>();

function room(message: Readonly<Record<string, unknown>>): string | null {
  return isRoomName(message.room) ? roomChannel(message.room) : null;
}

/** Channels as messages name them. */
export const channelOf = {
  room,
  roomOrBroadcast: (message: Readonly<Record<string, unknown>>): string | null =>
    message.room === undefined ? BROADCAST : room(message),
  target: (message: Readonly<Record<string, unknown>>): string | null =>
    isUserId(message.target_user) ? userChannel(message.target_user) : null,
  broadcast: (): string => BROADCAST,
};

/** Refuses what the connection's user has no right to; says nothing about whether the room or user exists. */
@Injectable()
export class WsAuthGuard implements CanActivate {
  private readonly requirements = new Map<object, Requirement | undefined>();

  constructor(private readonly reflector: Reflector) {}

  canActivate(context: ExecutionContext): boolean | Promise<boolean> {
    const requirement = this.requirementOf(context.getHandler());
    if (requirement === undefined) return true;
    const ws = context.switchToWs();
    const channel = requirement.channel(ws.getData<Readonly<Record<string, unknown>>>());
    if (channel === null) return true;
    const { identity } = ws.getClient<Connection>();
    return identity.rights.allows(requirement.action, channel);
  }

  /** Handlers are few, and what was written above them does not change. */
  private requirementOf(handler: ReturnType<ExecutionContext['getHandler']>): Requirement | undefined {
    if (!this.requirements.has(handler))
      this.requirements.set(handler, this.reflector.get(Requires, handler));
    return this.requirements.get(handler);
  }
}
