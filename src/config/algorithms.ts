import { createPublicKey } from 'node:crypto';
import type { Algorithm } from 'jsonwebtoken';

const RSA_ALGORITHMS: Algorithm[] = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
/** What an issuer's published keys may sign with; never a shared secret. */
export const ASYMMETRIC_ALGORITHMS: Algorithm[] = [...RSA_ALGORITHMS, 'ES256', 'ES384', 'ES512'];
export const HMAC_ALGORITHMS: Algorithm[] = ['HS256', 'HS384', 'HS512'];
const CURVES = new Map<string, Algorithm[]>([
  ['prime256v1', ['ES256']],
  ['secp384r1', ['ES384']],
  ['secp521r1', ['ES512']],
]);

/** The algorithms a token may use with this PEM key, the usual one first. */
export function algorithmsOf(pem: string): Algorithm[] {
  const key = createPublicKey(pem);
  if (key.asymmetricKeyType === 'rsa') return RSA_ALGORITHMS;
  return CURVES.get(key.asymmetricKeyDetails?.namedCurve ?? '') ?? [];
}
