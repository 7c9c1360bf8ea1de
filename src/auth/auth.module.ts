import { Module } from '@nestjs/common';
import { ApiKeyGuard } from './api-key.guard.js';
import { AuthorizeHook } from './authorize-hook.js';
import { JwtStrategy } from './jwt.strategy.js';
import { RevocationsService } from './revocations.service.js';
import { RightsService } from './rights.service.js';
import { WsAuthGuard } from './ws-auth.guard.js';

@Module({
  providers: [AuthorizeHook, RightsService, RevocationsService, JwtStrategy, WsAuthGuard, ApiKeyGuard],
  exports: [RightsService, RevocationsService, JwtStrategy, WsAuthGuard, ApiKeyGuard],
})
export class AuthModule {}
