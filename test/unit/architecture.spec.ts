import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const SRC = fileURLToPath(new URL('../../src', import.meta.url));

/**
 * Which folders of `src` a folder may import, beside itself. The chain is gateway, api → connections → presence →
 * broker → redis, memory → core → protocol: an import goes to the right. Others meet Redis and the embedded broker
 * through the ports of the core, so `redis` and `memory` are for `broker` alone.
 */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  protocol: [],
  core: ['protocol'],
  config: ['protocol'],
  validation: ['protocol'],
  metrics: ['core', 'protocol', 'config'],
  redis: ['core', 'protocol', 'config', 'metrics'],
  memory: ['core', 'protocol', 'config', 'metrics'],
  broker: ['redis', 'memory', 'core', 'protocol', 'config', 'metrics'],
  presence: ['broker', 'core', 'protocol', 'config', 'metrics'],
  auth: ['core', 'protocol', 'config', 'metrics'],
  sockets: ['core', 'protocol', 'config'],
  connections: ['sockets', 'presence', 'broker', 'core', 'protocol', 'config', 'metrics'],
  control: ['connections', 'presence', 'auth', 'core', 'protocol', 'config', 'metrics'],
  webhooks: ['core', 'protocol', 'config', 'metrics'],
  health: ['auth', 'connections', 'presence', 'core', 'protocol', 'config', 'metrics'],
  http: ['connections', 'presence', 'auth', 'core', 'protocol', 'config', 'metrics', 'validation'],
  api: [
    'http',
    'connections',
    'presence',
    'auth',
    'control',
    'core',
    'protocol',
    'config',
    'metrics',
    'validation',
  ],
  gateway: [
    'sockets',
    'connections',
    'presence',
    'auth',
    'control',
    'core',
    'protocol',
    'config',
    'metrics',
    'validation',
  ],
};

/** Packages that only one folder may know. */
const OWNERS: Readonly<Record<string, string>> = { ioredis: 'redis', ws: 'gateway' };

/** Folders that know Node and themselves, and no package. */
const PLAIN = ['protocol', 'core'];

/** A file by its path from `src`, with `/`. */
interface Source {
  path: string;
  text: string;
}

function folderOf(path: string): string {
  return path.includes('/') ? (path.split('/')[0] ?? '') : '';
}

interface Import {
  specifier: string;
  /** The path from `src` of an own file; null for a package. */
  target: string | null;
  /** Gone when the file is compiled. */
  isType: boolean;
}

/** What a file imports, by whatever syntax. */
function importsOf({ path, text }: Source): Import[] {
  const found: Import[] = [];
  const add = (node: ts.Node | undefined, isType: boolean): void => {
    if (node === undefined || !ts.isStringLiteralLike(node)) return;
    const specifier = node.text;
    const target = specifier.startsWith('.')
      ? relative(SRC, resolve(SRC, path, '..', specifier))
          .split(sep)
          .join('/')
      : null;
    found.push({ specifier, target, isType });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node))
      add(node.moduleSpecifier, node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword);
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly);
    else if (ts.isExternalModuleReference(node)) add(node.expression, false);
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument))
      add(node.argument.literal, true);
    else if (ts.isCallExpression(node) && isImportCall(node.expression)) add(node.arguments[0], false);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.Latest));
  return found;
}

function isImportCall(callee: ts.Expression): boolean {
  return (
    callee.kind === ts.SyntaxKind.ImportKeyword || (ts.isIdentifier(callee) && callee.text === 'require')
  );
}

/** Every way in which a file goes against the shape of the house. */
function faultsOf(source: Source): string[] {
  const { path, text } = source;
  const folder = folderOf(path);
  const faults: string[] = [];
  if (/(?:^|\/)index\.[cm]?ts$/.test(path)) faults.push(`${path} is a barrel`);
  if (/\bforwardRef\b/.test(text)) faults.push(`${path} uses forwardRef`);
  if (folder !== '' && !Object.hasOwn(ALLOWED, folder))
    faults.push(`${folder} has no place in the architecture`);
  for (const { specifier, target } of importsOf(source)) {
    const fault = target === null ? packageFault(folder, specifier) : targetFault(folder, target);
    if (fault !== null) faults.push(`${path} ${fault}`);
  }
  return faults;
}

function targetFault(folder: string, target: string): string | null {
  if (target.startsWith('..')) return `imports ${target}, which is not in src`;
  if (folder === '') return null;
  const to = folderOf(target);
  if (to === '') return `imports ${target}, which wires it`;
  return to === folder || ALLOWED[folder]?.includes(to) ? null : `imports ${to}`;
}

function packageFault(folder: string, specifier: string): string | null {
  if (specifier.startsWith('node:')) return folder === 'protocol' ? `imports ${specifier}` : null;
  const owner = Object.entries(OWNERS).find(
    ([name]) => specifier === name || specifier.startsWith(`${name}/`),
  )?.[1];
  if (owner !== undefined && owner !== folder) return `imports ${specifier}, which only ${owner} may`;
  return PLAIN.includes(folder) ? `imports ${specifier}` : null;
}

