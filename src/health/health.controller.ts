import { Controller, Get } from '@nestjs/common';
import type { HealthCheckResult, HealthIndicatorResult } from '@nestjs/terminus';
import { HealthCheck, HealthCheckService, HealthIndicatorService } from '@nestjs/terminus';
import { Settings } from '../config/settings.js';
import { DrainService } from '../connections/drain.service.js';
import { Broker } from '../core/broker.js';

/** The probes of Kubernetes and of load balancers. */
@Controller('health')
export class HealthController {
  private brokerReached = false;

  constructor(
    private readonly checks: HealthCheckService,
    private readonly indicators: HealthIndicatorService,
    private readonly broker: Broker,
    private readonly drain: DrainService,
    private readonly settings: Settings,
  ) {}

  /** The event loop answers; never depends on Redis. */
  @Get('live')
  @HealthCheck()
  live(): Promise<HealthCheckResult> {
    return this.checks.check([]);
  }

  /** Send traffic here: not draining, and events come through. */
  @Get('ready')
  @HealthCheck()
  ready(): Promise<HealthCheckResult> {
    return this.checks.check([() => this.drainIndicator(), () => this.brokerIndicator()]);
  }

  /** Settings and keys are read (else the process would have ended), and the broker was reached once. */
  @Get('startup')
  @HealthCheck()
  startup(): Promise<HealthCheckResult> {
    return this.checks.check([() => this.startIndicator()]);
  }

  private drainIndicator(): HealthIndicatorResult {
    const indicator = this.indicators.check('drain');
    return this.drain.isDraining ? indicator.down({ message: 'draining' }) : indicator.up();
  }

  private brokerIndicator(): HealthIndicatorResult {
    const indicator = this.indicators.check('broker');
    const { up, reason } = this.broker.health();
    if (up) return indicator.up();
    const message = reason ?? 'not started';
    return this.settings.READY_NEEDS_BROKER
      ? indicator.down({ message })
      : indicator.up({ degraded: true, message });
  }

  private startIndicator(): HealthIndicatorResult {
    const indicator = this.indicators.check('broker');
    this.brokerReached ||= this.broker.health().up;
    return this.brokerReached
      ? indicator.up()
      : indicator.down({ message: 'the broker was not reached yet' });
  }
}
