import { Global, Module } from '@nestjs/common';
import { Telemetry } from '../core/telemetry.js';
import { MetricsService } from './metrics.service.js';

/** The counters, for everybody; `/metrics` itself is served with the other endpoints for operators. */
@Global()
@Module({
  providers: [MetricsService, { provide: Telemetry, useExisting: MetricsService }],
  exports: [MetricsService, Telemetry],
})
export class MetricsModule {}
