/** What one instance asks all of them to do, itself included. */
export type ControlCommand =
  | { kind: 'disconnect'; userId: string; reason?: string }
  | { kind: 'enter'; userId: string; room: string }
  | { kind: 'leave'; userId: string; room: string }
  | { kind: 'find'; userId: string }
  | { kind: 'revoke'; revocation: Revocation }
  | { kind: 'describe' };

/** A token that is refused from now on: one by its `jti`, or all of a user that were issued before a time. */
export type Revocation =
  { jti: string; untilMs: number } | { sub: string; issuedBeforeS: number; untilMs: number };

export interface ConnectionDescription {
  connection_id: string;
  instance: string;
  rooms: string[];
  /** Wall-clock ms. */
  connected_at: number;
}

export interface InstanceDescription {
  instance: string;
  connections: number;
  /** Wall-clock ms. */
  started_at: number;
}

/** What one instance did or has. */
export interface ControlAnswer {
  /** Connections that the command was about. */
  connections: number;
  found?: ConnectionDescription[];
  instance?: InstanceDescription;
}

/** Reaches every live instance. */
export abstract class ControlBus {
  /** Carries out what comes, from this instance too. */
  abstract start(carryOut: (command: ControlCommand) => Promise<ControlAnswer>): void;
  /** The answers of all instances; one that is dying may be missing. Rejects with `BrokerUnavailable`. */
  abstract ask(command: ControlCommand): Promise<ControlAnswer[]>;
}

/** Keeps revocations for instances that start, or were away, when one was made. */
export abstract class RevocationStore {
  /** Rejects with `BrokerUnavailable`: it is not in force then. */
  abstract add(revocation: Revocation): Promise<void>;
  /** Those still in force. */
  abstract load(): Promise<Revocation[]>;
  /** Calls when the stored ones should be loaded (again): at the start and after the store was away. */
  abstract watch(onStale: () => void): void;
}

/** An earlier call's answer under the same key. */
export type Claim =
  /** Nobody has acted yet: the caller does, then finishes or abandons. */
  | { kind: 'first' }
  /** Somebody is acting. */
  | { kind: 'pending' }
  | { kind: 'done'; answer: string }
  /** The key was used for another request. */
  | { kind: 'conflict' };

/** Remembers answers by idempotency key. Rejects with `BrokerUnavailable`. */
export abstract class IdempotencyStore {
  abstract claim(key: string, fingerprint: string): Promise<Claim>;
  abstract finish(key: string, fingerprint: string, answer: string): Promise<void>;
  abstract abandon(key: string): Promise<void>;
}
