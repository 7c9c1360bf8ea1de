// Compiles native/ for the Node-API, which is the same in all versions of Node that are supported. Without a compiler the
// gateway works as well, at more CPU for each delivery.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { platform } from 'node:os';
import { fileURLToPath } from 'node:url';
import { include_dir } from 'node-api-headers';

const folder = fileURLToPath(new URL('../native/', import.meta.url));
const units = readdirSync(folder).filter((name) => name.endsWith('.c'));
const target = `${folder}build/socket-writes.node`;
const ofPlatform = platform() === 'darwin' ? ['-undefined', 'dynamic_lookup'] : [];
const flags = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-fPIC', '-shared', ...ofPlatform];

mkdirSync(`${folder}build`, { recursive: true });
// One of before could be loaded instead.
rmSync(target, { force: true });
const compiler = process.env['CC'] ?? 'cc';
const { error, status, stderr } = spawnSync(
  compiler,
  [...flags, '-I', include_dir, '-o', target, ...units.map((name) => folder + name)],
  { encoding: 'utf8' },
);
if (error !== undefined)
  console.warn(`${compiler} is not there, so native/ is not built: SOCKET_WRITES is direct at best.`);
else {
  if (stderr !== '') console.warn(stderr);
  if (status !== 0)
    console.warn(`${compiler} has failed, so native/ is not built: SOCKET_WRITES is direct at best.`);
}
