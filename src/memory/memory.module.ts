import type { OnApplicationShutdown } from '@nestjs/common';
import { Module } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import { AckedPositions } from '../core/acked-positions.js';
import { Broker } from '../core/broker.js';
import { ChannelRules } from '../core/channel-rules.js';
import { ControlBus, IdempotencyStore, RevocationStore } from '../core/control.js';
import { PresenceStore } from '../core/presence-store.js';
import { MemoryAckedPositions } from './memory-acked-positions.js';
import { MemoryBroker } from './memory-broker.js';
import { MemoryControl, MemoryIdempotency, MemoryRevocations } from './memory-control.js';
import { MemoryPresence } from './memory-presence.js';

/** The embedded broker and presence store: one instance, nothing to install. */
@Module({
  providers: [
    {
      provide: MemoryBroker,
      inject: [Settings],
      useFactory: (settings: Settings) =>
        new MemoryBroker(new ChannelRules(settings.EPHEMERAL_CHANNELS), {
          historySize: settings.HISTORY_SIZE,
          historyTtlMs: settings.HISTORY_TTL_SECONDS * 1000,
          idempotencyTtlMs: settings.IDEMPOTENCY_TTL_SECONDS * 1000,
        }),
    },
    { provide: Broker, useExisting: MemoryBroker },
    { provide: ControlBus, useClass: MemoryControl },
    { provide: RevocationStore, useClass: MemoryRevocations },
    {
      provide: IdempotencyStore,
      inject: [Settings],
      useFactory: (settings: Settings) => new MemoryIdempotency(settings.IDEMPOTENCY_TTL_SECONDS * 1000),
    },
    {
      provide: AckedPositions,
      inject: [Broker],
      useFactory: (broker: Broker) => new MemoryAckedPositions(broker),
    },
    {
      provide: PresenceStore,
      inject: [MemoryBroker, Settings],
      useFactory: (broker: MemoryBroker, settings: Settings) =>
        new MemoryPresence(broker, {
          announceUsers: settings.ANNOUNCE_USERS,
          announceMembersMax: settings.ANNOUNCE_MEMBERS_MAX,
        }),
    },
  ],
  exports: [Broker, PresenceStore, AckedPositions, ControlBus, RevocationStore, IdempotencyStore],
})
export class MemoryModule implements OnApplicationShutdown {
  constructor(
    private readonly broker: Broker,
    private readonly presence: PresenceStore,
  ) {}

  async onApplicationShutdown(): Promise<void> {
    await this.presence.stop();
    await this.broker.stop();
  }
}
