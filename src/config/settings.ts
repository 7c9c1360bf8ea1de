import { createPublicKey } from 'node:crypto';
import { plainToInstance, Transform } from 'class-transformer';
import {
  ArrayMaxSize,
  IsBoolean,
  IsIn,
  IsInt,
  IsOptional,
  IsString,
  Matches,
  Max,
  MaxLength,
  Min,
  ValidateBy,
  validateSync,
} from 'class-validator';
import type { Algorithm } from 'jsonwebtoken';
import { isUserId } from '../protocol/names.js';

export type Environment = Readonly<Record<string, string | undefined>>;

/** The environment is not one the gateway can start with; a line for each fault. */
export class SettingsError extends Error {
  constructor(readonly faults: readonly string[]) {
    super(faults.join('\n'));
    this.name = 'SettingsError';
  }
}

export interface ApiKey {
  key: string;
  scopes: ReadonlySet<string>;
}

const MAX_INTERVAL_MS = 2 ** 31 - 1;
const CHANNEL_PATTERNS = 'must be patterns of channels: broadcast, room:..., user:..., * for any characters';
const MIN_SECRET_BYTES = 32;
const API_SCOPES = ['publish', 'read', 'control'];
const KEYS = ['JWT_SECRET', 'JWT_PUBLIC_KEY', 'JWT_JWKS_URI'] as const;
const RSA_ALGORITHMS: Algorithm[] = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
/** What an issuer's published keys may sign with; never a shared secret. */
export const ASYMMETRIC_ALGORITHMS: Algorithm[] = [...RSA_ALGORITHMS, 'ES256', 'ES384', 'ES512'];
const HMAC_ALGORITHMS: Algorithm[] = ['HS256', 'HS384', 'HS512'];
const CURVES = new Map<string, Algorithm[]>([
  ['prime256v1', ['ES256']],
  ['secp384r1', ['ES384']],
  ['secp521r1', ['ES512']],
]);
const LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'];

const text = (value: string): string => value;
const list = (value: string): string[] =>
  value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
const integer = (value: string): number => (/^\d{1,15}$/.test(value) ? Number(value) : Number.NaN);
const flag = (value: string): boolean | string =>
  value === 'true' ? true : value === 'false' ? false : value;
const hops = (value: string): number => (value === 'false' ? 0 : integer(value));

const SETTING_NAMES: string[] = [];

/** Reads the setting from its text; unset or empty it is `unset`, in production `unsetInProduction`. */
function Setting<T>(
  parse: (value: string) => T,
  unset?: T,
  unsetInProduction: T | undefined = unset,
): PropertyDecorator {
  const transform = Transform(({ value, obj }: { value: unknown; obj: Environment }) => {
    if (typeof value === 'string' && value !== '') return parse(value);
    return obj.NODE_ENV === 'production' ? unsetInProduction : unset;
  });
  return (target, property) => {
    SETTING_NAMES.push(String(property));
    transform(target, property);
  };
}

function Check(problem: string, holds: (value: unknown) => boolean, each = false): PropertyDecorator {
  return ValidateBy(
    { name: problem, validator: { validate: holds, defaultMessage: () => `$property ${problem}` } },
    { each },
  );
}

function isHostPort(value: unknown): boolean {
  if (typeof value !== 'string') return false;
  const port = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})$/.exec(value)?.[1];
  return port !== undefined && Number(port) > 0 && Number(port) < 65_536;
}

function isRedisUrl(value: unknown): boolean {
  return typeof value === 'string' && /^rediss?:\/\//.test(value) && URL.canParse(value);
}

function isHttpUrl(value: unknown): boolean {
  return typeof value === 'string' && /^https?:\/\//.test(value) && URL.canParse(value);
}

function isOrigin(value: unknown): boolean {
  return typeof value === 'string' && URL.canParse(value) && new URL(value).origin === value;
}

function isChannelPattern(value: unknown): boolean {
  return typeof value === 'string' && /^(?:room:|user:|broadcast$|[a-z:]*\*)/.test(value);
}

function isPublicKey(value: unknown): boolean {
  try {
    return ['rsa', 'ec'].includes(createPublicKey(String(value)).asymmetricKeyType ?? '');
  } catch {
    // Not a key at all is the same answer as a key of a kind that can't be used.
    return false;
  }
}

/** The algorithms a token may use with this PEM key, the usual one first. */
export function algorithmsOf(pem: string): Algorithm[] {
  const key = createPublicKey(pem);
  if (key.asymmetricKeyType === 'rsa') return RSA_ALGORITHMS;
  return CURVES.get(key.asymmetricKeyDetails?.namedCurve ?? '') ?? [];
}

/** Every setting, as read from the environment; the names are those of the variables. Durations are in the unit of their name. */
export class Settings {
  @Setting(text, 'development')
  @IsIn(['development', 'production', 'test'])
  readonly NODE_ENV: 'development' | 'production' | 'test';