/** Runs of files that need each other to be loaded, each written `a → b → a`; types need nothing. */
function cyclesOf(sources: readonly Source[]): string[] {
  const imports = new Map(
    sources.map((source) => [
      source.path,
      importsOf(source).flatMap(({ target, isType }) =>
        target === null || isType ? [] : [target.replace(/\.js$/, '.ts')],
      ),
    ]),
  );
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path);
    if (at !== -1) {
      cycles.push([...trail.slice(at), path].join(' → '));
      return;
    }
    if (done.has(path)) return;
    for (const next of imports.get(path) ?? []) visit(next, [...trail, path]);
    done.add(path);
  };
  for (const path of imports.keys()) visit(path, []);
  return cycles;
}

function sources(): Source[] {
  return readdirSync(SRC, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => ({ path: path.split(sep).join('/'), text: readFileSync(join(SRC, path), 'utf8') }));
}

describe('the files of src', () => {
  const all = sources();

  it('are all looked at', () => {
    expect(all.length).toBeGreaterThan(60);
    expect(all.flatMap(importsOf).length).toBeGreaterThan(200);
    expect(new Set(all.map(({ path }) => folderOf(path)))).toContain('redis');
  });

  it('import only in the direction of the architecture', () => {
    expect(all.flatMap(faultsOf)).toEqual([]);
  });

  it('never need each other to be loaded', () => {
    expect(cyclesOf(all)).toEqual([]);
  });
});

describe('the rule sees', () => {
  it.each([
    ['core/hub.ts', "import { Logger } from '@nestjs/common';", 'core/hub.ts imports @nestjs/common'],
    [
      'core/hub.ts',
      "import type { Redis } from 'ioredis';",
      'core/hub.ts imports ioredis, which only redis may',
    ],
    ['core/hub.ts', "import { Settings } from '../config/settings.js';", 'core/hub.ts imports config'],
    ['core/hub.ts', "export * from '../redis/redis-keys.js';", 'core/hub.ts imports redis'],
    [
      'protocol/names.ts',
      "import { randomUUID } from 'node:crypto';",
      'protocol/names.ts imports node:crypto',
    ],
    ['protocol/names.ts', "import { Hub } from '../core/hub.js';", 'protocol/names.ts imports core'],
    [
      'connections/a.ts',
      "import WebSocket from 'ws';",
      'connections/a.ts imports ws, which only gateway may',
    ],
    [
      'connections/a.ts',
      "const x = import('ioredis');",
      'connections/a.ts imports ioredis, which only redis may',
    ],
    ['connections/a.ts', "const x = require('ws');", 'connections/a.ts imports ws, which only gateway may'],
    [
      'connections/a.ts',
      "type X = import('ws').WebSocket;",
      'connections/a.ts imports ws, which only gateway may',
    ],
    ['connections/a.ts', "import '../gateway/dispatch.js';", 'connections/a.ts imports gateway'],
    ['presence/a.ts', "import { X } from '../connections/x.js';", 'presence/a.ts imports connections'],
    ['gateway/dto/a.ts', "import { X } from '../../redis/redis-keys.js';", 'gateway/dto/a.ts imports redis'],
    ['redis/a.ts', "import { X } from '../memory/memory-broker.js';", 'redis/a.ts imports memory'],
    ['redis/a.ts', "import { X } from '../bootstrap.js';", 'redis/a.ts imports bootstrap.js, which wires it'],
    [
      'redis/a.ts',
      "import { X } from '../../test/support/x.js';",
      'redis/a.ts imports ../test/support/x.js, which is not in src',
    ],
    ['auth/a.module.ts', 'imports: [forwardRef(() => B)]', 'auth/a.module.ts uses forwardRef'],
    ['core/index.ts', '', 'core/index.ts is a barrel'],
    ['helpers/a.ts', '', 'helpers has no place in the architecture'],
  ])('in %s: %s', (path, text, fault) => {
    expect(faultsOf({ path, text })).toEqual([fault]);
  });

  it.each([
    ['core/hub.ts', "import { deflateRawSync } from 'node:zlib';\nimport { X } from '../protocol/names.js';"],
    ['redis/scripts/a.ts', "import { Redis } from 'ioredis';\nimport { X } from '../redis-keys.js';"],
    ['gateway/a.ts', "import { WebSocket } from 'ws';\nimport { X } from '../connections/x.js';"],
    ['broker/a.ts', "import { X } from '../redis/x.js';\nimport { Y } from '../memory/y.js';"],
    ['main.ts', "import { X } from './gateway/gateway.adapter.js';"],
    ['core/a.ts', "// import { Redis } from 'ioredis';\nconst text = 'import ws';"],
  ])('nothing wrong in %s: %s', (path, text) => {
    expect(faultsOf({ path, text })).toEqual([]);
  });

  it('files that need each other, over several', () => {
    const file = (name: string, imported: string, keyword = 'import'): Source => ({
      path: `core/${name}.ts`,
      text: `${keyword} { X } from './${imported}.js';`,
    });
    expect(cyclesOf([file('a', 'b'), file('b', 'c'), file('c', 'a')])).toEqual([
      'core/a.ts → core/b.ts → core/c.ts → core/a.ts',
    ]);
    expect(cyclesOf([file('a', 'b'), file('b', 'c')])).toEqual([]);
    expect(cyclesOf([file('a', 'b'), file('b', 'a', 'import type')])).toEqual([]);
  });
});
