import type { DynamicModule } from '@nestjs/common';
import { Module } from '@nestjs/common';
import type { Settings } from '../config/settings.js';
import { MemoryModule } from '../memory/memory.module.js';
import { RedisModule } from '../redis/redis.module.js';

/** Chooses between the two brokers, by the settings. */
@Module({})
export class BrokerModule {
  static of(settings: Settings): DynamicModule {
    const chosen = settings.usesRedis ? RedisModule.register() : MemoryModule;
    return { module: BrokerModule, global: true, imports: [chosen], exports: [chosen] };
  }
}