  @Setting(flag, false) @IsBoolean() readonly ALLOW_INSECURE: boolean;
  @Setting(text, '0.0.0.0') @IsString() readonly HOST: string;
  @Setting(integer, 3000) @IsInt() @Max(65_535) readonly PORT: number;
  @Setting(integer) @IsOptional() @IsInt() @Max(65_535) readonly INTERNAL_PORT?: number;

  @Setting(text)
  @IsOptional()
  @Check('must be a redis:// or rediss:// URL', isRedisUrl)
  readonly REDIS_URL?: string;
  @Setting(list)
  @IsOptional()
  @Check('must be host:port,host:port', isHostPort, true)
  readonly REDIS_CLUSTER_NODES?: string[];
  @Setting(list)
  @IsOptional()
  @Check('must be host:port,host:port', isHostPort, true)
  readonly REDIS_SENTINELS?: string[];
  @Setting(text) @IsOptional() @IsString() readonly REDIS_SENTINEL_NAME?: string;

  @Setting(text, 'fanfare')
  @Matches(/^[A-Za-z0-9._-]{1,64}$/, { message: '$property must be 1 to 64 of A-Z a-z 0-9 . _ -' })
  readonly REDIS_PREFIX: string;

  @Setting(text, 'primary') @IsIn(['primary', 'replicated']) readonly DURABILITY: 'primary' | 'replicated';

  @Setting(text, 'optional', 'required')
  @IsIn(['required', 'optional', 'none'])
  readonly AUTH_MODE: 'required' | 'optional' | 'none';

  @Setting(text) @IsOptional() @IsString() readonly JWT_SECRET?: string;

  @Setting((pem) => pem.replaceAll('\\n', '\n'))
  @IsOptional()
  @Check('must be a PEM public key (RSA or EC)', isPublicKey)
  readonly JWT_PUBLIC_KEY?: string;

  @Setting(text)
  @IsOptional()
  @Check('must be an http:// or https:// URL', isHttpUrl)
  readonly JWT_JWKS_URI?: string;
  @Setting(list) @IsOptional() @ArrayMaxSize(10) readonly JWT_ALGORITHMS?: Algorithm[];
  @Setting(text) @IsOptional() @IsString() readonly JWT_ISSUER?: string;
  @Setting(text) @IsOptional() @IsString() readonly JWT_AUDIENCE?: string;
  @Setting(integer, 0) @IsInt() @Max(3_600) readonly JWT_CLOCK_TOLERANCE_S: number;
  @Setting(flag, false, true) @IsBoolean() readonly JWT_REQUIRE_EXP: boolean;

  @Setting(text, 'http') @IsIn(['http', 'close']) readonly AUTH_REJECT: 'http' | 'close';

  @Setting(text)
  @IsOptional()
  @Matches(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/, { message: '$property must be a cookie name' })
  readonly AUTH_COOKIE?: string;

  @Setting(flag, true) @IsBoolean() readonly AUTH_QUERY_TOKEN: boolean;

  @Setting(text, '', 'anon:')
  @MaxLength(64)
  @Check('must hold only what a user id may hold', (value) => value === '' || isUserId(value))
  readonly ANONYMOUS_PREFIX: string;

  @Setting(list)
  @IsOptional()
  @Check('must be origins such as https://app.example.com, comma-separated', isOrigin, true)
  readonly ALLOWED_ORIGINS?: string[];

  @Setting(text, 'open') @IsIn(['open', 'closed']) readonly ROOM_POLICY: 'open' | 'closed';
  @Setting(text)
  @IsOptional()
  @Check('must be an http:// or https:// URL', isHttpUrl)
  readonly AUTHORIZE_URL?: string;
  @Setting(text)
  @IsOptional()
  @Check('must be an http:// or https:// URL', isHttpUrl)
  readonly WEBHOOK_URL?: string;
  @Setting(text) @IsOptional() @IsString() readonly WEBHOOK_SECRET?: string;

  @Setting(integer, 25_000) @IsInt() @Min(50) @Max(MAX_INTERVAL_MS) readonly HEARTBEAT_INTERVAL_MS: number;
  @Setting(integer, 10_000) @IsInt() @Min(50) @Max(MAX_INTERVAL_MS) readonly HEARTBEAT_TIMEOUT_MS: number;
  @Setting(integer, 65_536) @IsInt() @Min(16) @Max(64 * 1024 * 1024) readonly MAX_MESSAGE_BYTES: number;
  @Setting(integer, 0) @IsInt() readonly MAX_CONNECTIONS: number;
  @Setting(integer, 0) @IsInt() readonly MAX_CONNECTIONS_PER_USER: number;
  @Setting(integer, 0) @IsInt() readonly MAX_CONNECTIONS_PER_IP: number;
  @Setting(integer, 100) @IsInt() @Min(1) readonly MAX_ROOMS_PER_CONNECTION: number;
  @Setting(integer, 100) @IsInt() readonly RATE_LIMIT_PER_SECOND: number;
  @Setting(integer, 200) @IsInt() @Min(1) readonly RATE_LIMIT_BURST: number;
  @Setting(integer, 1_048_576) @IsInt() @Min(1_024) readonly SLOW_CONSUMER_BYTES: number;

