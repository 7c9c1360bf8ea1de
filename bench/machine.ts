import { spawnSync } from 'node:child_process';
import { arch, cpus, release, totalmem, type as system } from 'node:os';
import { fileURLToPath } from 'node:url';
import { peerVersions } from './peers.js';

const GIB = 1024 ** 3;
const root = fileURLToPath(new URL('../', import.meta.url));

/** What the figures hold for. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly node: string;
  readonly redis: string;
  readonly compiler: string;
  readonly commit: string;
  readonly date: string;
  readonly peers: Readonly<Record<string, string>>;
}

export function describeMachine(node: string): Machine {
  const isClean = firstLine('git', ['status', '--porcelain']) === '';
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / GIB),
    kernel: `${system()} ${release()} ${arch()}`,
    node: firstLine(node, ['--version']),
    redis: /v=(\S+)/.exec(firstLine('redis-server', ['--version']))?.[1] ?? 'unknown',
    compiler: firstLine('cc', ['--version']),
    commit: `${firstLine('git', ['rev-parse', '--short=12', 'HEAD'])}${isClean ? '' : ', with changes'}`,
    date: new Date().toISOString().slice(0, 10),
    peers: peerVersions(),
  };
}

function firstLine(program: string, args: readonly string[]): string {
  const { stdout } = spawnSync(program, args, { cwd: root, encoding: 'utf8' });
  return (stdout ?? '').split('\n')[0] ?? '';
}
