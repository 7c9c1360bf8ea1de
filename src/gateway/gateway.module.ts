import type { OnModuleInit } from '@nestjs/common';
import { Logger, Module } from '@nestjs/common';
import { AuthModule } from '../auth/auth.module.js';
import { Settings } from '../config/settings.js';
import { ConnectionsModule } from '../connections/connections.module.js';
import { DirectWrites } from './direct-writes.js';
import { Dispatcher } from './dispatch.js';
import { ErrorFilter } from './error.filter.js';
import { MessagePipe } from './message.pipe.js';
import { RealtimeGateway } from './realtime.gateway.js';
import { Upgrade } from './upgrade.js';

@Module({
  imports: [AuthModule, ConnectionsModule],
  providers: [
    RealtimeGateway,
    Dispatcher,
    Upgrade,
    MessagePipe,
    ErrorFilter,
    { provide: DirectWrites, useFactory: directWrites, inject: [Settings] },
  ],
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

/** Null where sockets are written to as streams. */
async function directWrites({ SOCKET_WRITES }: Settings): Promise<DirectWrites | null> {
  if (SOCKET_WRITES === 'stream') return null;
  const proved = await DirectWrites.prove();
  if (typeof proved !== 'string') return proved;
  new Logger('Gateway').warn(`sockets are written to as streams: ${proved}`);
  return null;
}
