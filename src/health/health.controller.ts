import { Controller, Get, HttpException } from '@nestjs/common';
import { JwtStrategy } from '../auth/jwt.strategy.js';
import { Settings } from '../config/settings.js';
import { DrainService } from '../connections/drain.service.js';
import { Broker } from '../core/broker.js';

interface Indicator {
  status: 'up' | 'down';
  message?: string;
  degraded?: true;
}

/** The shape of @nestjs/terminus, which itself would report a draining instance as dead. */
export interface HealthReport {
  status: 'ok' | 'error';
  info: Record<string, Indicator>;
  error: Record<string, Indicator>;
  details: Record<string, Indicator>;
}

/** The probes of Kubernetes and of load balancers: 200, or 503 with the reasons. */
@Controller('health')
export class HealthController {
  private brokerReached = false;

  constructor(
    private readonly broker: Broker,
    private readonly drain: DrainService,
    private readonly tokens: JwtStrategy,
    private readonly settings: Settings,
  ) {}

  /** The event loop answers; depends on nothing else, so that no drain and no outage gets the process killed. */
  @Get('live')
  live(): HealthReport {
    return report({});
  }

  /** Send traffic here: not draining, and events come through. */
  @Get('ready')
  ready(): HealthReport {
    return report({ drain: this.drainIndicator(), broker: this.brokerIndicator() });
  }

  /** Settings are read (else the process would have ended), keys too, and the broker was reached once. */
  @Get('startup')
  startup(): HealthReport {
    this.brokerReached ||= this.broker.health().up;
    return report({
      broker: this.brokerReached
        ? { status: 'up' }
        : { status: 'down', message: 'the broker was not reached yet' },
      keys: this.tokens.isReady
        ? { status: 'up' }
        : { status: 'down', message: 'the keys were not read yet' },
    });
  }

  private drainIndicator(): Indicator {
    return this.drain.isDraining ? { status: 'down', message: 'draining' } : { status: 'up' };
  }

  private brokerIndicator(): Indicator {
    const { up, reason } = this.broker.health();
    if (up) return { status: 'up' };
    const message = reason ?? 'not started';
    return this.settings.READY_NEEDS_BROKER
      ? { status: 'down', message }
      : { status: 'up', degraded: true, message };
  }
}

function report(details: Record<string, Indicator>): HealthReport {
  const having = (status: Indicator['status']): Record<string, Indicator> =>
    Object.fromEntries(Object.entries(details).filter(([, indicator]) => indicator.status === status));
  const error = having('down');
  const status = Object.keys(error).length === 0 ? 'ok' : 'error';
  const body: HealthReport = { status, info: having('up'), error, details };
  if (status === 'error') throw new HttpException(body, 503);
  return body;
}
