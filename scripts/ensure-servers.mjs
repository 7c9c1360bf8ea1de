// The tests run against real servers, and what they build needs a compiler. Finds them on the PATH, else installs them
// where that needs no question.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { platform } from 'node:os';

const succeeds = (program, args) => spawnSync(program, args, { stdio: 'ignore' }).status === 0;

/** What the tests need: how to see that it is there, and what brings it. */
const NEEDS = [
  {
    name: 'redis-server',
    isThere: () => succeeds('redis-server', ['--version']),
    apt: ['redis-server'],
    brew: 'redis',
  },
  {
    name: 'redis-sentinel',
    isThere: () => succeeds('redis-sentinel', ['--version']),
    apt: ['redis-sentinel'],
    brew: 'redis',
  },
  {
    name: "Python's websockets",
    isThere: () => succeeds('/usr/bin/python3', ['-c', 'import websockets']),
    apt: ['python3-websockets'],
  },
  {
    name: 'a C compiler',
    isThere: () => succeeds('cc', ['--version']),
    apt: ['gcc', 'libc6-dev'],
  },
];

const missing = () => NEEDS.filter(({ isThere }) => !isThere());

function install(program, args) {
  console.log(`${program} ${args.join(' ')}`);
  spawnSync(program, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
}

const absent = missing();
if (absent.length > 0) {
  if (existsSync('/usr/bin/apt-get') && process.getuid?.() === 0) {
    install('apt-get', ['update', '-qq']);
    install('apt-get', ['install', '-y', '-qq', ...absent.flatMap(({ apt }) => apt)]);
  } else if (platform() === 'darwin' && succeeds('brew', ['--version'])) {
    install('brew', ['install', ...new Set(absent.flatMap(({ brew }) => brew ?? []))]);
  }
}

const still = missing();
if (still.length > 0) {
  console.error(
    `The tests need ${still.map(({ name }) => name).join(', ')}: ` +
      `apt-get install ${still.flatMap(({ apt }) => apt).join(' ')}, or the like with your package manager.`,
  );
  process.exit(1);
}
