import type { OnModuleInit } from '@nestjs/common';
import { Module } from '@nestjs/common';
import { AuthModule } from '../auth/auth.module.js';
import { ConnectionsModule } from '../connections/connections.module.js';
import { Dispatcher } from './dispatch.js';
import { ErrorFilter } from './error.filter.js';
import { MessagePipe } from './message.pipe.js';
import { RealtimeGateway } from './realtime.gateway.js';
import { Upgrade } from './upgrade.js';

@Module({
  imports: [AuthModule, ConnectionsModule],
  providers: [RealtimeGateway, Dispatcher, Upgrade, MessagePipe, ErrorFilter],
})
export class GatewayModule implements OnModuleInit {
  constructor(
    private readonly dispatcher: Dispatcher,
    private readonly gateway: RealtimeGateway,
  ) {}

  onModuleInit(): void {
    this.dispatcher.register(this.gateway);
  }
}
