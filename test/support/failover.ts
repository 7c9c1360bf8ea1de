import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tracked } from './child.js';
import { eventually, within } from './eventually.js';
import { FaultProxy } from './fault-proxy.js';
import { freePort, RedisServer } from './redis-server.js';
import type { Topology } from './redis-topologies.js';

/** A primary, its replica behind a link that can be cut, and a sentinel that promotes it a second after the end. */
export interface Failover extends Topology {
  readonly primary: RedisServer;
  readonly replica: RedisServer;
  /** The replication link: swallowed, the replica hears nothing any more. */
  readonly link: FaultProxy;
}

export async function startFailover(): Promise<Failover> {
  const primary = await RedisServer.start({ 'repl-diskless-sync-delay': '0' });
  const link = await FaultProxy.start(primary.port);
  const replica = await RedisServer.start({ replicaof: `127.0.0.1 ${link.port}` });
  await isOnline(primary);
  const directory = await mkdtemp(join(tmpdir(), 'fanfare-failover-'));
  const port = await freePort();
  const file = join(directory, 'sentinel.conf');
  await writeFile(
    file,
    [
      `port ${port}`,
      'bind 127.0.0.1',
      `sentinel monitor fanfare 127.0.0.1 ${primary.port} 1`,
      'sentinel down-after-milliseconds fanfare 1000',
      '',
    ].join('\n'),
  );
  const child = spawn('redis-server', [file, '--sentinel'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = tracked(child);
  // The primary's INFO names the replica; only then can it be promoted.
  const found = new Promise<void>((resolve) => {
    child.stdout.on('data', (chunk: Buffer) => {
      if (chunk.toString().includes('+slave')) resolve();
    });
  });
  await within(found, 15_000, 'the sentinel does not find the replica');
  return {
    primary,
    replica,
    link,
    settings: { REDIS_SENTINELS: `127.0.0.1:${port}`, REDIS_SENTINEL_NAME: 'fanfare' },
    dispose: async () => {
      child.kill('SIGKILL');
      await exited;
      await replica.dispose();
      await link.dispose();
      await primary.dispose();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Three primaries, one of them with a replica. */
export interface ClusterWithReplica extends Topology {
  readonly replica: RedisServer;
  /** Makes the replica the primary of its slots; resolves when it is. */
  promote(): Promise<void>;
  /** Moves a slot to another primary, its keys with it. */
  move(slot: number): Promise<void>;
}

export async function startClusterWithReplica(): Promise<ClusterWithReplica> {
  const servers = await Promise.all([0, 1, 2].map(() => startNode()));
  // Each before any of them knows another one.
  for (const [index, { commands }] of servers.entries()) {
    const [first, last] = [index, index + 1].map((at) => Math.ceil((16_384 * at) / servers.length));
    await commands.call('CLUSTER', 'SET-CONFIG-EPOCH', String(index + 1));
    await commands.call('CLUSTER', 'ADDSLOTSRANGE', String(first), String((last ?? 0) - 1));
  }
  const replica = await startNode();
  const nodes = [...servers, replica];
  const [victim] = servers;
  if (victim === undefined) throw new Error('there are no primaries');
  for (const node of nodes) {
    const [itself] = parseNodes(String(await node.commands.call('CLUSTER', 'NODES')));
    if (itself === undefined || node === victim) continue;
    const busPort = String(itself.busPort);
    await victim.commands.call('CLUSTER', 'MEET', '127.0.0.1', String(node.port), busPort);
  }
  const victimId = String(await victim.commands.call('CLUSTER', 'MYID'));
  await eventually(
    async () => {
      for (const { commands } of nodes) {
        const known = parseNodes(String(await commands.call('CLUSTER', 'NODES'))).length;
        const state = String(await commands.call('CLUSTER', 'INFO'));
        if (known !== nodes.length || !state.includes('cluster_state:ok'))
          throw new Error(`${known} nodes are known: ${state}`);
      }
      await replica.commands.call('CLUSTER', 'REPLICATE', victimId);
    },
    { timeoutMs: 15_000, everyMs: 50 },
  );
  await eventually(
    async () => {
      const info = await replica.commands.info('replication');
      if (!info.includes('role:slave') || !info.includes('master_link_status:up')) throw new Error(info);
    },
    { timeoutMs: 15_000, everyMs: 50 },
  );
  return {
    replica,
    settings: { REDIS_CLUSTER_NODES: servers.map(({ port }) => `127.0.0.1:${port}`).join() },
    promote: async () => {
      await replica.commands.call('CLUSTER', 'FAILOVER');
      await eventually(
        async () => {
          const info = await replica.commands.info('replication');
          if (!info.includes('role:master')) throw new Error(info);
        },
        { timeoutMs: 10_000, everyMs: 20 },
      );
    },
    move: (slot) => moveSlot(servers, slot),
    dispose: async () => {
      await Promise.all(nodes.map((node) => node.dispose()));
    },
  };
}

async function startNode(): Promise<RedisServer> {
  return RedisServer.start({
    'cluster-enabled': 'yes',
    'cluster-node-timeout': '2000',
    'cluster-port': String(await freePort()),
    'repl-diskless-sync-delay': '0',
  });
}

async function moveSlot(servers: readonly RedisServer[], slot: number): Promise<void> {
  const known = parseNodes(String(await servers[0]?.commands.call('CLUSTER', 'NODES')));
  const source = known.find(({ slots }) => slots.some(([from, to]) => from <= slot && slot <= to));
  const target = known.find(({ isPrimary, id }) => isPrimary && id !== source?.id);
  const [from, to] = [source, target].map(
    (node) => servers.find(({ port }) => port === node?.port)?.commands,
  );
  if (!source || !target || !from || !to) throw new Error(`nobody can move slot ${slot}`);
  const name = String(slot);
  await to.call('CLUSTER', 'SETSLOT', name, 'IMPORTING', source.id);
  await from.call('CLUSTER', 'SETSLOT', name, 'MIGRATING', target.id);
  for (;;) {
    const keys = (await from.call('CLUSTER', 'GETKEYSINSLOT', name, '100')) as string[];
    if (keys.length === 0) break;
    await from.call('MIGRATE', '127.0.0.1', String(target.port), '', '0', '5000', 'KEYS', ...keys);
  }
  await to.call('CLUSTER', 'SETSLOT', name, 'NODE', target.id);
  await from.call('CLUSTER', 'SETSLOT', name, 'NODE', target.id);
}

interface Node {
  readonly id: string;
  readonly port: number;
  readonly busPort: number;
  readonly isPrimary: boolean;
  readonly slots: [number, number][];
}

function parseNodes(text: string): Node[] {
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const [id = '', where = '', flags = '', , , , , , ...slots] = line.split(' ');
      const [address = '', busPort] = where.split(',')[0]?.split('@') ?? [];
      return {
        id,
        port: Number(address.split(':')[1]),
        busPort: Number(busPort),
        isPrimary: flags.includes('master'),
        slots: slots
          .filter((range) => !range.startsWith('['))
          .map((range): [number, number] => {
            const [from, to = from] = range.split('-').map(Number);
            return [from ?? 0, to ?? 0];
          }),
      };
    });
}

async function isOnline(primary: RedisServer): Promise<void> {
  await eventually(
    async () => {
      const state = await primary.commands.info('replication');
      if (!state.includes('state=online')) throw new Error(`the replica is not there: ${state}`);
    },
    { timeoutMs: 15_000 },
  );
}
