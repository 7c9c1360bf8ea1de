import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { tracked, type Exit } from './child.js';
import { within } from './eventually.js';

interface Running {
  readonly child: ChildProcess;
  readonly exited: Promise<Exit>;
}

/** A real redis-server of its own on a free loopback port, ended by its pid. */
export class RedisServer {
  #running: Running | undefined;
  #commands: Redis | undefined;

  private constructor(
    readonly port: number,
    private readonly directory: string,
    private readonly settings: Readonly<Record<string, string>>,
  ) {}

  /** `settings` are redis.conf directives, their words parted by a blank; they win over the default of keeping nothing. */
  static async start(settings: Record<string, string> = {}): Promise<RedisServer> {
    const server = await RedisServer.reserve(settings);
    await server.restart();
    return server;
  }

  /** A server that is not there yet: `restart` starts it on the port that is already known. */
  static async reserve(settings: Record<string, string> = {}): Promise<RedisServer> {
    const directory = await mkdtemp(join(tmpdir(), 'fanfare-redis-'));
    return new RedisServer(await freePort(), directory, { save: '', appendonly: 'no', ...settings });
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  get pid(): number {
    const pid = this.#running?.child.pid;
    if (pid === undefined) throw new Error('redis-server is not running');
    return pid;
  }

  /** A connection for the test's own look at the keys. */
  get commands(): Redis {
    this.#commands ??= new Redis(this.port, '127.0.0.1', { maxRetriesPerRequest: 20 });
    return this.#commands;
  }

  async restart(): Promise<void> {
    const directives = Object.entries(this.settings).flatMap(([name, value]) => [
      `--${name}`,
      ...value.split(/ (?=.)/),
    ]);
    const child = spawn(
      'redis-server',
      ['--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.directory, ...directives],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const exited = tracked(child);
    this.#running = { child, exited };
    let output = '';
    const ready = new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.stdout.on('data', (chunk: Buffer) => {
        output += chunk.toString();
        if (output.includes('Ready to accept connections')) resolve();
      });
      void exited.then(() => {
        reject(new Error(`redis-server ended: ${output}`));
      });
    });
    await within(ready, 5_000, () => `redis-server is not ready: ${output}`);
  }

  /** SIGTERM, and wait for its end. */
  async stop(): Promise<void> {
    await this.#end('SIGTERM');
  }

  /** kill -9. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** SIGSTOP: the port accepts, nothing answers. */
  pause(): void {
    process.kill(this.pid, 'SIGSTOP');
  }

  /** SIGCONT. */
  resume(): void {
    process.kill(this.pid, 'SIGCONT');
  }

  /** Every key that matches, in order. */
  async keys(pattern: string): Promise<string[]> {
    const keys: string[] = [];
    let cursor = '0';
    do {
      const [next, page] = await this.commands.scan(cursor, 'MATCH', pattern, 'COUNT', 1000);
      cursor = next;
      keys.push(...page);
    } while (cursor !== '0');
    return [...new Set(keys)].sort();
  }

  /** The channels with subscribers, in order, sharded ones included. */
  async subscriptions(pattern: string): Promise<string[]> {
    const channels = (await this.commands.pubsub('CHANNELS', pattern)) as string[];
    const sharded = (await this.commands.pubsub('SHARDCHANNELS', pattern)) as string[];
    return [...channels, ...sharded].sort();
  }

  /** Ends it in whatever state it is, and removes its directory: for `afterAll`. */
  async dispose(): Promise<void> {
    this.#commands?.disconnect();
    if (this.#running !== undefined) await this.#end('SIGKILL');
    await rm(this.directory, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const running = this.#running;
    if (running === undefined) throw new Error('redis-server is not running');
    running.child.kill(signal);
    await within(running.exited, 5_000, `redis-server does not end by ${signal}`);
    this.#running = undefined;
  }
}

/** A loopback port that nothing listens on at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => {
    server.close(() => {
      resolve();
    });
  });
  return port;
}
