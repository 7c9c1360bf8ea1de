import { generateKeyPairSync } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import type { Environment } from '../../src/config/setting.js';
import { algorithmsOf } from '../../src/config/algorithms.js';
import { readSettings, Settings, SettingsError } from '../../src/config/settings.js';
import { ecKeys, rsaKeys } from '../support/tokens.js';

const secret = 'exactly thirty-two bytes, please';
const production = { NODE_ENV: 'production', JWT_SECRET: secret };
const rsa = rsaKeys().publicPem;
const ec = ecKeys().publicPem;

/** What is wrong with an environment, a line each. */
function faultsOf(environment: Environment): readonly string[] {
  try {
    readSettings(environment);
    return [];
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    if (error.message !== error.faults.join('\n')) throw error;
    return error.faults;
  }
}

function valuesOf(settings: Settings): Record<string, unknown> {
  return Object.fromEntries(Object.entries(settings));
}

const defaults = {
  NODE_ENV: 'development',
  ALLOW_INSECURE: false,
  HOST: '0.0.0.0',
  PORT: 3_000,
  INTERNAL_PORT: undefined,
  REDIS_URL: undefined,
  REDIS_CLUSTER_NODES: undefined,
  REDIS_SENTINELS: undefined,
  REDIS_SENTINEL_NAME: undefined,
  REDIS_PREFIX: 'fanfare',
  DURABILITY: 'primary',
  AUTH_MODE: 'optional',
  JWT_SECRET: undefined,
  JWT_PUBLIC_KEY: undefined,
  JWT_JWKS_URI: undefined,
  JWT_ALGORITHMS: undefined,
  JWT_ISSUER: undefined,
  JWT_AUDIENCE: undefined,
  JWT_CLOCK_TOLERANCE_S: 0,
  JWT_REQUIRE_EXP: false,
  AUTH_REJECT: 'http',
  AUTH_COOKIE: undefined,
  AUTH_QUERY_TOKEN: true,
  ANONYMOUS_PREFIX: '',
  ALLOWED_ORIGINS: undefined,
  ROOM_POLICY: 'open',
  AUTHORIZE_URL: undefined,
  WEBHOOK_URL: undefined,
  WEBHOOK_SECRET: undefined,
  HEARTBEAT_INTERVAL_MS: 25_000,
  HEARTBEAT_TIMEOUT_MS: 10_000,
  MAX_MESSAGE_BYTES: 65_536,
  MAX_CONNECTIONS: 0,
  MAX_CONNECTIONS_PER_USER: 0,
  MAX_CONNECTIONS_PER_IP: 0,
  MAX_ROOMS_PER_CONNECTION: 100,
  RATE_LIMIT_PER_SECOND: 100,
  RATE_LIMIT_BURST: 200,
  SLOW_CONSUMER_BYTES: 1_048_576,
  HISTORY_SIZE: 1_000,
  HISTORY_TTL_SECONDS: 3_600,
  IDEMPOTENCY_TTL_SECONDS: 300,
  REVOCATION_TTL_SECONDS: 2_592_000,
  EPHEMERAL_CHANNELS: [],
  ANNOUNCE_USERS: true,
  ANNOUNCE_MEMBERS_MAX: 1_000,
  PRESENCE_GRACE_MS: 5_000,
  DELIVERY_DELAY_MS: 0,
  PERMESSAGE_DEFLATE: false,
  SOCKET_WRITES: 'ring',
  READY_NEEDS_BROKER: true,
  DRAIN_DELAY_MS: 0,
  DRAIN_TIMEOUT_MS: 20_000,
  API_KEYS: [],
  INBOUND_STREAM: undefined,
  INBOUND_CHANNELS: undefined,
  INBOUND_MAXLEN: 1_000_000,
  TRUST_PROXY: 0,
  PLAYGROUND: true,
  LOG_LEVEL: 'info',
};

const otherInProduction = {
  NODE_ENV: 'production',
  AUTH_MODE: 'required',
  JWT_REQUIRE_EXP: true,
  ANONYMOUS_PREFIX: 'anon:',
  ANNOUNCE_USERS: false,
  DRAIN_DELAY_MS: 5_000,
  PLAYGROUND: false,
};

