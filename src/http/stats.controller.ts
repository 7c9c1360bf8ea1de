import { Controller, Get, UseGuards } from '@nestjs/common';
import { Instance } from '../config/instance.js';
import { ConnectionsService } from '../connections/connections.service.js';
import type { ClusterTotals } from '../core/presence-store.js';
import { PresenceService } from '../presence/presence.service.js';
import { InternalGuard } from './internal.guard.js';

export interface Stats {
  local_connections: number;
  /** Rooms that connections of this instance are in. */
  rooms: number;
  instance: string;
  uptime_s: number;
  /** Null while Redis is away. */
  cluster: ClusterTotals | null;
}

@Controller()
@UseGuards(InternalGuard)
export class StatsController {
  constructor(
    private readonly connections: ConnectionsService,
    private readonly presence: PresenceService,
    private readonly instance: Instance,
  ) {}

  @Get('stats')
  async read(): Promise<Stats> {
    return {
      local_connections: this.connections.count,
      rooms: this.connections.hub.roomCount,
      instance: this.instance.name,
      uptime_s: this.instance.uptimeSeconds,
      cluster: await this.presence.totals(),
    };
  }
}
