import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import { scenarios, type Scenario, type Size } from './scenarios.js';
import { servers, type Server } from './servers.js';

const FULL = { seconds: 5, warmupSeconds: 2, settleSeconds: 5, repetitions: 3 };
const QUICK = { seconds: 1, warmupSeconds: 1, settleSeconds: 1.5, repetitions: 1 };

export interface Options {
  readonly size: Size;
  readonly repetitions: number;
  readonly scenarios: readonly Scenario[];
  readonly servers: readonly Server[];
  /** The folder that the report goes to. */
  readonly out: string;
  /** The Node that Node servers run under. */
  readonly node: string;
  /** As it was typed. */
  readonly command: string;
}

export const USAGE = `npm run bench -- [--quick] [--scenario A,B] [--server fanfare,socketio] [--repetitions 5]
                 [--seconds 5] [--out folder] [--node /path/to/node]
scenarios: ${scenarios.map(({ name }) => name).join(' ')}
servers:   ${servers.map(({ name }) => name).join(' ')}`;

export function readOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      scenario: { type: 'string' },
      server: { type: 'string' },
      repetitions: { type: 'string' },
      seconds: { type: 'string' },
      out: { type: 'string' },
      node: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) throw new Error(USAGE);
  const usual = values.quick ? QUICK : FULL;
  const seconds = number('--seconds', values.seconds, usual.seconds);
  return {
    size: {
      isQuick: values.quick,
      seconds,
      warmupSeconds: usual.warmupSeconds,
      settleSeconds: usual.settleSeconds,
    },
    repetitions: Math.round(number('--repetitions', values.repetitions, usual.repetitions)),
    scenarios:
      values.scenario === undefined ? usualScenarios(values.quick) : named(values.scenario, scenarios),
    servers: values.server === undefined ? usualServers(values.quick) : named(values.server, servers),
    out: values.out === undefined ? fileURLToPath(new URL('report/', import.meta.url)) : resolve(values.out),
    node: working(values.node?.includes('/') ? resolve(values.node) : (values.node ?? process.execPath)),
    command: ['npm run bench', ...(argv.length === 0 ? [] : ['--', ...argv])].join(' '),
  };
}

function usualScenarios(isQuick: boolean): readonly Scenario[] {
  return isQuick ? scenarios.filter(({ isLong }) => !isLong) : scenarios;
}

function usualServers(isQuick: boolean): readonly Server[] {
  return isQuick ? servers.filter(({ isExtra }) => !isExtra) : servers;
}

/** By whole names, or else by what comes before a `-`: `fanfare` is all of its variants. */
function named<T extends { readonly name: string }>(list: string, all: readonly T[]): readonly T[] {
  const wanted = list.split(',').map((part) => part.trim());
  const chosen = new Set<T>();
  for (const name of wanted) {
    const exact = all.filter((one) => one.name.toLowerCase() === name.toLowerCase());
    const found = exact.length > 0 ? exact : all.filter((one) => one.name.startsWith(`${name}-`));
    if (found.length === 0) throw new Error(`${name} is not known.\n${USAGE}`);
    for (const one of found) chosen.add(one);
  }
  return all.filter((one) => chosen.has(one));
}

function number(name: string, text: string | undefined, usual: number): number {
  const value = text === undefined ? usual : Number(text);
  if (!(value > 0)) throw new Error(`${name} wants a number above 0.\n${USAGE}`);
  return value;
}

function working(node: string): string {
  if (spawnSync(node, ['--version']).status !== 0) throw new Error(`${node} does not run.`);
  return node;
}
