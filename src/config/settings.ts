import { plainToInstance } from 'class-transformer';
import {
  ArrayMinSize,
  IsBoolean,
  IsIn,
  IsInt,
  IsOptional,
  IsString,
  Matches,
  Max,
  MaxLength,
  Min,
  validateSync,
} from 'class-validator';
import type { Algorithm } from 'jsonwebtoken';
import { isUserId } from '../protocol/names.js';
import type { ApiKey, Environment } from './setting.js';
import { apiKeys, Check, flag, hops, integer, list, Setting, SETTING_NAMES, text } from './setting.js';
import {
  isChannelPattern,
  isHostPort,
  isHttpUrl,
  isOrigin,
  isPublicKey,
  isRedisUrl,
  isWebhookSecret,
} from './setting-checks.js';
import { conflicts } from './setting-conflicts.js';

/** The environment is not one the gateway can start with; a line for each fault. */
export class SettingsError extends Error {
  constructor(readonly faults: readonly string[]) {
    super(faults.join('\n'));
    this.name = 'SettingsError';
  }
}

const MAX_INTERVAL_MS = 2 ** 31 - 1;
const CHANNEL_PATTERNS = 'must be patterns of channels: broadcast, room:..., user:..., * for any characters';
const LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'];

/** Every setting, as read from the environment; the names are those of the variables. Durations are in the unit of their name. */
export class Settings {
  @Setting(text, 'development')
  @IsIn(['development', 'production', 'test'])
  readonly NODE_ENV: 'development' | 'production' | 'test';

  @Setting(flag, false) @IsBoolean() readonly ALLOW_INSECURE: boolean;
  @Setting(text, '0.0.0.0')
  @Matches(/^[A-Za-z0-9.:_-]+$/, { message: '$property must be an address or a host name' })
  readonly HOST: string;
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
  @Setting(list)
  @IsOptional()
  @ArrayMinSize(1)
  readonly JWT_ALGORITHMS?: Algorithm[];
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
  @Setting(text)
  @IsOptional()
  @Check('must be a text, or whsec_ and base64 of at least 24 bytes', isWebhookSecret)
  readonly WEBHOOK_SECRET?: string;

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
  @Setting(integer, 0) @IsInt() @Max(1_000) readonly DELIVERY_DELAY_MS: number;
  @Setting(flag, false) @IsBoolean() readonly PERMESSAGE_DEFLATE: boolean;
  @Setting(text, 'ring')
  @IsIn(['ring', 'batch', 'direct', 'stream'])
  readonly SOCKET_WRITES: 'ring' | 'batch' | 'direct' | 'stream';

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
