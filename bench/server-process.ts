import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable } from 'node:stream';
import { tracked, type Exit } from '../test/support/child.js';
import { eventually, within } from '../test/support/eventually.js';
import { status } from '../test/support/http.js';

const START_LIMIT_MS = 20_000;
const END_LIMIT_MS = 5_000;
const KEPT_OUTPUT_BYTES = 20_000;

/** How a server is started, but for its port and its Redis. */
export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Asked until it answers 200. */
  readonly readyPath?: string;
}

/** One instance of a server under test. */
export class ServerProcess {
  output = '';
  port = 0;
  exit: Exit | null = null;
  readonly #exited: Promise<Exit>;

  private constructor(private readonly child: ChildProcessByStdio<null, Readable, Readable>) {
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        this.output = (this.output + chunk.toString()).slice(-KEPT_OUTPUT_BYTES);
      });
    this.#exited = tracked(child).then((exit) => (this.exit = exit));
  }

  static async start(command: Command, redisUrl: string): Promise<ServerProcess> {
    const server = new ServerProcess(
      spawn(command.program, command.args, {
        cwd: command.cwd,
        env: {
          PATH: process.env['PATH'],
          NODE_ENV: 'production',
          REDIS_URL: redisUrl,
          PORT: '0',
          ...command.environment,
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    );
    try {
      await within(server.#listens(), START_LIMIT_MS, () => `does not listen: ${server.lastWords}`);
      await server.#isReady(command.readyPath);
      return server;
    } catch (error) {
      server.child.kill('SIGKILL');
      throw error;
    }
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('the server did not start');
    return this.child.pid;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get lastWords(): string {
    return this.output.trim().split('\n').slice(-3).join(' ').slice(-400);
  }

  async dispose(): Promise<void> {
    if (this.exit !== null) return;
    this.child.kill('SIGKILL');
    await within(this.#exited, END_LIMIT_MS, 'the server does not end by SIGKILL');
  }

  #listens(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.stdout.on('data', () => {
        const found = /listening on (?:http:\/\/[\d.]+:)?(\d+)/.exec(this.output);
        if (found === null) return;
        this.port = Number(found[1]);
        resolve();
      });
      void this.#exited.then(({ code, signal }) =>
        reject(new Error(`ended with ${code ?? signal}: ${this.lastWords}`)),
      );
    });
  }

  async #isReady(path: string | undefined): Promise<void> {
    if (path === undefined) return;
    await eventually(
      async () => {
        const answer = await status(`${this.url}${path}`);
        if (answer !== 200) throw new Error(`${path} answers ${answer}: ${this.lastWords}`);
      },
      { timeoutMs: START_LIMIT_MS, everyMs: 25 },
    );
  }
}
