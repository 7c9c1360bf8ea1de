import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('peers/', import.meta.url));
/** npm writes it last. */
const installed = `${folder}node_modules/.package-lock.json`;

/** Installs the peers where their lockfile is newer than what is there. */
export function installPeers(): void {
  const wanted = statSync(`${folder}package-lock.json`).mtimeMs;
  if (existsSync(installed) && statSync(installed).mtimeMs >= wanted) return;
  process.stderr.write('installing the peers: npm ci --ignore-scripts\n');
  const { status } = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: folder,
    stdio: ['ignore', process.stderr, process.stderr],
  });
  if (status !== 0) throw new Error('The peers could not be installed: npm ci in bench/peers has failed.');
}

/** The exact versions of what was asked for. */
export function peerVersions(): Readonly<Record<string, string>> {
  const { dependencies } = JSON.parse(readFileSync(`${folder}package.json`, 'utf8')) as {
    dependencies: Record<string, string>;
  };
  return dependencies;
}