describe('the settings by default', () => {
  it('are these in development', () => {
    expect(valuesOf(readSettings({}))).toEqual(defaults);
  });

  it('are these in production', () => {
    expect(valuesOf(readSettings(production))).toEqual({
      ...defaults,
      ...otherInProduction,
      JWT_SECRET: secret,
    });
  });

  it('are those of development in a test', () => {
    expect(valuesOf(readSettings({ NODE_ENV: 'test' }))).toEqual({ ...defaults, NODE_ENV: 'test' });
  });

  it('stand where a variable is empty, and others are not looked at', () => {
    const empty = Object.fromEntries(Object.keys(defaults).map((name) => [name, '']));
    expect(valuesOf(readSettings({ ...empty, PATH: '/bin', port: '1', __proto__: 'x' }))).toEqual(defaults);
  });

  it('are the ones of .env.example, which changes nothing', async () => {
    const text = await readFile(new URL('../../.env.example', import.meta.url), 'utf8');
    const pairs = text.split('\n').flatMap((line) => {
      const pair = /^([A-Z_]+)=(.*)$/.exec(line);
      return pair === null ? [] : [[pair[1] ?? '', pair[2] ?? '']];
    });
    expect(pairs.length).toBeGreaterThan(20);
    expect(valuesOf(readSettings(Object.fromEntries(pairs)))).toEqual(defaults);
    for (const name of Object.keys(defaults)) expect(text).toMatch(new RegExp(`^(?:# )?${name}=`, 'm'));
  });

  it('come as the class that is injected', () => {
    const settings = readSettings({});
    expect(settings).toBeInstanceOf(Settings);
    expect([settings.isProduction, settings.usesRedis]).toEqual([false, false]);
    expect(readSettings(production).isProduction).toBe(true);
    expect(readSettings({ REDIS_URL: 'redis://h' }).usesRedis).toBe(true);
  });
});

describe('a setting is read', () => {
  it.each<[string, string, unknown]>([
    ['PORT', '0', 0],
    ['PORT', '65535', 65_535],
    ['INTERNAL_PORT', '0', 0],
    ['HOST', '::', '::'],
    ['REDIS_URL', 'rediss://user:pass@redis.example:6380/1', 'rediss://user:pass@redis.example:6380/1'],
    ['REDIS_PREFIX', 'a.B_9-', 'a.B_9-'],
    ['JWT_ALGORITHMS', 'HS256, HS512', ['HS256', 'HS512']],
    ['JWT_PUBLIC_KEY', rsa.replaceAll('\n', '\\n'), rsa],
    ['JWT_PUBLIC_KEY', ec, ec],
    ['JWT_CLOCK_TOLERANCE_S', '3600', 3_600],
    ['JWT_REQUIRE_EXP', 'true', true],
    ['AUTH_QUERY_TOKEN', 'false', false],
    ['AUTH_MODE', 'none', 'none'],
    ['AUTH_REJECT', 'close', 'close'],
    ['AUTH_COOKIE', 'fanfare_token', 'fanfare_token'],
    ['ANONYMOUS_PREFIX', 'gast-', 'gast-'],
    [
      'ALLOWED_ORIGINS',
      ' https://a.example , http://b.example:8080,',
      ['https://a.example', 'http://b.example:8080'],
    ],
    ['ROOM_POLICY', 'closed', 'closed'],
    ['HEARTBEAT_INTERVAL_MS', '50', 50],
    ['HISTORY_SIZE', '1', 1],
    ['EPHEMERAL_CHANNELS', 'room:cursor:*,broadcast,user:*,*', ['room:cursor:*', 'broadcast', 'user:*', '*']],
    ['TRUST_PROXY', 'false', 0],
    ['TRUST_PROXY', '2', 2],
    ['LOG_LEVEL', 'silent', 'silent'],
    ['RATE_LIMIT_PER_SECOND', '0', 0],
    ['PRESENCE_GRACE_MS', '0', 0],
    ['ANNOUNCE_MEMBERS_MAX', '0', 0],
  ])('%s=%s', (name, text, value) => {
    expect(Reflect.get(readSettings({ [name]: text }), name)).toEqual(value);
  });

  it('REDIS_CLUSTER_NODES and REDIS_SENTINELS as addresses', () => {
    const nodes = ['10.0.0.1:6379', 'redis-1.example:6380', '[::1]:6379'];
    expect(readSettings({ REDIS_CLUSTER_NODES: nodes.join(', ') }).REDIS_CLUSTER_NODES).toEqual(nodes);
    const sentinels = { REDIS_SENTINELS: nodes.join(), REDIS_SENTINEL_NAME: 'main' };
    expect(readSettings(sentinels)).toMatchObject({ REDIS_SENTINELS: nodes, REDIS_SENTINEL_NAME: 'main' });
  });

  it('API_KEYS with the scopes that are named, else with all', () => {
    const { API_KEYS } = readSettings({ API_KEYS: 'one, two:read,three:publish+control' });
    expect(API_KEYS.map(({ key, scopes }) => [key, [...scopes]])).toEqual([
      ['one', ['publish', 'read', 'control']],
      ['two', ['read']],
      ['three', ['publish', 'control']],
    ]);
  });
});

