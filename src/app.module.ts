import type { DynamicModule } from '@nestjs/common';
import { Module } from '@nestjs/common';
import { ApiModule } from './api/api.module.js';
import { BrokerModule } from './broker/broker.module.js';
import type { Settings } from './config/settings.js';
import { SettingsModule } from './config/settings.module.js';
import { ControlModule } from './control/control.module.js';
import { GatewayModule } from './gateway/gateway.module.js';
import { HealthModule } from './health/health.module.js';
import { HttpModule } from './http/http.module.js';
import { MetricsModule } from './metrics/metrics.module.js';
import { WebhooksModule } from './webhooks/webhooks.module.js';

@Module({})
export class AppModule {
  static with(settings: Settings): DynamicModule {
    return {
      module: AppModule,
      imports: [
        SettingsModule.of(settings),
        MetricsModule,
        BrokerModule.of(settings),
        GatewayModule,
        ControlModule,
        ApiModule,
        WebhooksModule,
        HealthModule,
        HttpModule,
      ],
    };
  }
}
