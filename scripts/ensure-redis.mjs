// The tests run against a real redis-server. Finds one on the PATH, else installs it where that needs no question.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { platform } from 'node:os';

const isThere = (program) => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;

function install(program, args) {
  console.log(`redis-server is not there: ${program} ${args.join(' ')}`);
  return spawnSync(program, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
}

if (!isThere('redis-server')) {
  if (existsSync('/usr/bin/apt-get') && process.getuid?.() === 0) {
    install('apt-get', ['update', '-qq']);
    // Sentinel and Python's websockets are what some tests use beside it.
    install('apt-get', ['install', '-y', '-qq', 'redis-server', 'redis-sentinel', 'python3-websockets']);
  } else if (platform() === 'darwin' && isThere('brew')) {
    install('brew', ['install', 'redis']);
  }
}

if (!isThere('redis-server')) {
  console.error(
    'The tests need redis-server 7 on the PATH: apt-get install redis-server, or brew install redis.',
  );
  process.exit(1);
}
