import type { OnApplicationShutdown } from '@nestjs/common';
import { Module } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import { AckedPositions } from '../core/acked-positions.js';
import { Broker } from '../core/broker.js';
import { ChannelRules } from '../core/channel-rules.js';
import { ControlBus, IdempotencyStore, RevocationStore } from '../core/control.js';
import { Inbound, NoInbound } from '../core/inbound.js';
import { PresenceStore } from '../core/presence-store.js';
import { WebhookOutbox } from '../core/webhook-outbox.js';
import { MemoryAckedPositions } from './memory-acked-positions.js';
import { MemoryBroker } from './memory-broker.js';
import { MemoryControl, MemoryIdempotency, MemoryRevocations } from './memory-control.js';
import { MemoryPresence } from './memory-presence.js';
import { MemoryWebhookOutbox } from './memory-webhook-outbox.js';

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
    MemoryWebhookOutbox,
    { provide: WebhookOutbox, useExisting: MemoryWebhookOutbox },
    { provide: Inbound, useClass: NoInbound },
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
      inject: [MemoryBroker, MemoryWebhookOutbox, Settings],
      useFactory: (broker: MemoryBroker, webhooks: MemoryWebhookOutbox, settings: Settings) =>
        new MemoryPresence(broker, {
          announceUsers: settings.ANNOUNCE_USERS,
          announceMembersMax: settings.ANNOUNCE_MEMBERS_MAX,
          ...(settings.WEBHOOK_URL === undefined ? {} : { webhooks }),
        }),
    },
  ],
  exports: [
    Broker,
    PresenceStore,
    AckedPositions,
    ControlBus,
    RevocationStore,
    IdempotencyStore,
    WebhookOutbox,
    Inbound,
  ],
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
