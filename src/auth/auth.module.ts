import { Module } from '@nestjs/common';
import { ApiKeyGuard } from './api-key.guard.js';
import { JwtStrategy } from './jwt.strategy.js';
import { WsAuthGuard } from './ws-auth.guard.js';

@Module({
  providers: [JwtStrategy, WsAuthGuard, ApiKeyGuard],
  exports: [JwtStrategy, WsAuthGuard, ApiKeyGuard],
})
export class AuthModule {}
