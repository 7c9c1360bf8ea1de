import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tracked } from '../test/support/child.js';
import { eventually, within } from '../test/support/eventually.js';
import { freePort, RedisServer } from '../test/support/redis-server.js';

const SENTINELS = 3;
const DOWN_AFTER_MS = 1_000;

/** A primary, its replica, and three sentinels that watch them. */
export class SentinelSet {
  private constructor(
    readonly primary: RedisServer,
    readonly replica: RedisServer,
    private readonly sentinels: { child: ChildProcess; port: number; ended: Promise<unknown> }[],
    private readonly directory: string,
  ) {}

  static async start(): Promise<SentinelSet> {
    const primary = await RedisServer.start({ 'repl-diskless-sync-delay': '0' });
    const replica = await RedisServer.start({
      'repl-diskless-sync-delay': '0',
      replicaof: `127.0.0.1 ${primary.port}`,
    });
    await linkIsUp(replica);
    const directory = await mkdtemp(join(tmpdir(), 'fanfare-sentinels-'));
    const set = new SentinelSet(primary, replica, [], directory);
    try {
      for (let index = 0; index < SENTINELS; index += 1) await set.#startSentinel(index);
      await eventually(() => set.#know(), { timeoutMs: 30_000, everyMs: 250 });
    } catch (error) {
      await set.dispose();
      throw error;
    }
    return set;
  }

  get settings(): Record<string, string> {
    return {
      REDIS_SENTINELS: this.sentinels.map(({ port }) => `127.0.0.1:${port}`).join(),
      REDIS_SENTINEL_NAME: 'fanfare',
    };
  }

  async isPromoted(timeoutMs = 20_000): Promise<void> {
    await eventually(
      async () => {
        const info = await this.replica.commands.info('replication');
        if (!info.includes('role:master')) throw new Error('the replica was not promoted');
      },
      { timeoutMs, everyMs: 50 },
    );
  }

  async dispose(): Promise<void> {
    for (const { child } of this.sentinels) child.kill('SIGKILL');
    await Promise.all(this.sentinels.map(({ ended }) => ended));
    await Promise.all([this.primary.dispose(), this.replica.dispose()]);
    await rm(this.directory, { recursive: true, force: true });
  }

  async #startSentinel(index: number): Promise<void> {
    const port = await freePort();
    const file = join(this.directory, `${index}.conf`);
    const lines = [
      `port ${port}`,
      'bind 127.0.0.1',
      `dir ${this.directory}`,
      `sentinel monitor fanfare 127.0.0.1 ${this.primary.port} 2`,
      `sentinel down-after-milliseconds fanfare ${DOWN_AFTER_MS}`,
      'sentinel failover-timeout fanfare 6000',
    ];
    await writeFile(file, `${lines.join('\n')}\n`);
    const child = spawn('redis-server', [file, '--sentinel'], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = tracked(child);
    this.sentinels.push({ child, port, ended });
    await within(
      new Promise<void>((resolve) => {
        child.stdout.on('data', (chunk: Buffer) => {
          if (chunk.toString().includes('+monitor')) resolve();
        });
      }),
      5_000,
      'the sentinel does not start',
    );
  }

  /** Every sentinel knows the replica and the other sentinels. */
  async #know(): Promise<void> {
    const { Redis } = await import('ioredis');
    for (const { port } of this.sentinels) {
      const client = new Redis(port, '127.0.0.1', { maxRetriesPerRequest: 1 });
      try {
        const info = await client.info('sentinel');
        if (!info.includes(`slaves=1,sentinels=${SENTINELS}`)) throw new Error(info);
      } finally {
        client.disconnect();
      }
    }
  }
}

export async function linkIsUp(replica: RedisServer): Promise<void> {
  await eventually(
    async () => {
      const info = await replica.commands.info('replication');
      if (!info.includes('master_link_status:up')) throw new Error('the replica is not linked');
    },
    { timeoutMs: 15_000, everyMs: 25 },
  );
}

export interface ClusterNode {
  readonly server: RedisServer;
  readonly busPort: number;
  id: string;
}

const SLOTS = 16_384;

/** Three primaries that share the slots, and a replica of the first. */
export class RedisCluster {
  private constructor(
    readonly primaries: ClusterNode[],
    readonly replica: ClusterNode,
  ) {}

