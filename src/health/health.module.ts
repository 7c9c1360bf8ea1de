import { Module } from '@nestjs/common';
import { AuthModule } from '../auth/auth.module.js';
import { ConnectionsModule } from '../connections/connections.module.js';
import { HealthController } from './health.controller.js';

@Module({
  imports: [AuthModule, ConnectionsModule],
  controllers: [HealthController],
})
export class HealthModule {}