  @Setting(integer, 1_000) @IsInt() @Min(1) @Max(1_000_000) readonly HISTORY_SIZE: number;
  @Setting(integer, 3_600) @IsInt() @Min(1) @Max(31_536_000) readonly HISTORY_TTL_SECONDS: number;
  @Setting(integer, 300) @IsInt() @Min(1) @Max(2_592_000) readonly IDEMPOTENCY_TTL_SECONDS: number;
  @Setting(integer, 2_592_000) @IsInt() @Min(1) readonly REVOCATION_TTL_SECONDS: number;

  @Setting(list, [])
  @Check(CHANNEL_PATTERNS, isChannelPattern, true)
  readonly EPHEMERAL_CHANNELS: string[];

  @Setting(flag, true, false) @IsBoolean() readonly ANNOUNCE_USERS: boolean;
  @Setting(integer, 1_000) @IsInt() readonly ANNOUNCE_MEMBERS_MAX: number;
  @Setting(integer, 5_000) @IsInt() @Max(600_000) readonly PRESENCE_GRACE_MS: number;
  @Setting(flag, false) @IsBoolean() readonly PERMESSAGE_DEFLATE: boolean;
  @Setting(flag, true) @IsBoolean() readonly READY_NEEDS_BROKER: boolean;
  @Setting(integer, 0, 5_000) @IsInt() @Max(600_000) readonly DRAIN_DELAY_MS: number;
  @Setting(integer, 20_000) @IsInt() @Max(3_600_000) readonly DRAIN_TIMEOUT_MS: number;

  @Setting(apiKeys, [])
  @Check(
    'must be key or key:scope+scope, comma-separated; the scopes are publish, read, control',
    (value) => value !== null,
  )
  readonly API_KEYS: ApiKey[];

  @Setting(text) @IsOptional() @IsString() readonly INBOUND_STREAM?: string;
  @Setting(list)
  @IsOptional()
  @Check(CHANNEL_PATTERNS, isChannelPattern, true)
  readonly INBOUND_CHANNELS?: string[];
  @Setting(integer, 1_000_000) @IsInt() @Min(1) readonly INBOUND_MAXLEN: number;

  @Setting(hops, 0)
  @IsInt({ message: '$property must be false or the number of proxies in front' })
  @Max(32)
  readonly TRUST_PROXY: number;

  @Setting(flag, true, false) @IsBoolean() readonly PLAYGROUND: boolean;
  @Setting(text, 'info') @IsIn(LEVELS) readonly LOG_LEVEL: string;

  get isProduction(): boolean {
    return this.NODE_ENV === 'production';
  }

  get usesRedis(): boolean {
    return (this.REDIS_URL ?? this.REDIS_CLUSTER_NODES ?? this.REDIS_SENTINELS) !== undefined;
  }
}

function apiKeys(value: string): ApiKey[] | null {
  const keys: ApiKey[] = [];
  for (const item of list(value)) {
    const [key = '', scopes, ...rest] = item.split(':');
    const names = scopes === undefined ? API_SCOPES : scopes.split('+');
    if (key === '' || rest.length > 0 || !names.every((name) => API_SCOPES.includes(name))) return null;
    if (keys.some((other) => other.key === key)) return null;
    keys.push({ key, scopes: new Set(names) });
  }
  return keys;
}

/** What no single setting can say: settings that need or exclude each other, of those that are right by themselves. */
function conflicts(settings: Settings, isWrong: (name: string) => boolean): string[] {
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
  const allowed = isWrong('JWT_PUBLIC_KEY') ? [] : allowedAlgorithms(settings);
  demand(
    ['JWT_ALGORITHMS', 'JWT_PUBLIC_KEY'],
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

/** Reads and checks every setting. Throws {@link SettingsError}. */
export function readSettings(environment: Environment): Settings {
  const known = plainToInstance(Settings, withAllKeys(environment), { exposeUnsetFields: true });
  const errors = validateSync(known, { forbidUnknownValues: true });
  const faults = errors.map(
    ({ property, constraints = {} }) =>
      constraints.isInt ?? Object.values(constraints)[0] ?? `${property} is not valid`,
  );
  const wrong = new Set(errors.map(({ property }) => property));
  faults.push(...conflicts(known, (name) => wrong.has(name)));
  if (faults.length > 0) throw new SettingsError(faults);
  return known;
}

/** class-transformer only visits keys that exist, and the defaults come from visiting. */
function withAllKeys(environment: Environment): Record<string, string | undefined> {
  return Object.fromEntries(SETTING_NAMES.map((name) => [name, environment[name]]));
}