  static async start(): Promise<RedisCluster> {
    const nodes = await Promise.all(
      [0, 1, 2, 3].map(async (): Promise<ClusterNode> => {
        const busPort = await freePort();
        const server = await RedisServer.start({
          'cluster-enabled': 'yes',
          'cluster-node-timeout': '2000',
          'cluster-port': String(busPort),
          'repl-diskless-sync-delay': '0',
        });
        return { server, busPort, id: String(await server.commands.call('CLUSTER', 'MYID')) };
      }),
    );
    const [first, second, third, replica] = nodes;
    if (first === undefined || second === undefined || third === undefined || replica === undefined)
      throw new Error('no nodes');
    const cluster = new RedisCluster([first, second, third], replica);
    try {
      await cluster.#form(nodes);
    } catch (error) {
      await cluster.dispose();
      throw error;
    }
    return cluster;
  }

  get settings(): Record<string, string> {
    return {
      REDIS_CLUSTER_NODES: [...this.primaries, this.replica]
        .map(({ server }) => `127.0.0.1:${server.port}`)
        .join(),
    };
  }

  /** The replica of the first primary takes over from it, with its consent. */
  async promote(): Promise<void> {
    await this.replica.server.commands.call('CLUSTER', 'FAILOVER');
    await eventually(
      async () => {
        const info = await this.replica.server.commands.info('replication');
        if (!info.includes('role:master')) throw new Error('the replica was not promoted');
      },
      { timeoutMs: 15_000, everyMs: 50 },
    );
  }

  /** Moves a slot with its keys, one at a time, as redis-cli does. Resolves with the number of keys. */
  async moveSlot(slot: number, from: ClusterNode, to: ClusterNode): Promise<number> {
    await to.server.commands.call('CLUSTER', 'SETSLOT', String(slot), 'IMPORTING', from.id);
    await from.server.commands.call('CLUSTER', 'SETSLOT', String(slot), 'MIGRATING', to.id);
    let moved = 0;
    for (;;) {
      const keys = (await from.server.commands.call(
        'CLUSTER',
        'GETKEYSINSLOT',
        String(slot),
        '10',
      )) as string[];
      if (keys.length === 0) break;
      const target = ['127.0.0.1', String(to.server.port), '', '0', '5000', 'KEYS', ...keys];
      await from.server.commands.call('MIGRATE', ...target);
      moved += keys.length;
    }
    for (const node of [to, from, ...this.primaries, this.replica]) {
      await node.server.commands
        .call('CLUSTER', 'SETSLOT', String(slot), 'NODE', to.id)
        .catch((error: unknown) => {
          // Replicas refuse it; they learn it from their primary.
          if (!String(error).includes('only with masters')) throw error;
        });
    }
    return moved;
  }

  async dispose(): Promise<void> {
    await Promise.all([...this.primaries, this.replica].map(({ server }) => server.dispose()));
  }

  async #form(nodes: readonly ClusterNode[]): Promise<void> {
    for (const [index, { server }] of nodes.entries()) {
      await server.commands.call('CLUSTER', 'SET-CONFIG-EPOCH', String(index + 1));
      if (index < 3) {
        const first = Math.ceil((SLOTS * index) / 3);
        const last = Math.ceil((SLOTS * (index + 1)) / 3) - 1;
        await server.commands.call('CLUSTER', 'ADDSLOTSRANGE', String(first), String(last));
      }
    }
    // Only now: a node that knows others takes no epoch any more.
    for (const { server } of nodes) {
      for (const other of nodes)
        await server.commands.call(
          'CLUSTER',
          'MEET',
          '127.0.0.1',
          String(other.server.port),
          String(other.busPort),
        );
    }
    await this.#formed(nodes, 'cluster_state:ok');
    const [primary] = this.primaries;
    await eventually(() => this.replica.server.commands.call('CLUSTER', 'REPLICATE', primary?.id ?? ''), {
      timeoutMs: 15_000,
      everyMs: 250,
    });
    await linkIsUp(this.replica.server);
  }

  async #formed(nodes: readonly ClusterNode[], state: string): Promise<void> {
    await eventually(
      async () => {
        for (const { server } of nodes) {
          const info = String(await server.commands.call('CLUSTER', 'INFO'));
          if (!info.includes(state) || !info.includes(`cluster_known_nodes:${nodes.length}`))
            throw new Error(info);
        }
      },
      { timeoutMs: 20_000, everyMs: 100 },
    );
  }
}
