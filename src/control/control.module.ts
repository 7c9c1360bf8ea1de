import { Module } from '@nestjs/common';
import { AuthModule } from '../auth/auth.module.js';
import { ConnectionsModule } from '../connections/connections.module.js';
import { ControlService } from './control.service.js';

/** What backends may do to the connections of all instances. */
@Module({
  imports: [AuthModule, ConnectionsModule],
  providers: [ControlService],
})
export class ControlModule {}
