import type { Algorithm } from 'jsonwebtoken';
import { algorithmsOf, ASYMMETRIC_ALGORITHMS, HMAC_ALGORITHMS } from './algorithms.js';
import type { Settings } from './settings.js';

/** With a key that can't be read. */
const ANY_ALGORITHM: readonly Algorithm[] = [...HMAC_ALGORITHMS, ...ASYMMETRIC_ALGORITHMS];
const MIN_SECRET_BYTES = 32;
const KEYS = ['JWT_SECRET', 'JWT_PUBLIC_KEY', 'JWT_JWKS_URI'] as const;

/** What no single setting can say: settings that need or exclude each other, of those that are right by themselves. */
export function conflicts(settings: Settings, isWrong: (name: string) => boolean): string[] {
  const faults: string[] = [];
  const demand = (names: readonly (keyof Settings)[], holds: () => boolean, fault: string): void => {
    if (!names.some(isWrong) && !holds()) faults.push(fault);
  };
  const stores = ['REDIS_URL', 'REDIS_CLUSTER_NODES', 'REDIS_SENTINELS'] as const;
  demand(
    stores,
    () => stores.filter((name) => settings[name] !== undefined).length <= 1,
    'REDIS_URL, REDIS_CLUSTER_NODES and REDIS_SENTINELS exclude each other',
  );
  demand(
    ['REDIS_SENTINELS', 'REDIS_SENTINEL_NAME'],
    () => (settings.REDIS_SENTINELS === undefined) === (settings.REDIS_SENTINEL_NAME === undefined),
    'REDIS_SENTINELS and REDIS_SENTINEL_NAME need each other',
  );
  demand(
    ['DURABILITY', ...stores],
    () =>
      settings.DURABILITY === 'primary' || (settings.usesRedis && settings.REDIS_CLUSTER_NODES === undefined),
    'DURABILITY=replicated needs REDIS_URL or REDIS_SENTINELS',
  );
  demand(
    ['INBOUND_STREAM', ...stores],
    () => settings.INBOUND_STREAM === undefined || settings.usesRedis,
    'INBOUND_STREAM needs Redis',
  );
  demand(
    ['PORT', 'INTERNAL_PORT'],
    () =>
      settings.INTERNAL_PORT === undefined ||
      settings.INTERNAL_PORT === 0 ||
      settings.INTERNAL_PORT !== settings.PORT,
    'INTERNAL_PORT must not be PORT',
  );
  demand(
    ['WEBHOOK_URL', 'WEBHOOK_SECRET'],
    () => settings.WEBHOOK_URL === undefined || settings.WEBHOOK_SECRET !== undefined,
    'WEBHOOK_URL needs a WEBHOOK_SECRET',
  );
  demand(
    KEYS,
    () => KEYS.filter((name) => settings[name] !== undefined).length <= 1,
    'JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URI exclude each other',
  );
  const allowed = isWrong('JWT_PUBLIC_KEY') ? ANY_ALGORITHM : allowedAlgorithms(settings);
  demand(
    ['JWT_ALGORITHMS'],
    () => settings.JWT_ALGORITHMS?.every((name) => allowed.includes(name)) ?? true,
    `JWT_ALGORITHMS must be of ${allowed.join(', ')} with this key`,
  );
  if (settings.isProduction) demandInProduction(settings, demand);
  return faults;
}

function allowedAlgorithms({ JWT_PUBLIC_KEY, JWT_JWKS_URI }: Settings): readonly Algorithm[] {
  if (JWT_JWKS_URI !== undefined) return ASYMMETRIC_ALGORITHMS;
  return JWT_PUBLIC_KEY === undefined ? HMAC_ALGORITHMS : algorithmsOf(JWT_PUBLIC_KEY);
}

function demandInProduction(
  settings: Settings,
  demand: (names: readonly (keyof Settings)[], holds: () => boolean, fault: string) => void,
): void {
  demand(
    ['AUTH_MODE', 'ALLOW_INSECURE'],
    () => settings.AUTH_MODE !== 'none' || settings.ALLOW_INSECURE,
    'AUTH_MODE must not be none in production (ALLOW_INSECURE=true allows it)',
  );
  demand(
    ['AUTH_MODE', 'JWT_SECRET', 'JWT_PUBLIC_KEY', 'JWT_JWKS_URI'],
    () =>
      settings.AUTH_MODE === 'none' ||
      (settings.JWT_SECRET ?? settings.JWT_PUBLIC_KEY ?? settings.JWT_JWKS_URI) !== undefined,
    'JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URI is needed in production',
  );
  demand(
    ['JWT_JWKS_URI'],
    () =>
      settings.JWT_JWKS_URI === undefined ||
      settings.JWT_JWKS_URI.startsWith('https:') ||
      settings.ALLOW_INSECURE,
    'JWT_JWKS_URI must be https:// in production (ALLOW_INSECURE=true allows http)',
  );
  demand(
    ['JWT_SECRET'],
    () => settings.JWT_SECRET === undefined || Buffer.byteLength(settings.JWT_SECRET) >= MIN_SECRET_BYTES,
    `JWT_SECRET must have at least ${MIN_SECRET_BYTES} bytes in production`,
  );
}
