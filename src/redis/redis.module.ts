import type { DynamicModule, OnApplicationShutdown } from '@nestjs/common';
import { Module } from '@nestjs/common';
import { Instance } from '../config/instance.js';
import { Settings } from '../config/settings.js';
import { AckedPositions } from '../core/acked-positions.js';
import { Broker } from '../core/broker.js';
import { ChannelRules } from '../core/channel-rules.js';
import { ControlBus, IdempotencyStore, RevocationStore } from '../core/control.js';
import { Inbound, NoInbound } from '../core/inbound.js';
import { PresenceStore } from '../core/presence-store.js';
import { Telemetry } from '../core/telemetry.js';
import { WebhookOutbox } from '../core/webhook-outbox.js';
import { RedisAckedPositions } from './redis-acked-positions.js';
import { RedisBroker } from './redis-broker.js';
import { RedisClients } from './redis-clients.js';
import { RedisControl } from './redis-control.js';
import { RedisIdempotency } from './redis-idempotency.js';
import { RedisInbound } from './redis-inbound.js';
import { RedisKeys } from './redis-keys.js';
import { RedisPresence } from './redis-presence.js';
import { RedisRevocations } from './redis-revocations.js';
import { RedisWebhookOutbox } from './redis-webhook-outbox.js';

/** The broker and the presence store over Redis. */
@Module({})
export class RedisModule implements OnApplicationShutdown {
  constructor(
    private readonly clients: RedisClients,
    private readonly broker: Broker,
    private readonly presence: PresenceStore,
  ) {}

  static register(): DynamicModule {
    return {
      module: RedisModule,
      providers: [
        RedisClients,
        {
          provide: RedisKeys,
          inject: [Settings],
          useFactory: (settings: Settings) => new RedisKeys(settings.REDIS_PREFIX),
        },
        {
          provide: RedisBroker,
          inject: [RedisClients, RedisKeys, Settings, Instance, Telemetry],
          useFactory: (
            clients: RedisClients,
            keys: RedisKeys,
            settings: Settings,
            instance: Instance,
            telemetry: Telemetry,
          ) =>
            new RedisBroker(
              clients,
              keys,
              new ChannelRules(settings.EPHEMERAL_CHANNELS),
              {
                instance: instance.name,
                announceUsers: settings.ANNOUNCE_USERS,
                replicated: settings.DURABILITY === 'replicated',
                historySize: settings.HISTORY_SIZE,
                historyTtlMs: settings.HISTORY_TTL_SECONDS * 1000,
                idempotencyTtlMs: settings.IDEMPOTENCY_TTL_SECONDS * 1000,
              },
              telemetry,
            ),
        },
        { provide: Broker, useExisting: RedisBroker },
        {
          provide: ControlBus,
          inject: [RedisBroker],
          useFactory: ({ calls }: RedisBroker) => new RedisControl(calls),
        },
        {
          provide: RevocationStore,
          inject: [RedisClients, RedisKeys],
          useFactory: (clients: RedisClients, keys: RedisKeys) => new RedisRevocations(clients, keys),
        },
        {
          provide: IdempotencyStore,
          inject: [RedisClients, RedisKeys, Settings],
          useFactory: (clients: RedisClients, keys: RedisKeys, settings: Settings) =>
            new RedisIdempotency(clients, keys, settings.IDEMPOTENCY_TTL_SECONDS * 1000),
        },
        {
          provide: WebhookOutbox,
          inject: [RedisClients, RedisKeys, Telemetry],
          useFactory: (clients: RedisClients, keys: RedisKeys, telemetry: Telemetry) =>
            new RedisWebhookOutbox(clients, keys, telemetry),
        },
        {
          provide: Inbound,
          inject: [RedisClients, Settings],
          useFactory: (
            clients: RedisClients,
            { INBOUND_STREAM, INBOUND_CHANNELS, INBOUND_MAXLEN }: Settings,
          ) =>
            INBOUND_STREAM === undefined
              ? new NoInbound()
              : new RedisInbound(clients, {
                  stream: INBOUND_STREAM,
                  channels: INBOUND_CHANNELS,
                  maxLength: INBOUND_MAXLEN,
                }),
        },
        {
          provide: AckedPositions,
          inject: [RedisClients, RedisKeys],
          useFactory: (clients: RedisClients, keys: RedisKeys) => new RedisAckedPositions(clients, keys),
        },
        {
          provide: PresenceStore,
          inject: [RedisClients, RedisKeys, Settings, Instance],
          useFactory: (clients: RedisClients, keys: RedisKeys, settings: Settings, instance: Instance) =>
            new RedisPresence(clients, keys, {
              instance: instance.name,
              announceUsers: settings.ANNOUNCE_USERS,
              announceMembersMax: settings.ANNOUNCE_MEMBERS_MAX,
              graceMs: settings.PRESENCE_GRACE_MS,
              webhooks: settings.WEBHOOK_URL !== undefined,
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
    };
  }

  /** Last of all: the drain has closed every connection and released presence by now. */
  async onApplicationShutdown(): Promise<void> {
    await this.presence.stop();
    await this.broker.stop();
    this.clients.disconnect();
  }
}
