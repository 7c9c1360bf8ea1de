import type { Action, Rights } from '../core/identity.js';
import { BROADCAST, compilePattern } from '../protocol/names.js';
import { isClaims } from './claims.js';

type Matcher = (name: string) => boolean;

const NOTHING: Matcher = () => false;

/** Patterns from a claim; a claim that is there and makes no sense grants nothing. */
function matcherOf(claim: unknown): Matcher | undefined {
  if (claim === undefined) return undefined;
  if (!Array.isArray(claim)) return NOTHING;
  const matchers = claim
    .filter((pattern): pattern is string => typeof pattern === 'string')
    .map(compilePattern);
  return (name) => matchers.some((matches) => matches(name));
}

/** By action; a claim that is no object grants nothing. */
function roomMatchers(rooms: unknown): Partial<Record<Action, Matcher>> {
  const matchers: Partial<Record<Action, Matcher>> = {};
  for (const action of ['join', 'publish', 'presence', 'history'] as const) {
    const matcher = isClaims(rooms) ? matcherOf(own(rooms, action)) : NOTHING;
    if (matcher !== undefined) matchers[action] = matcher;
  }
  return matchers;
}

function own(claims: object, name: string): unknown {
  return Object.hasOwn(claims, name) ? Reflect.get(claims, name) : undefined;
}

/**
 * The rights in a token: `rooms: {join, publish, presence, history}` with patterns of room names, `direct` with patterns
 * of user ids, `broadcast`. Where it says nothing, the backend or the policy decides.
 */
export class RoomRights implements Rights {
  private readonly rooms: Partial<Record<Action, Matcher>> | null;
  private readonly direct: Matcher | undefined;
  private readonly broadcast: boolean | undefined;

  /** `otherwise` decides what no claim says. */
  constructor(
    claims: object,
    private readonly otherwise: Rights['allows'],
  ) {
    const rooms = own(claims, 'rooms');
    this.rooms = rooms === undefined ? null : roomMatchers(rooms);
    this.direct = matcherOf(own(claims, 'direct'));
    const broadcast = own(claims, 'broadcast');
    this.broadcast = broadcast === undefined ? undefined : broadcast === true;
  }

  /** No claim says anything. */
  get isSilent(): boolean {
    return this.rooms === null && this.direct === undefined && this.broadcast === undefined;
  }

  allows(action: Action, channel: string): boolean | Promise<boolean> {
    return this.claimed(action, channel) ?? this.otherwise(action, channel);
  }

  private claimed(action: Action, channel: string): boolean | undefined {
    if (channel === BROADCAST) return this.broadcast;
    if (channel.startsWith('user:')) return this.direct?.(channel.slice(5));
    return this.rooms?.[action]?.(channel.slice(5));
  }
}
