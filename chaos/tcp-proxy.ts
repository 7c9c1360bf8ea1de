import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** What a link does with what comes along: hand it on, or take it and say nothing. */
export type Way = 'both' | 'to-client' | 'to-server' | 'none';

export class Link {
  /** The ways that are swallowed. */
  swallows: Way = 'none';
  /** What the client called its connection (`CLIENT SETNAME`), as far as it has been seen. */
  opening = '';
  readonly openedMs = performance.now();
  isClosed = false;
  onUpstream: ((chunk: Buffer) => void) | null = null;

  constructor(
    readonly client: Socket,
    readonly server: Socket,
  ) {}

  is(role: string): boolean {
    return this.opening.includes(role);
  }

  /** Ends it with RST on both sides. */
  reset(): void {
    this.client.resetAndDestroy();
    this.server.resetAndDestroy();
  }
}

const OPENING_BYTES = 1_024;

/** A TCP proxy on loopback that can go silent, or reset, link by link. */
export class TcpProxy {
  readonly links = new Set<Link>();
  /** For links to come. */
  swallowsNew: Way = 'none';
  onLink: ((link: Link) => void) | null = null;

  private constructor(
    private readonly server: Server,
    private readonly target: number,
  ) {}

  static async start(target: number): Promise<TcpProxy> {
    const server = createServer();
    const proxy = new TcpProxy(server, target);
    server.on('connection', (client) => proxy.#accept(client));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  of(role: string): Link[] {
    return [...this.links].filter((link) => link.is(role));
  }

  /** Goes silent on all links, those to come included; what is swallowed is gone. */
  swallow(way: Way): void {
    this.swallowsNew = way;
    for (const link of this.links) link.swallows = way;
  }

  async dispose(): Promise<void> {
    for (const link of this.links) link.reset();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #accept(client: Socket): void {
    const server = connect(this.target, '127.0.0.1');
    const link = new Link(client, server);
    link.swallows = this.swallowsNew;
    this.links.add(link);
    this.onLink?.(link);
    client.setNoDelay(true);
    server.setNoDelay(true);
    client.on('data', (chunk) => {
      if (link.opening.length < OPENING_BYTES) link.opening += chunk.toString('latin1');
      link.onUpstream?.(chunk);
      if (link.swallows !== 'both' && link.swallows !== 'to-server') server.write(chunk);
    });
    server.on('data', (chunk) => {
      if (link.swallows !== 'both' && link.swallows !== 'to-client') client.write(chunk);
    });
    const end = (): void => {
      link.isClosed = true;
      this.links.delete(link);
      client.destroy();
      // A silent link shows nothing of the other end's death either.
      server.destroy();
    };
    for (const socket of [client, server]) socket.on('error', end).on('close', end);
  }
}
