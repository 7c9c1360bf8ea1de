import type { KeyObject } from 'node:crypto';
import { createPublicKey, createSecretKey } from 'node:crypto';
import type { OnApplicationShutdown } from '@nestjs/common';
import { Injectable } from '@nestjs/common';
import type { Algorithm } from 'jsonwebtoken';
import { Strategy } from 'passport-jwt';
import { algorithmsOf, ASYMMETRIC_ALGORITHMS } from '../config/algorithms.js';
import { Settings } from '../config/settings.js';
import type { Identity } from '../core/identity.js';
import { isUserId } from '../protocol/names.js';
import type { Claims } from './claims.js';
import { isClaims } from './claims.js';
import { JwksKeys } from './jwks-keys.js';
import { RevocationsService } from './revocations.service.js';
import { RightsService } from './rights.service.js';

/** Longer tokens are refused unread. */
const MAX_TOKEN_LENGTH = 4_096;
const MAX_NAME_LENGTH = 256;

type KeyTaker = (error: Error | null, key?: Buffer) => void;

interface TokenRequest {
  token: string;
}

/** What passport makes of a strategy for one request. */
interface TokenAttempt {
  success(claims: unknown): void;
  fail(): void;
  error(): void;
  authenticate(request: TokenRequest): void;
}

/**
 * Verifies tokens with passport-jwt, and makes an identity of one. Keys are key objects: a string would be parsed again
 * for every token, which costs twenty times the verification.
 */
@Injectable()
export class JwtStrategy implements OnApplicationShutdown {
  private readonly strategy: Strategy | null;
  private readonly issuerKeys: JwksKeys | null;
  /** The last header that had nothing critical, as it was in the token: those of an issuer are all the same. */
  private plainHeader: string | null = null;

  constructor(
    private readonly settings: Settings,
    private readonly revocations: RevocationsService,
    private readonly rights: RightsService,
  ) {
    const { JWT_JWKS_URI } = settings;
    this.issuerKeys = JWT_JWKS_URI === undefined ? null : new JwksKeys(JWT_JWKS_URI);
    this.issuerKeys?.read();
    const key = keyOf(settings);
    this.strategy = key === null && this.issuerKeys === null ? null : this.strategyFor(key);
  }

  /** False while the issuer's keys were never read: no token can be verified yet. */
  get isReady(): boolean {
    return this.issuerKeys?.isReady ?? true;
  }

  onApplicationShutdown(): void {
    this.issuerKeys?.stop();
  }

  /**
   * Who the token says it is; null for any token that is not valid, whatever the reason. A promise only where the issuer
   * is asked for the key: a handshake that waits for nobody needs none.
   */
  identify(token: string): Identity | null | Promise<Identity | null> {
    if (this.strategy === null || token.length > MAX_TOKEN_LENGTH || !this.hasPlainHeader(token)) return null;
    const claims = this.verify(this.strategy, token);
    return claims instanceof Promise ? claims.then((read) => this.validOf(read)) : this.validOf(claims);
  }

  /** `crit` names extensions that must be understood (RFC 7515 section 4.1.11); none is. Unreadable headers are refused too. */
  private hasPlainHeader(token: string): boolean {
    const text = token.slice(0, token.indexOf('.'));
    if (text === this.plainHeader) return true;
    const header = headerOf(token);
    if (header === null || Object.hasOwn(header, 'crit')) return false;
    // A copy: a part of the token would keep all of it in memory.
    this.plainHeader = Buffer.from(text, 'latin1').toString('latin1');
    return true;
  }

  private strategyFor(key: KeyObject | null): Strategy {
    const { JWT_ALGORITHMS, JWT_ISSUER, JWT_AUDIENCE, JWT_CLOCK_TOLERANCE_S } = this.settings;
    const algorithms = JWT_ALGORITHMS ?? defaultAlgorithms(this.settings);
    return new Strategy(
      {
        jwtFromRequest: (request: unknown) => (isTokenRequest(request) ? request.token : null),
        secretOrKeyProvider: (_request, token, done) => this.provideKey(key, token, done),
        algorithms,
        ...(JWT_ISSUER === undefined ? {} : { issuer: JWT_ISSUER }),
        ...(JWT_AUDIENCE === undefined ? {} : { audience: JWT_AUDIENCE }),
        jsonWebTokenOptions: { clockTolerance: JWT_CLOCK_TOLERANCE_S },
      },
      (claims: unknown, done: (error: null, claims: unknown) => void) => done(null, claims),
    );
  }