/** For each setting what it must not be. */
const wrong: Record<string, string[]> = {
  NODE_ENV: ['prod', 'Production', 'staging'],
  ALLOW_INSECURE: ['yes', '1', 'TRUE'],
  PORT: ['-1', '65536', '3000.5', '0x10', '3e3', ' 80', 'http', '99999999999999999999'],
  INTERNAL_PORT: ['-1', '65536', 'x'],
  REDIS_URL: ['localhost:6379', 'http://localhost', 'redis:', 'redis://[', 'unix:///tmp/redis.sock'],
  REDIS_CLUSTER_NODES: ['localhost', 'a:0', 'a:65536', 'a:1,b', 'redis://a:1', 'a b:1'],
  REDIS_SENTINELS: ['localhost', 'a:1 b:2'],
  REDIS_PREFIX: ['a b', 'a:b', 'a{b}', 'ä', 'x'.repeat(65), '*'],
  DURABILITY: ['none', 'all'],
  AUTH_MODE: ['off', 'Required', 'true'],
  JWT_PUBLIC_KEY: ['key', '-----BEGIN PUBLIC KEY-----', ed25519(), '{"kty":"RSA"}'],
  JWT_JWKS_URI: ['issuer.example', 'ftp://issuer.example', 'https://'],
  AUTHORIZE_URL: ['backend', 'file:///etc/passwd', 'http://'],
  JWT_CLOCK_TOLERANCE_S: ['-1', '3601', '1s'],
  JWT_REQUIRE_EXP: ['yes', '0'],
  AUTH_REJECT: ['4001', 'https'],
  AUTH_COOKIE: ['a b', 'a=b', 'a;b', 'ä', 'x'.repeat(129)],
  AUTH_QUERY_TOKEN: ['on', '0'],
  ANONYMOUS_PREFIX: ['a\nb', 'x'.repeat(65)],
  ALLOWED_ORIGINS: [
    '*',
    'app.example',
    'https://a.example/',
    'https://a.example/path',
    'https://a.example:443',
    'null',
  ],
  ROOM_POLICY: ['public', 'OPEN'],
  HEARTBEAT_INTERVAL_MS: ['0', '49', '2147483648', '25s', 'Infinity'],
  HEARTBEAT_TIMEOUT_MS: ['0', '49', '2147483648'],
  MAX_MESSAGE_BYTES: ['0', '15', '67108865', '64k'],
  MAX_CONNECTIONS: ['-1', 'none', '1.5'],
  MAX_CONNECTIONS_PER_USER: ['-1', 'x'],
  MAX_CONNECTIONS_PER_IP: ['-1', 'x'],
  MAX_ROOMS_PER_CONNECTION: ['0', '-1'],
  RATE_LIMIT_PER_SECOND: ['-1', '0.5'],
  RATE_LIMIT_BURST: ['0', '-1'],
  SLOW_CONSUMER_BYTES: ['0', '1023', '1M'],
  HISTORY_SIZE: ['0', '1000001', '-1'],
  HISTORY_TTL_SECONDS: ['0', '31536001', '1h'],
  IDEMPOTENCY_TTL_SECONDS: ['0', '2592001'],
  REVOCATION_TTL_SECONDS: ['0', 'x'],
  EPHEMERAL_CHANNELS: ['cursor', 'rooms:a', 'broadcasts', 'room:a,cursor'],
  ANNOUNCE_USERS: ['no', '0'],
  ANNOUNCE_MEMBERS_MAX: ['-1', 'all'],
  PRESENCE_GRACE_MS: ['-1', '600001', '5s'],
  DELIVERY_DELAY_MS: ['-1', '1001', '20ms'],
  PERMESSAGE_DEFLATE: ['1', 'yes'],
  SOCKET_WRITES: ['private', 'true'],
  READY_NEEDS_BROKER: ['1', 'no'],
  DRAIN_DELAY_MS: ['-1', '600001'],
  DRAIN_TIMEOUT_MS: ['-1', '3600001'],
  API_KEYS: [':read', 'a:admin', 'a:', 'a:read:publish', 'a,a', 'a:read,a:publish'],
  WEBHOOK_URL: ['backend', 'ftp://backend.example', 'https://'],
  INBOUND_CHANNELS: ['cursor', 'room:a,cursor'],
  INBOUND_MAXLEN: ['0', 'x'],
  TRUST_PROXY: ['true', '-1', '33', '10.0.0.0/8'],
  PLAYGROUND: ['1', 'yes'],
  LOG_LEVEL: ['verbose', 'INFO', 'warning'],
};

