import { Cluster, Redis } from 'ioredis';
import type { RedisClients } from './redis-clients.js';
import { slotOf } from './redis-keys.js';

/** The one line there is without a cluster. */
const ONLY = 'only';

export interface LineListener {
  onMessage(bus: string, message: Buffer): void;
  /** A line can be used, for the first time or again. */
  onReady(): void;
  /** A line was lost; nothing comes over it any more. */
  onLost(line: string): void;
  /** The cluster took a slot away from a line that listens to it. */
  onMoved(line: string): void;
}

/**
 * The connections for subscriptions: one, or in a cluster one to each primary, since sharded messages stay with their
 * slot. A line is named by the address it leads to.
 */
export class RedisLines {
  private readonly lines = new Map<string, Redis>();

  constructor(
    private readonly clients: RedisClients,
    private readonly listener: LineListener,
  ) {
    if (!clients.sharded) this.open(ONLY);
  }

  get names(): string[] {
    return [...this.lines.keys()];
  }

  /** Every line that is needed is there and ready. */
  get isReady(): boolean {
    return this.lines.size > 0 && [...this.lines.values()].every(({ status }) => status === 'ready');
  }

  /** The line that a bus is heard on; null while the owner of its slot is not known. */
  lineOf(bus: string): string | null {
    const { commands } = this.clients;
    if (!(commands instanceof Cluster)) return ONLY;
    return commands.slots[slotOf(bus)]?.[0] ?? null;
  }

  get(line: string): Redis | undefined {
    return this.lines.get(line);
  }

  /** In a cluster: asks who owns which slot, opens the lines that are missing, drops those that lead nowhere. */
  async refresh(): Promise<void> {
    const { commands } = this.clients;
    if (!(commands instanceof Cluster)) return;
    await new Promise<void>((resolve, reject) => {
      commands.refreshSlotsCache((error) => (error ? reject(error) : resolve()));
    });
    const owners = new Set(commands.slots.map((nodes) => nodes?.[0]).filter((owner) => owner !== undefined));
    for (const owner of owners) if (!this.lines.has(owner)) this.open(owner);
    for (const line of this.lines.keys()) if (!owners.has(line)) this.drop(line);
  }

  /** Cuts a line that is not trusted any more; it comes back by itself. */
  rebuild(line: string): void {
    this.lines.get(line)?.disconnect(true);
  }

  stop(): void {
    for (const line of this.names) this.drop(line);
  }

  private open(line: string): void {
    const client = line === ONLY ? this.clients.connectSubscriber() : this.clients.connectSubscriber(line);
    this.lines.set(line, client);
    client.on(this.clients.sharded ? 'smessageBuffer' : 'messageBuffer', (bus: Buffer, message: Buffer) =>
      this.listener.onMessage(bus.toString('latin1'), message),
    );
    client.on('ready', () => this.listener.onReady());
    client.on('close', () => this.listener.onLost(line));
    client.on('moved', () => this.listener.onMoved(line));
  }

  private drop(line: string): void {
    const client = this.lines.get(line);
    this.lines.delete(line);
    if (client !== undefined) this.clients.close(client);
    this.listener.onLost(line);
  }
}
