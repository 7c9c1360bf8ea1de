import { createHmac, generateKeyPairSync, sign as signBytes, type KeyObject } from 'node:crypto';
import jsonwebtoken from 'jsonwebtoken';

/** At least 32 bytes, as production demands. */
export const secret = 'a secret for tests, more than thirty-two bytes long';

/** An HS256 token of `sub` that lives an hour, unless the claims say otherwise; one that is undefined is left out. */
export function token(sub: string, claims: object = {}, key: string = secret): string {
  const payload = Object.entries({ sub, exp: inSeconds(3600), ...claims }).filter(
    ([, value]) => value !== undefined,
  );
  return jsonwebtoken.sign(Object.fromEntries(payload), key, { algorithm: 'HS256' });
}

/** Seconds since 1970, `seconds` from now. */
export function inSeconds(seconds: number): number {
  return Math.floor(Date.now() / 1000) + seconds;
}

/** A token of any header and payload, valid or not: a string is taken as the part's bytes. */
export function forge(
  header: object | string,
  payload: unknown,
  key: string | KeyObject = secret,
  algorithm: 'sha256' | 'sha384' | 'sha512' = 'sha256',
): string {
  const signed = `${part(header)}.${part(payload)}`;
  const signature =
    typeof key === 'string'
      ? createHmac(algorithm, key).update(signed).digest()
      : signBytes(algorithm, Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' });
  return `${signed}.${signature.toString('base64url')}`;
}

export function part(value: unknown): string {
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
}

export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicPem: string;
}

export function rsaKeys(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { privateKey, publicPem: publicKey.export({ type: 'spki', format: 'pem' }).toString() };
}

export function ecKeys(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { privateKey, publicPem: publicKey.export({ type: 'spki', format: 'pem' }).toString() };
}
