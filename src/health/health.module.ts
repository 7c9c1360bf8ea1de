import { Module } from '@nestjs/common';
import { ConnectionsModule } from '../connections/connections.module.js';
import { HealthController } from './health.controller.js';

@Module({
  imports: [ConnectionsModule],
  controllers: [HealthController],
})
export class HealthModule {}
