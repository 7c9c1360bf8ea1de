import { Module } from '@nestjs/common';
import { AuthModule } from '../auth/auth.module.js';
import { ConnectionsModule } from '../connections/connections.module.js';
import { HttpModule } from '../http/http.module.js';
import { ApiGuard } from './api.guard.js';
import { IdempotencyInterceptor } from './idempotency.interceptor.js';
import { InputPipe } from './input.pipe.js';
import { InstancesController } from './instances.controller.js';
import { PublishController } from './publish.controller.js';
import { RoomsController } from './rooms.controller.js';
import { TokensController } from './tokens.controller.js';
import { UsersController } from './users.controller.js';

/** The HTTP API for backends, `/api/v1`. */
@Module({
  imports: [AuthModule, ConnectionsModule, HttpModule],
  controllers: [PublishController, RoomsController, UsersController, TokensController, InstancesController],
  providers: [ApiGuard, InputPipe, IdempotencyInterceptor],
})
export class ApiModule {}
