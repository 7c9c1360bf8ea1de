import { Body, HttpCode, Post, UseInterceptors } from '@nestjs/common';
import { Scope } from '../auth/api-key.guard.js';
import { Settings } from '../config/settings.js';
import type { Revocation } from '../core/control.js';
import { ControlBus, RevocationStore } from '../core/control.js';
import { ApiController } from './api-controller.js';
import { InvalidInput } from '../http/http-errors.js';
import { RevokeDto } from './dto/api.dto.js';
import { IdempotencyInterceptor } from './idempotency.interceptor.js';

/** Taking tokens out of use before they end. */
@ApiController('tokens')
@Scope('control')
@UseInterceptors(IdempotencyInterceptor)
export class TokensController {
  constructor(
    private readonly store: RevocationStore,
    private readonly control: ControlBus,
    private readonly settings: Settings,
  ) {}

  /** Stored first, for instances that start later; then every instance closes what it concerns. */
  @Post('revoke')
  @HttpCode(200)
  async revoke(@Body() body: RevokeDto): Promise<object> {
    const revocation = this.revocationOf(body);
    await this.store.add(revocation);
    await this.control.ask({ kind: 'revoke', revocation });
    return {};
  }

  private revocationOf({
    jti,
    sub,
    expires_at: expiresAtS,
    issued_before: issuedBeforeS,
  }: RevokeDto): Revocation {
    const nowMs = Date.now();
    const untilMs =
      typeof expiresAtS === 'number'
        ? expiresAtS * 1000
        : nowMs + this.settings.REVOCATION_TTL_SECONDS * 1000;
    if (typeof jti === 'string') return { jti, untilMs };
    if (typeof sub === 'string') return { sub, issuedBeforeS: issuedBeforeS ?? nowMs / 1000, untilMs };
    throw new InvalidInput([{ field: 'jti', problem: 'or sub must be given' }]);
  }
}
