import { fileURLToPath } from 'node:url';
import { secret } from '../test/support/tokens.js';
import { build, pathOf } from './c-program.js';
import { installPeers } from './peers.js';
import type { Command } from './server-process.js';

export type Dialect = 'fanfare' | 'plain' | 'nest' | 'socketio';

/** A server under test. */
export interface Server {
  readonly name: string;
  readonly title: string;
  readonly dialect: Dialect;
  readonly path: string;
  readonly isFanfare: boolean;
  readonly isDurable: boolean;
  /** Its clients show a JWT. */
  readonly hasTokens: boolean;
  /** Its instances hear what clients of the others say; where they do not, one alone is measured. */
  readonly hasBus: boolean;
  /** Left out of `--quick` unless it is asked for. */
  readonly isExtra: boolean;
  /** The scenarios that it is there for; all where none is named. */
  readonly scenarios?: readonly string[];
  /** Installs or compiles what is not there yet. */
  prepare(): void;
  command(node: string): Command;
}

export const METRICS_KEY = 'a-key-of-the-benchmark';
const EXTRA: readonly string[] = ['socketio-streams', 'nest'];
const SOCKETIO_PATH = '/socket.io/?EIO=4&transport=websocket';
const root = fileURLToPath(new URL('../', import.meta.url));
const peers = fileURLToPath(new URL('peers/', import.meta.url));

/** Fanfare's settings in every variant; what is not named has its default for production. */
const FANFARE = {
  HOST: '127.0.0.1',
  AUTH_MODE: 'required',
  JWT_SECRET: secret,
  RATE_LIMIT_PER_SECOND: '10000',
  RATE_LIMIT_BURST: '10000',
  ANNOUNCE_USERS: 'false',
  ANNOUNCE_MEMBERS_MAX: '0',
  API_KEYS: `${METRICS_KEY}:read`,
  LOG_LEVEL: 'info',
};

/** The variant that keeps to public APIs on its way to the sockets; measured where that is the question. */
export const PUBLIC_PATH = 'fanfare-stream';
/** Variants whose events wait for each other, each on its way to the sockets. */
export const DELAYED = 'fanfare-delay';
export const DELAYED_PUBLIC_PATH = 'fanfare-stream-delay';
const DELAY_MS = '50';

/** As `npm start` and the image start it. */
const YOUNG_GENERATION = ['--min-semi-space-size=16', '--max-semi-space-size=16'];

/** What Fanfare is measured as: a name, and the settings that make the difference. */
const VARIANTS: readonly {
  name: string;
  title: string;
  isDurable: boolean;
  environment: Readonly<Record<string, string>>;
  scenarios?: readonly string[];
}[] = [
  {
    name: 'fanfare-ephemeral',
    title: 'Fanfare, ephemeral',
    isDurable: false,
    environment: { EPHEMERAL_CHANNELS: '*' },
  },
  { name: 'fanfare-durable', title: 'Fanfare, durable', isDurable: true, environment: {} },
  {
    name: PUBLIC_PATH,
    title: 'Fanfare, ephemeral, SOCKET_WRITES=stream',
    isDurable: false,
    environment: { EPHEMERAL_CHANNELS: '*', SOCKET_WRITES: 'stream' },
    scenarios: ['A', 'A-max'],
  },
  {
    name: DELAYED,
    title: `Fanfare, ephemeral, DELIVERY_DELAY_MS=${DELAY_MS}`,
    isDurable: false,
    environment: { EPHEMERAL_CHANNELS: '*', DELIVERY_DELAY_MS: DELAY_MS },
    scenarios: ['A'],
  },
  {
    name: DELAYED_PUBLIC_PATH,
    title: `Fanfare, ephemeral, SOCKET_WRITES=stream, DELIVERY_DELAY_MS=${DELAY_MS}`,
    isDurable: false,
    environment: { EPHEMERAL_CHANNELS: '*', SOCKET_WRITES: 'stream', DELIVERY_DELAY_MS: DELAY_MS },
    scenarios: ['A'],
  },
];

const fanfare: readonly Server[] = VARIANTS.map(({ name, title, isDurable, environment, scenarios }) => ({
  name,
  title,
  dialect: 'fanfare',
  path: '/ws',
  isFanfare: true,
  isDurable,
  hasTokens: true,
  hasBus: true,
  isExtra: scenarios !== undefined,
  scenarios,
  prepare: () => undefined,
  command: (node) => ({
    program: node,
    args: [...YOUNG_GENERATION, 'dist/main.js'],
    cwd: root,
    environment: { ...FANFARE, ...environment },
    readyPath: '/health/ready',
  }),
}));

/** The one that ratios are made against. */
export const REFERENCE = 'socketio';

const others: readonly Server[] = [
  socketio(REFERENCE, 'Socket.IO, redis-adapter', { ADAPTER: 'redis' }),
  {
    ...socketio('socketio-jwt', 'Socket.IO, redis-adapter, JWT', { ADAPTER: 'redis', JWT_SECRET: secret }),
    scenarios: ['F'],
  },
  socketio('socketio-streams', 'Socket.IO, redis-streams-adapter', { ADAPTER: 'streams' }),
  peer('nest', 'Nest WsAdapter, ValidationPipe', 'nest', '/', 'nest.js'),
  peer('ws', 'ws and ioredis, plain loop', 'plain', '/', 'ws.js'),
  peer('bun', 'Bun, native publish', 'plain', '/', 'bun.js', () => bunProgram()),
];

/** What the kernel takes to bring a message to each receiver: no peer, but what none can do without. */
export const FLOOR = 'floor';
/** The same where io_uring sends. */
export const RING_FLOOR = 'floor-ring';

const floors: readonly Server[] = [
  floor(FLOOR, 'send() in C, no Redis: the floor', {}),
  floor(RING_FLOOR, 'io_uring in C, no Redis', { RING: 'yes' }),
];

export const servers: readonly Server[] = [...fanfare, ...others, ...floors];

/** Bun's own program: what the package's install script would put in its place. */
export function bunProgram(): string {
  return `${peers}node_modules/@oven/bun-${process.platform}-${process.arch === 'arm64' ? 'aarch64' : process.arch}/bin/bun`;
}

function peer(
  name: string,
  title: string,
  dialect: Dialect,
  path: string,
  file: string,
  program: (node: string) => string = (node) => node,
  environment: Readonly<Record<string, string>> = {},
): Server {
  return {
    name,
    title,
    dialect,
    path,
    isFanfare: false,
    isDurable: false,
    hasTokens: 'JWT_SECRET' in environment,
    hasBus: true,
    isExtra: EXTRA.includes(name),
    prepare: installPeers,
    command: (node) => ({ program: program(node), args: [file], cwd: peers, environment }),
  };
}

function socketio(name: string, title: string, environment: Readonly<Record<string, string>>): Server {
  return peer(name, title, 'socketio', SOCKETIO_PATH, 'socketio.js', undefined, environment);
}

function floor(name: string, title: string, environment: Readonly<Record<string, string>>): Server {
  return {
    name,
    title,
    dialect: 'plain',
    path: '/',
    isFanfare: false,
    isDurable: false,
    hasTokens: false,
    hasBus: false,
    isExtra: true,
    prepare: () => build('floor'),
    command: () => ({ program: pathOf('floor'), args: [], cwd: root, environment }),
  };
}
