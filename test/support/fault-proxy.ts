import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
  /** The name that the client gave itself by CLIENT SETNAME. */
  name: string;
  isSwallowed: boolean;
}

/** A TCP proxy in front of a Redis that can lose what the server says, and cut. */
export class FaultProxy {
  swallowedBytes = 0;
  #pairs = new Set<Pair>();

  private constructor(
    private readonly server: Server,
    private readonly target: () => number,
  ) {}

  static async start(target: number | (() => number)): Promise<FaultProxy> {
    const server = createServer();
    const proxy = new FaultProxy(server, typeof target === 'number' ? () => target : target);
    server.on('connection', (client) => {
      proxy.#accept(client);
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** From now on nothing that the server says reaches the connections that there are now. */
  swallow(name = ''): void {
    for (const pair of this.#named(name)) pair.isSwallowed = true;
  }

  /** The connections that are swallowed hear the server again, from what it says now. */
  release(): void {
    for (const pair of this.#pairs) pair.isSwallowed = false;
  }

  /** Resets connections. */
  cut(name = ''): void {
    for (const pair of this.#named(name)) pair.client.resetAndDestroy();
  }

  async dispose(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => {
      this.server.close(() => {
        resolve();
      });
    });
  }

  #named(name: string): Pair[] {
    return [...this.#pairs].filter((pair) => pair.name.endsWith(name));
  }

  #accept(client: Socket): void {
    const upstream = connect(this.target(), '127.0.0.1');
    const pair: Pair = { client, upstream, name: '', isSwallowed: false };
    this.#pairs.add(pair);
    client.on('data', (bytes) => {
      const named = /setname\r\n\$\d+\r\n([\w-]+)/i.exec(bytes.toString('latin1'));
      pair.name = named?.[1] ?? pair.name;
      upstream.write(bytes);
    });
    upstream.on('data', (bytes) => {
      if (pair.isSwallowed) this.swallowedBytes += bytes.length;
      else client.write(bytes);
    });
    const end = (): void => {
      this.#pairs.delete(pair);
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) socket.on('error', end).on('close', end);
  }
}
