import { afterAll, afterEach, beforeAll } from 'vitest';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createApplication, listen } from '../../src/bootstrap.js';
import {
  accepted,
  closeClients,
  connect,
  refused,
  type Client,
  type ConnectOptions,
  type Refusal,
} from './client.js';
import { RawSocket, type RawOptions } from './raw-socket.js';

export type Environment = Record<string, string | undefined>;

/** One instance inside this process, with the embedded broker unless the environment says otherwise. */
export class Gateway {
  private constructor(
    readonly app: NestFastifyApplication,
    readonly url: string,
  ) {}

  static async start(environment: Environment = {}): Promise<Gateway> {
    const app = await createApplication({ HOST: '127.0.0.1', PORT: '0', LOG_LEVEL: 'error', ...environment });
    return new Gateway(app, await listen(app));
  }

  /** The address of a path, `/ws` where none is named. */
  ws(path = '/ws'): string {
    return `${this.url.replace(/^http/, 'ws')}${path}`;
  }

  connect(path = '/ws', options: ConnectOptions = {}): Promise<Client> {
    return connect(this.ws(path), options);
  }

  /** Connects as an anonymous user of that name. */
  as(clientId: string, options: ConnectOptions = {}): Promise<Client> {
    return connect(this.ws(), { ...options, query: { client_id: clientId, ...options.query } });
  }

  /** Connects with a token in the Authorization header. */
  bearing(token: string, options: ConnectOptions = {}, path = '/ws'): Promise<Client> {
    return connect(this.ws(path), {
      ...options,
      headers: { authorization: `Bearer ${token}`, ...options.headers },
    });
  }

  accepted(path = '/ws', options: ConnectOptions = {}): Promise<Client> {
    return accepted(this.ws(path), options);
  }

  refused(path = '/ws', options: ConnectOptions = {}): Promise<Refusal> {
    return refused(this.ws(path), options);
  }

  raw(path = '/ws', options: RawOptions = {}): Promise<RawSocket> {
    return RawSocket.open(this.ws(path), options);
  }

  async close(): Promise<void> {
    await closeClients();
    await this.app.close();
  }
}

/** Runs an instance for the tests of this suite; each test's clients are closed after it. */
export function serve(environment: Environment = {}): () => Gateway {
  let gateway: Gateway | undefined;
  beforeAll(async () => {
    gateway = await Gateway.start(environment);
  });
  afterEach(closeClients);
  afterAll(async () => {
    await gateway?.close();
  });
  return () => {
    if (gateway === undefined) throw new Error('the gateway has not started');
    return gateway;
  };
}