function ed25519(): string {
  return generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }).toString();
}

describe('a setting that is wrong stops the start with one line that begins with its name', () => {
  it.each(Object.entries(wrong).flatMap(([name, values]) => values.map((value) => [name, value])))(
    '%s=%j',
    (name = '', value = '') => {
      for (const environment of [{}, production]) {
        const faults = faultsOf({ ...environment, [name]: value });
        expect(faults.filter((fault) => fault.startsWith(`${name} `))).toHaveLength(1);
        expect(faults).toHaveLength(1);
        expect(faults[0]).toMatch(new RegExp(`^${name} (?:must|each value in)`));
      }
    },
  );

  it('for each of several', () => {
    const faults = faultsOf({ PORT: 'x', LOG_LEVEL: 'x', HISTORY_SIZE: '0' });
    expect(faults.map((fault) => fault.split(' ')[0]).toSorted()).toEqual([
      'HISTORY_SIZE',
      'LOG_LEVEL',
      'PORT',
    ]);
  });

  it('that never contains the value', () => {
    for (const name of ['JWT_PUBLIC_KEY', 'API_KEYS', 'REDIS_URL'])
      expect(faultsOf({ [name]: 'hunter2:hunter2:hunter2' }).join()).not.toContain('hunter2');
  });
});