  private provideKey(key: KeyObject | null, token: unknown, done: KeyTaker): void {
    if (key !== null || this.issuerKeys === null) handOver(key, done);
    else void this.issuerKeys.find(keyIdOf(token)).then((found) => handOver(found, done), done);
  }

  /** Runs the strategy as passport does: on an object of its own that gets the outcome, in most cases before this returns. */
  private verify(strategy: Strategy, token: string): Claims | null | Promise<Claims | null> {
    let outcome: Claims | null | undefined;
    let settle = (claims: Claims | null): void => {
      outcome = claims;
    };
    const attempt: TokenAttempt = Object.create(strategy);
    attempt.success = (claims: unknown) => settle(isClaims(claims) ? claims : null);
    attempt.fail = () => settle(null);
    // For what the strategy's own callback throws, and that one throws nothing.
    attempt.error = () => settle(null);
    attempt.authenticate({ token });
    if (outcome !== undefined) return outcome;
    return new Promise((resolve) => {
      settle = resolve;
    });
  }

  private validOf(claims: Claims | null): Identity | null {
    const identity = claims === null ? null : this.identityOf(claims);
    return identity === null || this.revocations.isRevoked(identity) ? null : identity;
  }

  private identityOf(claims: Claims): Identity | null {
    const { sub, name, exp, jti, iat } = claims;
    const { ANONYMOUS_PREFIX, JWT_REQUIRE_EXP, JWT_CLOCK_TOLERANCE_S } = this.settings;
    if (!isUserId(sub) || (ANONYMOUS_PREFIX !== '' && sub.startsWith(ANONYMOUS_PREFIX))) return null;
    // `1e999` is JSON, and no time.
    if (!isTime(exp) && (exp !== undefined || JWT_REQUIRE_EXP)) return null;
    return {
      userId: sub,
      name: typeof name === 'string' && name !== '' && name.length <= MAX_NAME_LENGTH ? name : undefined,
      rights: this.rights.of(sub, claims),
      token: {
        id: typeof jti === 'string' ? jti : undefined,
        issuedAtS: typeof iat === 'number' ? iat : undefined,
      },
      expiresAtMs: exp === undefined ? Infinity : (exp + JWT_CLOCK_TOLERANCE_S) * 1000,
    };
  }
}

function isTime(claim: unknown): claim is number {
  return typeof claim === 'number' && Number.isFinite(claim);
}

function keyOf({ JWT_SECRET, JWT_PUBLIC_KEY }: Settings): KeyObject | null {
  if (JWT_SECRET !== undefined) return createSecretKey(Buffer.from(JWT_SECRET, 'utf8'));
  return JWT_PUBLIC_KEY === undefined ? null : createPublicKey(JWT_PUBLIC_KEY);
}

function handOver(key: KeyObject | null, done: KeyTaker): void {
  try {
    if (key === null) done(new Error('no such key'));
    else done(null, forLibrary(key));
  } catch (error) {
    // jsonwebtoken looks into the payload before it knows that there is one: `null` is JSON too.
    done(error instanceof Error ? error : new Error('unreadable token'));
  }
}

/** The types know strings and buffers only; jsonwebtoken takes key objects. */
function forLibrary(key: KeyObject): Buffer {
  return key as unknown as Buffer;
}

function defaultAlgorithms({ JWT_PUBLIC_KEY, JWT_JWKS_URI }: Settings): Algorithm[] {
  if (JWT_PUBLIC_KEY !== undefined) return algorithmsOf(JWT_PUBLIC_KEY).slice(0, 1);
  return JWT_JWKS_URI === undefined ? ['HS256'] : ASYMMETRIC_ALGORITHMS;
}

function keyIdOf(token: unknown): string | undefined {
  const header = typeof token === 'string' ? headerOf(token) : null;
  return header !== null && typeof header.kid === 'string' ? header.kid : undefined;
}

function headerOf(token: string): Claims | null {
  try {
    const header: unknown = JSON.parse(
      Buffer.from(token.slice(0, token.indexOf('.')), 'base64url').toString('utf8'),
    );
    return isClaims(header) ? header : null;
  } catch {
    // What is not JSON is no header, and the token is refused for it.
    return null;
  }
}

function isTokenRequest(request: unknown): request is TokenRequest {
  return (
    typeof request === 'object' && request !== null && 'token' in request && typeof request.token === 'string'
  );
}
