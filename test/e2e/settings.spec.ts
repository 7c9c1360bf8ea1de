import { readFile } from 'node:fs/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { closeClients } from '../support/client.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { secret } from '../support/tokens.js';

const words = (text: string): string[] => text.trim().split(/\s+/);

const contract = words(`
  NODE_ENV HOST PORT INTERNAL_PORT REDIS_URL REDIS_CLUSTER_NODES REDIS_SENTINELS REDIS_SENTINEL_NAME
  REDIS_PREFIX DURABILITY AUTH_MODE JWT_SECRET JWT_PUBLIC_KEY JWT_JWKS_URI JWT_ALGORITHMS JWT_ISSUER
  JWT_AUDIENCE JWT_CLOCK_TOLERANCE_S JWT_REQUIRE_EXP AUTH_REJECT AUTH_COOKIE AUTH_QUERY_TOKEN
  ANONYMOUS_PREFIX ALLOWED_ORIGINS ROOM_POLICY AUTHORIZE_URL WEBHOOK_URL WEBHOOK_SECRET
  HEARTBEAT_INTERVAL_MS HEARTBEAT_TIMEOUT_MS MAX_MESSAGE_BYTES MAX_CONNECTIONS
  MAX_CONNECTIONS_PER_USER MAX_CONNECTIONS_PER_IP MAX_ROOMS_PER_CONNECTION RATE_LIMIT_PER_SECOND
  RATE_LIMIT_BURST SLOW_CONSUMER_BYTES HISTORY_SIZE HISTORY_TTL_SECONDS IDEMPOTENCY_TTL_SECONDS
  REVOCATION_TTL_SECONDS EPHEMERAL_CHANNELS ANNOUNCE_USERS ANNOUNCE_MEMBERS_MAX PRESENCE_GRACE_MS
  PERMESSAGE_DEFLATE READY_NEEDS_BROKER DRAIN_DELAY_MS DRAIN_TIMEOUT_MS API_KEYS INBOUND_STREAM
  INBOUND_CHANNELS INBOUND_MAXLEN TRUST_PROXY PLAYGROUND LOG_LEVEL ALLOW_INSECURE
`);

const numbers = words(`
  PORT INTERNAL_PORT JWT_CLOCK_TOLERANCE_S HEARTBEAT_INTERVAL_MS HEARTBEAT_TIMEOUT_MS
  MAX_MESSAGE_BYTES MAX_CONNECTIONS MAX_CONNECTIONS_PER_USER MAX_CONNECTIONS_PER_IP
  MAX_ROOMS_PER_CONNECTION RATE_LIMIT_PER_SECOND RATE_LIMIT_BURST SLOW_CONSUMER_BYTES HISTORY_SIZE
  HISTORY_TTL_SECONDS IDEMPOTENCY_TTL_SECONDS REVOCATION_TTL_SECONDS ANNOUNCE_MEMBERS_MAX
  PRESENCE_GRACE_MS DRAIN_DELAY_MS DRAIN_TIMEOUT_MS INBOUND_MAXLEN
`);

const wholes = numbers.filter((name) => !/PORT$|PER_SECOND$|TOLERANCE_S$/.test(name));

const switches = words(`
  JWT_REQUIRE_EXP AUTH_QUERY_TOKEN ANNOUNCE_USERS PERMESSAGE_DEFLATE READY_NEEDS_BROKER PLAYGROUND
  ALLOW_INSECURE
`);

const choices = ['NODE_ENV', 'DURABILITY', 'AUTH_MODE', 'AUTH_REJECT', 'ROOM_POLICY', 'LOG_LEVEL'];

const all = (names: string[], value: string): Record<string, string> =>
  Object.fromEntries(names.map((name) => [name, value]));

/** What a start that must fail says: its exit code, and the lines on stderr that name each setting. */
async function faults(
  environment: Record<string, string>,
): Promise<{ code: number | null; lines: string[] }> {
  const { exit, stderr, stdout } = await GatewayProcess.run({ HOST: '127.0.0.1', PORT: '0', ...environment });
  expect(stdout).not.toContain('listening on');
  return { code: exit.code, lines: stderr.split('\n').filter((line) => line.trim() !== '') };
}

/** Where a fault lies between two settings, either may be named. */
const pairs: Record<string, string> = {
  REDIS_SENTINELS: 'REDIS_SENTINEL(S|_NAME)',
  WEBHOOK_URL: 'WEBHOOK_(URL|SECRET)',
};
const names = (line: string, setting: string): boolean =>
  new RegExp(`\\b${pairs[setting] ?? setting}\\b`).test(line);

const example = await readFile(new URL('../../.env.example', import.meta.url), 'utf8');

/** The settings of .env.example that are not commented out. */
const defaults: Record<string, string> = Object.fromEntries(
  [...example.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, name = '', value = '']): [string, string] => [
    name,
    value.trim(),
  ]),
);

