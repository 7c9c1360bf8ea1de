import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tracked } from './child.js';
import { eventually, within } from './eventually.js';
import { freePort, RedisServer } from './redis-server.js';

export interface Topology {
  /** The settings that lead a gateway to it. */
  readonly settings: Record<string, string>;
  dispose(): Promise<void>;
}

/** Three primaries that share the slots: with fewer, commands across slots pass unseen. */
export async function startRedisCluster(): Promise<Topology> {
  const nodes = await Promise.all(
    [0, 1, 2].map(async () => {
      const busPort = await freePort();
      const server = await RedisServer.start({
        'cluster-enabled': 'yes',
        'cluster-node-timeout': '2000',
        'cluster-port': String(busPort),
      });
      return { server, busPort };
    }),
  );
  const dispose = async (): Promise<void> => {
    await Promise.all(nodes.map(({ server }) => server.dispose()));
  };
  // A node takes a config epoch only while it knows no other.
  for (const [index, { server }] of nodes.entries()) {
    await server.commands.call('CLUSTER', 'SET-CONFIG-EPOCH', String(index + 1));
    const first = Math.ceil((16_384 * index) / nodes.length);
    const last = Math.ceil((16_384 * (index + 1)) / nodes.length) - 1;
    await server.commands.call('CLUSTER', 'ADDSLOTSRANGE', String(first), String(last));
  }
  for (const { server } of nodes) {
    for (const other of nodes) {
      const { port } = other.server;
      await server.commands.call('CLUSTER', 'MEET', '127.0.0.1', String(port), String(other.busPort));
    }
  }
  await eventually(
    async () => {
      for (const { server } of nodes) {
        const state = String(await server.commands.call('CLUSTER', 'INFO'));
        const known = String(await server.commands.call('CLUSTER', 'NODES'))
          .trim()
          .split('\n').length;
        if (!state.includes('cluster_state:ok') || known !== nodes.length)
          throw new Error(`not formed: ${state}`);
      }
    },
    { timeoutMs: 15_000 },
  );
  const addresses = nodes.map(({ server }) => `127.0.0.1:${server.port}`);
  return { settings: { REDIS_CLUSTER_NODES: addresses.join() }, dispose };
}

/** One primary and a sentinel that names it. */
export async function startSentinel(): Promise<Topology> {
  const primary = await RedisServer.start();
  const directory = await mkdtemp(join(tmpdir(), 'fanfare-sentinel-'));
  const port = await freePort();
  const file = join(directory, 'sentinel.conf');
  await writeFile(
    file,
    `port ${port}\nbind 127.0.0.1\nsentinel monitor fanfare 127.0.0.1 ${primary.port} 1\n`,
  );
  const child = spawn('redis-server', [file, '--sentinel'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = tracked(child);
  const ready = new Promise<void>((resolve) => {
    child.stdout.on('data', (chunk: Buffer) => {
      if (chunk.toString().includes('+monitor')) resolve();
    });
  });
  await within(ready, 5_000, 'the sentinel does not start');
  return {
    settings: { REDIS_SENTINELS: `127.0.0.1:${port}`, REDIS_SENTINEL_NAME: 'fanfare' },
    dispose: async () => {
      child.kill('SIGKILL');
      await exited;
      await primary.dispose();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
