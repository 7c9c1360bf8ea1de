import { Controller, Get, Header, UseGuards } from '@nestjs/common';
import { InternalGuard } from './internal.guard.js';
import { MetricsService } from '../metrics/metrics.service.js';

@Controller()
@UseGuards(InternalGuard)
export class MetricsController {
  constructor(private readonly metrics: MetricsService) {}

  @Get('metrics')
  @Header('Content-Type', 'text/plain; version=0.0.4; charset=utf-8')
  read(): Promise<string> {
    return this.metrics.registry.metrics();
  }
}
