import { Module } from '@nestjs/common';
import { AuthModule } from '../auth/auth.module.js';
import { ConnectionsModule } from '../connections/connections.module.js';
import { DescriptionsController } from './descriptions.controller.js';
import { InternalGuard, InternalPortGuard } from './internal.guard.js';
import { Listeners } from './listeners.js';
import { MetricsController } from './metrics.controller.js';
import { StatsController } from './stats.controller.js';

/** What operators read over HTTP, on the public or the internal port. */
@Module({
  imports: [AuthModule, ConnectionsModule],
  controllers: [StatsController, MetricsController, DescriptionsController],
  providers: [Listeners, InternalGuard, InternalPortGuard],
  exports: [Listeners, InternalPortGuard],
})
export class HttpModule {}