describe('a wrong value stops the start with one line', () => {
  const runs: [string, Record<string, string>][] = [
    [
      'that is no number, no switch or none of the choices',
      all([...numbers, ...switches, ...choices], 'nonsense'),
    ],
    ['that is negative', { ...all(numbers, '-1'), TRUST_PROXY: '-1' }],
    [
      'that is a fraction or out of bounds',
      {
        ...all(wholes, '1.5'),
        PORT: '65536',
        INTERNAL_PORT: '99999',
        MAX_MESSAGE_BYTES: '0',
        HEARTBEAT_INTERVAL_MS: '0',
      },
    ],
    [
      'of another form',
      {
        REDIS_URL: 'http://127.0.0.1:6379',
        REDIS_PREFIX: 'a b',
        JWT_PUBLIC_KEY: 'no PEM at all',
        JWT_ALGORITHMS: 'none',
        TRUST_PROXY: 'maybe',
        API_KEYS: 'a-key:nope',
      },
    ],
    [
      'of another form still',
      {
        REDIS_SENTINELS: '127.0.0.1:26379',
        REDIS_PREFIX: 'p'.repeat(65),
        JWT_SECRET: secret,
        JWT_ALGORITHMS: 'HS999',
        WEBHOOK_URL: 'https://hooks.example/',
      },
    ],
    ['that is no address', { REDIS_CLUSTER_NODES: 'no-port,127.0.0.1:99999', REDIS_PREFIX: 'a:b{c}' }],
  ];
  // What is right beside the wrong ones, or named only for the sake of another.
  const innocent = new Set(['JWT_SECRET']);

  it.each(runs)('%s', async (_name, environment) => {
    const { code, lines } = await faults(environment);
    const wrong = Object.keys(environment).filter((name) => !innocent.has(name));
    expect(code).toBe(1);
    expect(wrong.filter((setting) => !lines.some((line) => names(line, setting)))).toEqual([]);
    expect(lines, `stderr: ${lines.join('\n')}`).toHaveLength(wrong.length);
  });

  it('each, and repeats no secret', async () => {
    const { code, lines } = await faults({
      NODE_ENV: 'production',
      JWT_SECRET: 'hunter2-too-short',
      PORT: 'x',
    });
    expect(code).toBe(1);
    expect(lines, `stderr: ${lines.join('\n')}`).toHaveLength(2);
    expect(lines.join('\n')).not.toContain('hunter2');
  });
});

describe('production refuses to start', () => {
  it.each([
    ['without a JWT key', {}, 'JWT'],
    ['with a secret of 31 bytes', { JWT_SECRET: 's'.repeat(31) }, 'JWT_SECRET'],
    ['with AUTH_MODE=none', { AUTH_MODE: 'none', JWT_SECRET: secret }, 'AUTH_MODE'],
  ])('%s', async (_name, environment, setting) => {
    const { code, lines } = await faults({ NODE_ENV: 'production', ...environment });
    expect(code).toBe(1);
    expect(lines, `stderr: ${lines.join('\n')}`).toHaveLength(1);
    expect(lines[0]).toContain(setting);
  });
});

describe('a start', () => {
  let gateway: GatewayProcess | undefined;

  afterEach(async () => {
    await closeClients();
    await gateway?.dispose();
    gateway = undefined;
  });

  it.each([
    ['with no settings but the address', {}, 200],
    ['with empty settings, which count as none', { ...all(contract, ''), HOST: '127.0.0.1', PORT: '0' }, 200],
    ['in production with a secret of 32 bytes', { NODE_ENV: 'production', JWT_SECRET: 's'.repeat(32) }, 200],
    [
      'in production with AUTH_MODE=none and ALLOW_INSECURE=true',
      { NODE_ENV: 'production', AUTH_MODE: 'none', ALLOW_INSECURE: 'true', JWT_SECRET: secret },
      200,
    ],
    ['with everything at its default', defaults, 200],
  ])(
    '%s succeeds, listens and says nothing on stderr',
    async (_name, environment: Record<string, string>, expected) => {
      gateway = await GatewayProcess.start({
        ...environment,
        DRAIN_DELAY_MS: '0',
        HOST: '127.0.0.1',
        PORT: '0',
      });
      const response = await fetch(`${gateway.url}/health/ready`);
      await response.arrayBuffer();
      expect(response.status).toBe(expected);
      expect(gateway.stderr).toBe('');
      expect(await gateway.stop()).toBe(0);
    },
  );

  it('on a port that is taken fails with exit code 1', async () => {
    gateway = await GatewayProcess.start();
    const second = await GatewayProcess.run({ HOST: '127.0.0.1', PORT: new URL(gateway.url).port });
    expect(second.exit.code).toBe(1);
    expect(second.output).toMatch(/EADDRINUSE|in use/);
  });
});

describe('.env.example', () => {
  it('names every setting of the contract', () => {
    expect(contract.filter((name) => !new RegExp(`^#? ?${name}=`, 'm').test(example))).toEqual([]);
  });
});
