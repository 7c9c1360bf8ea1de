import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { tracked, type Exit } from './child.js';
import { connect, refused, type Client, type ConnectOptions, type Refusal } from './client.js';
import { within } from './eventually.js';
import { RawSocket, type RawOptions } from './raw-socket.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const address = /listening on (http:\/\/[\w.:[\]-]+)/;

type Child = ChildProcessByStdio<null, Readable, Readable>;

/** One instance as a process of its own: `node dist/main.js` with nothing but this environment. */
export class GatewayProcess {
  stdout = '';
  stderr = '';
  url = '';
  internalUrl = '';
  readonly exited: Promise<Exit>;
  #exit: Exit | undefined;

  private constructor(private readonly child: Child) {
    const exited = tracked(child);
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (this.stdout += chunk));
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => (this.stderr += chunk));
    this.exited = exited.then((exit) => (this.#exit = exit));
  }

  /** Resolves once it listens; with INTERNAL_PORT once it listens there too. */
  static async start(environment: Record<string, string> = {}): Promise<GatewayProcess> {
    const gateway = GatewayProcess.spawn({ HOST: '127.0.0.1', PORT: '0', ...environment });
    const needsInternal = (environment['INTERNAL_PORT'] ?? '') !== '';
    const listening = new Promise<void>((resolve, reject) => {
      gateway.child.stdout.on('data', () => {
        gateway.#readAddresses();
        if (gateway.url !== '' && (!needsInternal || gateway.internalUrl !== '')) resolve();
      });
      void gateway.exited.then(({ code, signal }) => {
        reject(new Error(`the gateway ended with ${code ?? signal}: ${gateway.output}`));
      });
    });
    try {
      await within(listening, 20_000, () => `the gateway does not listen: ${gateway.output}`);
    } catch (error) {
      gateway.child.kill('SIGKILL');
      throw error;
    }
    return gateway;
  }

  /** Runs it to its end, for settings that stop the start. */
  static async run(environment: Record<string, string>): Promise<GatewayProcess & { readonly exit: Exit }> {
    const gateway = GatewayProcess.spawn(environment);
    try {
      const exit = await within(gateway.exited, 20_000, () => `the gateway does not end: ${gateway.output}`);
      return Object.assign(gateway, { exit });
    } finally {
      gateway.child.kill('SIGKILL');
    }
  }

  private static spawn(environment: Record<string, string>): GatewayProcess {
    return new GatewayProcess(
      spawn(process.execPath, ['dist/main.js'], {
        cwd: root,
        env: { PATH: process.env['PATH'], ...environment },
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    );
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('the gateway did not start');
    return this.child.pid;
  }

  get output(): string {
    return `${this.stdout}${this.stderr}`;
  }

  /** Whether the process still runs. */
  get isRunning(): boolean {
    return this.#exit === undefined;
  }

  ws(path = '/ws'): string {
    return `${this.url.replace(/^http/, 'ws')}${path}`;
  }

  connect(path = '/ws', options: ConnectOptions = {}): Promise<Client> {
    return connect(this.ws(path), options);
  }

  as(clientId: string, options: ConnectOptions = {}): Promise<Client> {
    return connect(this.ws(), { ...options, query: { client_id: clientId, ...options.query } });
  }

  bearing(token: string, options: ConnectOptions = {}, path = '/ws'): Promise<Client> {
    return connect(this.ws(path), {
      ...options,
      headers: { authorization: `Bearer ${token}`, ...options.headers },
    });
  }

  refused(path = '/ws', options: ConnectOptions = {}): Promise<Refusal> {
    return refused(this.ws(path), options);
  }

  raw(path = '/ws', options: RawOptions = {}): Promise<RawSocket> {
    return RawSocket.open(this.ws(path), options);
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Sends the signal and resolves with the exit code, which is null when the signal itself ended it. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', timeoutMs = 10_000): Promise<number | null> {
    this.signal(signal);
    const exit = await within(
      this.exited,
      timeoutMs,
      () => `the gateway does not end by ${signal}: ${this.output}`,
    );
    return exit.code;
  }

  /** Ends it in whatever state it is: for `afterAll`. */
  async dispose(): Promise<void> {
    if (this.isRunning) await this.stop('SIGKILL');
  }

  #readAddresses(): void {
    for (const line of this.stdout.split('\n')) {
      const url = address.exec(line)?.[1];
      if (url === undefined) continue;
      if (/internal listening on/i.test(line)) this.internalUrl = url;
      else this.url = url;
    }
  }
}
