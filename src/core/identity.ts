export type Action = 'join' | 'publish' | 'presence' | 'history';

/** What a user may do; the auth module gives it a body. A promise where somebody has to be asked; it never rejects. */
export interface Rights {
  allows(action: Action, channel: string): boolean | Promise<boolean>;
}

/** Who is at the far end of a connection, as the upgrade or a later `auth` message established it. */
export interface Identity {
  userId: string;
  name: string | undefined;
  rights: Rights;
  /** Wall-clock milliseconds at which the token ends; Infinity where nothing ends it. */
  expiresAtMs: number;
  /** What a token can be revoked by; absent without a token. `issuedAtS` is in seconds, as in the token. */
  token?: { id: string | undefined; issuedAtS: number | undefined };
}
