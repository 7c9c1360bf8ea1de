import type { IncomingMessage } from 'node:http';
import { Injectable } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { JwtStrategy } from '../auth/jwt.strategy.js';
import { RevocationsService } from '../auth/revocations.service.js';
import { RightsService } from '../auth/rights.service.js';
import { Settings } from '../config/settings.js';
import type { ResumeRequest } from '../connections/connections.service.js';
import { ConnectionsService } from '../connections/connections.service.js';
import { DrainService } from '../connections/drain.service.js';
import { Broker } from '../core/broker.js';
import type { Identity } from '../core/identity.js';
import type { CloseCode } from '../protocol/close-codes.js';
import { CLOSE } from '../protocol/close-codes.js';
import { isUserId } from '../protocol/names.js';
import { UpgradeRefused } from './upgrade-refused.js';
import {
  clientAddress,
  cookie,
  isOwnOrigin,
  readRoute,
  readSubprotocols,
  resumeRequest,
} from './upgrade-request.js';
import type { Query, UpgradeRoute } from './upgrade-request.js';

export interface Admission {
  identity: Identity;
  /** Empty where no limit needs it. */
  address: string;
  plainText: 'never' | 'otherwise' | 'always';
  resume: ResumeRequest;
}

/** Decides about an upgrade, completely, before it is accepted. Nothing it returns keeps the request alive. */
@Injectable()
export class Upgrade {
  constructor(
    private readonly settings: Settings,
    private readonly tokens: JwtStrategy,
    private readonly revocations: RevocationsService,
    private readonly rights: RightsService,
    private readonly connections: ConnectionsService,
    private readonly drain: DrainService,
    private readonly broker: Broker,
  ) {}

  /** Throws {@link UpgradeRefused}, or rejects with it. A promise only where somebody has to be asked about the token. */
  decide(request: IncomingMessage): Admission | Promise<Admission> {
    const { MAX_CONNECTIONS_PER_IP, TRUST_PROXY } = this.settings;
    const address = MAX_CONNECTIONS_PER_IP > 0 ? clientAddress(request, TRUST_PROXY) : '';
    this.checkCapacity();
    const route = readRoute(request);
    const protocols = readSubprotocols(request);
    this.checkOrigin(request);
    this.checkAddress(address);
    const identity = this.identify(request, route, protocols.token);
    if (!(identity instanceof Promise)) return this.admit(identity, route, address);
    return identity.then((known) => {
      // Others may have come while the token was verified.
      this.checkCapacity();
      this.checkAddress(address);
      return this.admit(known, route, address);
    });
  }

  private admit(identity: Identity, route: UpgradeRoute, address: string): Admission {
    if (this.connections.ofEachUser.isReached(identity.userId)) {
      throw new UpgradeRefused(429, 'Too many connections of this user.');
    }
    if (!this.broker.health().up || !this.revocations.isLoaded) {
      throw new UpgradeRefused(503, 'The message broker is out of reach.');
    }
    const texts = route.kind === 'user' ? (route.query.frames === 'text' ? 'always' : 'otherwise') : 'never';
    return { identity, address, plainText: texts, resume: resumeRequest(route.query) };
  }

  private checkCapacity(): void {
    if (this.drain.isClosing) throw new UpgradeRefused(503, 'The instance is shutting down.');
    const { MAX_CONNECTIONS } = this.settings;
    if (MAX_CONNECTIONS > 0 && this.connections.count >= MAX_CONNECTIONS) {
      throw new UpgradeRefused(503, 'The instance is full.');
    }
  }

  private checkAddress(address: string): void {
    if (this.connections.ofEachAddress.isReached(address)) {
      throw new UpgradeRefused(429, 'Too many connections from this address.');
    }
  }

  private checkOrigin(request: IncomingMessage): void {
    const { origin } = request.headers;
    if (origin !== undefined && !this.allowsOrigin(origin, request))
      throw new UpgradeRefused(403, 'The Origin is not allowed.');
  }

  private allowsOrigin(origin: string, request: IncomingMessage): boolean {
    const { ALLOWED_ORIGINS, isProduction } = this.settings;
    if (ALLOWED_ORIGINS !== undefined) return ALLOWED_ORIGINS.includes(origin);
    return !isProduction || isOwnOrigin(origin, request);
  }

  private identify(
    request: IncomingMessage,
    route: UpgradeRoute,
    protocolToken: string | null,
  ): Identity | Promise<Identity> {
    const { AUTH_MODE } = this.settings;
    const needed = route.kind === 'secure' || AUTH_MODE === 'required';
    const token =
      AUTH_MODE === 'none' && !needed ? null : this.findToken(request, route.query, protocolToken);
    if (token === null) {
      if (needed) throw this.unauthorized();
      return this.anonymous(route);
    }
    if (!this.tokens.isReady) throw new UpgradeRefused(503, 'The keys of tokens were not read yet.');
    const identity = this.tokens.identify(token);
    return identity instanceof Promise
      ? identity.then((known) => this.forRoute(known, route))
      : this.forRoute(identity, route);
  }

  /** Who a token is of, if that is who may come this way. */
  private forRoute(identity: Identity | null, route: UpgradeRoute): Identity {
    if (identity === null || identity.expiresAtMs <= Date.now()) throw this.unauthorized();
    if (route.kind === 'user' && identity.userId !== route.userId) {
      throw new UpgradeRefused(403, 'The token is for another user.', this.closing(CLOSE.forbidden));
    }
    return identity;
  }

  /** The first of the four places that has one; an empty one counts as none. */
  private findToken(request: IncomingMessage, query: Query, protocolToken: string | null): string | null {
    const { AUTH_COOKIE, AUTH_QUERY_TOKEN } = this.settings;
    const bearer = /^Bearer +(\S+)\s*$/i.exec(request.headers.authorization ?? '')?.[1];
    if (bearer !== undefined) return bearer;
    if (protocolToken !== null) return protocolToken;
    // A cookie is sent by the browser whatever page asks: only a page of an allowed Origin may use it.
    const fromCookie =
      AUTH_COOKIE === undefined || request.headers.origin === undefined ? '' : cookie(request, AUTH_COOKIE);
    if (fromCookie !== '') return fromCookie;
    return AUTH_QUERY_TOKEN && query.token !== undefined && query.token !== '' ? query.token : null;
  }

  private anonymous(route: UpgradeRoute): Identity {
    const { ANONYMOUS_PREFIX } = this.settings;
    const given = route.kind === 'user' ? route.userId : route.query.client_id;
    const userId = ANONYMOUS_PREFIX + (given ?? randomUUID());
    if (given === '' || !isUserId(userId)) throw new UpgradeRefused(400, 'The user id is not valid.');
    return { userId, name: undefined, rights: this.rights.of(userId, {}), expiresAtMs: Infinity };
  }

  /** The same for every token that is missing or not valid, whatever is wrong with it. */
  private unauthorized(): UpgradeRefused {
    return new UpgradeRefused(401, 'A valid token is needed.', this.closing(CLOSE.unauthorized));
  }

  private closing(code: CloseCode): CloseCode | null {
    return this.settings.AUTH_REJECT === 'close' ? code : null;
  }
}
