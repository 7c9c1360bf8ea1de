import { Module } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import { Turn } from '../core/turn.js';
import { PresenceModule } from '../presence/presence.module.js';
import { SocketWrites } from '../sockets/socket-writes.js';
import { SocketsModule } from '../sockets/sockets.module.js';
import { ConnectionsService } from './connections.service.js';
import { DrainService } from './drain.service.js';
import { HistoryService } from './history.service.js';
import { PublisherService } from './publisher.service.js';
import { RoomsService } from './rooms.service.js';

@Module({
  imports: [PresenceModule, SocketsModule],
  providers: [
    {
      provide: Turn,
      useFactory: (writes: SocketWrites | null, settings: Settings) =>
        new Turn(writes, settings.DELIVERY_DELAY_MS),
      inject: [SocketWrites, Settings],
    },
    ConnectionsService,
    RoomsService,
    HistoryService,
    PublisherService,
    DrainService,
  ],
  exports: [
    PresenceModule,
    SocketsModule,
    Turn,
    ConnectionsService,
    RoomsService,
    HistoryService,
    PublisherService,
    DrainService,
  ],
})
export class ConnectionsModule {}
