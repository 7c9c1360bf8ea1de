/** What a token says, in its header or in its payload. */
export type Claims = Readonly<Record<string, unknown>>;

/** An array is none: who writes the names of rooms as `rooms` means to grant those, not all. */
export function isClaims(value: unknown): value is Claims {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