describe('settings that do not go together', () => {
  const cluster = { REDIS_CLUSTER_NODES: 'a:1' };
  const sentinel = { REDIS_SENTINELS: 'a:1', REDIS_SENTINEL_NAME: 'main' };
  const oneKey = 'JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URI exclude each other';
  const exclusive = 'REDIS_URL, REDIS_CLUSTER_NODES and REDIS_SENTINELS exclude each other';

  it.each<[Environment, string[]]>([
    [{ REDIS_URL: 'redis://h', ...cluster }, [exclusive]],
    [{ REDIS_URL: 'redis://h', ...sentinel }, [exclusive]],
    [{ ...cluster, ...sentinel }, [exclusive]],
    [{ REDIS_SENTINELS: 'a:1' }, ['REDIS_SENTINELS and REDIS_SENTINEL_NAME need each other']],
    [{ REDIS_SENTINEL_NAME: 'main' }, ['REDIS_SENTINELS and REDIS_SENTINEL_NAME need each other']],
    [{ PORT: '3000', INTERNAL_PORT: '3000' }, ['INTERNAL_PORT must not be PORT']],
    [{ JWT_SECRET: secret, JWT_PUBLIC_KEY: rsa }, [oneKey]],
    [{ JWT_SECRET: secret, JWT_JWKS_URI: 'https://i.example' }, [oneKey]],
    [{ JWT_PUBLIC_KEY: rsa, JWT_JWKS_URI: 'https://i.example' }, [oneKey]],
    [{ WEBHOOK_URL: 'https://backend.example' }, ['WEBHOOK_URL needs a WEBHOOK_SECRET']],
    [{ WEBHOOK_URL: 'https://backend.example', WEBHOOK_SECRET: 'secret' }, []],
    [{ INBOUND_STREAM: 'inbound' }, ['INBOUND_STREAM needs Redis']],
    [{ INBOUND_STREAM: 'inbound', REDIS_URL: 'redis://h' }, []],
    [{ PORT: '0', INTERNAL_PORT: '0' }, []],
    [{ DURABILITY: 'replicated', REDIS_URL: 'redis://h' }, []],
    [{ DURABILITY: 'replicated', ...sentinel }, []],
  ])('%j', (environment, faults) => {
    expect(faultsOf(environment)).toEqual(faults);
  });

  it.each<[Environment]>([[{ DURABILITY: 'replicated' }], [{ DURABILITY: 'replicated', ...cluster }]])(
    'replicas that nobody waits for: %j',
    (environment) => {
      expect(faultsOf(environment)).toEqual([expect.stringMatching(/^DURABILITY=replicated needs /)]);
    },
  );

  it.each<[Environment, string]>([
    [{ JWT_ALGORITHMS: 'RS256' }, 'HS256, HS384, HS512'],
    [{ JWT_ALGORITHMS: 'none' }, 'HS256, HS384, HS512'],
    [{ JWT_ALGORITHMS: 'HS256,none', JWT_SECRET: secret }, 'HS256, HS384, HS512'],
    [{ JWT_ALGORITHMS: 'HS256', JWT_PUBLIC_KEY: rsa }, 'RS256, RS384, RS512, PS256, PS384, PS512'],
    [{ JWT_ALGORITHMS: 'RS256', JWT_PUBLIC_KEY: ec }, 'ES256'],
    [{ JWT_ALGORITHMS: 'ES384', JWT_PUBLIC_KEY: ec }, 'ES256'],
    [
      { JWT_ALGORITHMS: 'HS256', JWT_JWKS_URI: 'https://i.example' },
      'RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512',
    ],
  ])('algorithms and key: %j', (environment, allowed) => {
    expect(faultsOf(environment)).toEqual([`JWT_ALGORITHMS must be of ${allowed} with this key`]);
  });
});

describe('in production', () => {
  it.each<[Environment, string[]]>([
    [{}, ['JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URI is needed in production']],
    [{ AUTH_MODE: 'optional' }, ['JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URI is needed in production']],
    [{ AUTH_MODE: 'none' }, ['AUTH_MODE must not be none in production (ALLOW_INSECURE=true allows it)']],
    [{ AUTH_MODE: 'none', ALLOW_INSECURE: 'true' }, []],
    [{ JWT_SECRET: secret.slice(1) }, ['JWT_SECRET must have at least 32 bytes in production']],
    [{ JWT_SECRET: '日本語日本語日本語日本' }, []],
    [{ JWT_PUBLIC_KEY: ec }, []],
  ])('%j', (environment, faults) => {
    expect(faultsOf({ NODE_ENV: 'production', ...environment })).toEqual(faults);
  });

  it('demands that keys are fetched where nobody can change them', () => {
    const fault = 'JWT_JWKS_URI must be https:// in production (ALLOW_INSECURE=true allows http)';
    const http = { NODE_ENV: 'production', JWT_JWKS_URI: 'http://issuer.example/jwks' };
    expect(faultsOf(http)).toEqual([fault]);
    expect(faultsOf({ ...http, ALLOW_INSECURE: 'true' })).toEqual([]);
    expect(faultsOf({ ...http, JWT_JWKS_URI: 'https://issuer.example/jwks' })).toEqual([]);
  });

  it('demands what development does not', () => {
    for (const environment of [{}, { AUTH_MODE: 'none' }, { JWT_SECRET: 'short' }])
      expect(faultsOf(environment)).toEqual([]);
  });
});

describe('the algorithms of a key', () => {
  it.each([
    ['P-256', ['ES256']],
    ['P-384', ['ES384']],
    ['P-521', ['ES512']],
    ['secp256k1', []],
  ])('on %s are %j', (namedCurve, algorithms) => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve });
    expect(algorithmsOf(publicKey.export({ type: 'spki', format: 'pem' }).toString())).toEqual(algorithms);
  });

  it('of RSA begin with RS256', () => {
    expect(algorithmsOf(rsa)[0]).toBe('RS256');
  });
});
