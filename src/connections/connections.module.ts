import { Module } from '@nestjs/common';
import { Turn } from '../core/turn.js';
import { PresenceModule } from '../presence/presence.module.js';
import { ConnectionsService } from './connections.service.js';
import { DrainService } from './drain.service.js';
import { HistoryService } from './history.service.js';
import { PublisherService } from './publisher.service.js';
import { RoomsService } from './rooms.service.js';

@Module({
  imports: [PresenceModule],
  providers: [Turn, ConnectionsService, RoomsService, HistoryService, PublisherService, DrainService],
  exports: [
    PresenceModule,
    Turn,
    ConnectionsService,
    RoomsService,
    HistoryService,
    PublisherService,
    DrainService,
  ],
})
export class ConnectionsModule {}
