import { Body, Delete, Get, HttpCode, Param, Post, Put, UseInterceptors } from '@nestjs/common';
import { Scope } from '../auth/api-key.guard.js';
import type { ConnectionDescription, ControlCommand } from '../core/control.js';
import { ControlBus } from '../core/control.js';
import { ApiController } from './api-controller.js';
import { DisconnectDto, UserParams, UserRoomParams } from './dto/api.dto.js';
import { IdempotencyInterceptor } from './idempotency.interceptor.js';

interface Counted {
  connections: number;
}

/** A user's connections, on all instances. */
@ApiController('users')
@Scope('control')
@UseInterceptors(IdempotencyInterceptor)
export class UsersController {
  constructor(private readonly control: ControlBus) {}

  @Get(':id')
  @Scope('read')
  async read(
    @Param() { id }: UserParams,
  ): Promise<{ user_id: string; connections: ConnectionDescription[] }> {
    const answers = await this.control.ask({ kind: 'find', userId: id });
    return { user_id: id, connections: answers.flatMap(({ found }) => found ?? []) };
  }

  @Post(':id/disconnect')
  @HttpCode(200)
  disconnect(@Param() { id }: UserParams, @Body() { reason }: DisconnectDto): Promise<Counted> {
    return this.ask({ kind: 'disconnect', userId: id, ...(reason === undefined ? {} : { reason }) });
  }

  @Put(':id/rooms/:room')
  enter(@Param() { id, room }: UserRoomParams): Promise<Counted> {
    return this.ask({ kind: 'enter', userId: id, room });
  }

  @Delete(':id/rooms/:room')
  leave(@Param() { id, room }: UserRoomParams): Promise<Counted> {
    return this.ask({ kind: 'leave', userId: id, room });
  }

  private async ask(command: ControlCommand): Promise<Counted> {
    const answers = await this.control.ask(command);
    return { connections: answers.reduce((total, { connections }) => total + connections, 0) };
  }
}
