import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const sources = fileURLToPath(new URL('./', import.meta.url));
const built = fileURLToPath(new URL('build/', import.meta.url));

/** The programs in C: each has a folder of its name, and may share files of another. */
const SHARED = {
  load: [],
  floor: [
    'load/bytes.c',
    'load/bytes.h',
    '../native/ring.c',
    '../native/ring.h',
    '../native/sending.c',
    '../native/sending.h',
  ],
} as const satisfies Readonly<Record<string, readonly string[]>>;

export type CProgram = keyof typeof SHARED;

export function pathOf(program: CProgram): string {
  return `${built}${program}`;
}

/** Compiles it where one of its files is newer than what was built. */
export function build(program: CProgram): void {
  const own = readdirSync(`${sources}${program}`).map((name) => `${program}/${name}`);
  const files = [...own, ...SHARED[program]].map((name) => `${sources}${name}`);
  const newest = Math.max(...files.map((file) => statSync(file).mtimeMs));
  if ((statSync(pathOf(program), { throwIfNoEntry: false })?.mtimeMs ?? 0) >= newest) return;
  mkdirSync(built, { recursive: true });
  const units = files.filter((file) => file.endsWith('.c'));
  const flags = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-o', pathOf(program)];
  const { error, status, stderr } = spawnSync('cc', [...flags, ...units], { encoding: 'utf8' });
  if (error !== undefined)
    throw new Error('The benchmark needs a C compiler: apt-get install gcc libc6-dev, or the like.');
  if (status !== 0) throw new Error(`cc has failed:\n${stderr}`);
}
