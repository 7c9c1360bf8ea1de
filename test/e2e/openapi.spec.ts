import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { Api, type Answer } from '../support/api.js';
import { serve, type Gateway } from '../support/gateway.js';

type Node = Record<string, unknown>;

interface Operation {
  readonly method: string;
  readonly path: string;
  readonly node: Node;
}

const METHODS = ['get', 'put', 'post', 'delete', 'patch', 'head', 'options'];
const ours = /^\/(?:api\/v1|stats|metrics|health|openapi\.yaml|asyncapi\.yaml|docs)\b/;

function child(node: unknown, ...names: string[]): Node {
  let found: unknown = node;
  for (const name of names) {
    if (typeof found !== 'object' || found === null) break;
    found = (found as Node)[name];
  }
  if (typeof found === 'object' && found !== null) return found as Node;
  throw new Error(`there is no ${names.join('.')}`);
}

function has(node: Node, name: string): boolean {
  return typeof node[name] === 'object' && node[name] !== null;
}

/** Every `$ref` at any depth, with where it stands. */
function references(node: unknown, at = ''): [at: string, ref: string][] {
  if (typeof node !== 'object' || node === null) return [];
  return Object.entries(node).flatMap(([name, value]: [string, unknown]) =>
    name === '$ref' && typeof value === 'string'
      ? [[at, value] as [string, string]]
      : references(value, `${at}/${name}`),
  );
}

/** The routes of the running application, as `GET /path/:name`. */
function routes(gateway: Gateway): string[] {
  const tree = gateway.app.getHttpAdapter().getInstance().printRoutes({ commonPrefix: false });
  const parents: string[] = [];
  const found: string[] = [];
  for (const line of tree.split('\n')) {
    const match = /^((?:│ {3}| {4})*)[├└]── (\S*)(?: \((.*)\))?$/.exec(line);
    if (match === null) continue;
    const depth = (match[1] ?? '').length / 4;
    parents.length = depth;
    parents.push(match[2] ?? '');
    const path = parents.join('');
    for (const method of (match[3] ?? '').split(', ').filter((name) => name !== '')) {
      found.push(`${method} ${path}`);
    }
  }
  return found;
}

describe('/openapi.yaml', () => {
  const gateway = serve({ API_KEYS: 'all-key', EPHEMERAL_CHANNELS: 'room:cursor:*' });
  const api = new Api(gateway);
  let description: Node = {};
  let ajv: Ajv2020;

  beforeAll(async () => {
    description = parse(await (await fetch(`${gateway().url}/openapi.yaml`)).text()) as Node;
    ajv = new Ajv2020({ strict: false, validateFormats: false });
    ajv.addSchema({ ...description, $id: 'openapi' }, 'openapi');
  });

  function resolve(node: Node): Node {
    const ref = node['$ref'];
    return typeof ref === 'string' ? child(description, ...ref.slice(2).split('/')) : node;
  }

  function operations(): Operation[] {
    return Object.entries(child(description, 'paths')).flatMap(([path, item]) =>
      METHODS.flatMap((method) =>
        has(item as Node, method) ? [{ method, path, node: child(item, method) }] : [],
      ),
    );
  }

  function response(operation: Operation, status: number): Node {
    return resolve(child(operation.node, 'responses', String(status)));
  }

  /** Fails with what is wrong where the value is not what the schema at that place says. */
  function check(schema: Node, value: unknown, what: string): void {
    const ref = schema['$ref'];
    const validate: ValidateFunction = ajv.compile(
      typeof ref === 'string' ? { $ref: `openapi${ref}` } : schema,
    );
    const isValid = validate(value);
    expect([what, isValid, validate.errors ?? []]).toEqual([what, true, []]);
  }

  function schemaOf(answer: Node): Node {
    return child(answer, 'content', 'application/json', 'schema');
  }

  /** What the caller of the described operation gets, and that it is what the description says. */
  async function answers(
    method: string,
    path: string,
    body?: unknown,
    { as = api, at = path }: { as?: Api; at?: string } = {},
  ): Promise<Answer> {
    const operation = operations().find((one) => one.method === method && one.path === `/api/v1${path}`);
    if (operation === undefined) throw new Error(`${method} ${path} is not described`);
    const answer = await as.call(method.toUpperCase(), at, body);
    const what = `${method} ${at} ${answer.status}`;
    check(schemaOf(response(operation, answer.status)), answer.body, what);
    return answer;
  }

  it('refers only to what is there', () => {
    const missing = references(description).filter(([, ref]) => {
      try {
        child(description, ...ref.slice(2).split('/'));
        return !ref.startsWith('#/');
      } catch {
        return true;
      }
    });
    expect(missing).toEqual([]);
    const used = new Set(references(description).map(([, ref]) => ref));
    for (const kind of ['schemas', 'responses', 'parameters']) {
      const unused = Object.keys(child(description, 'components', kind)).filter(
        (name) => !used.has(`#/components/${kind}/${name}`),
      );
      expect([kind, unused]).toEqual([kind, []]);
    }
  });

  it('gives every operation an id of its own, a summary, a known tag and its path parameters', () => {
    const ids = operations().map(({ node }) => node['operationId']);
    expect(new Set(ids).size).toBe(ids.length);
    const tags = new Set(Object.values(child(description, 'tags')).map((tag) => (tag as Node)['name']));
    for (const { path, method, node } of operations()) {
      expect([method, path, typeof node['summary']]).toEqual([method, path, 'string']);
      for (const tag of Object.values(child(node, 'tags'))) expect(tags).toContain(tag);
      const parameters = Object.values((node['parameters'] ?? []) as Node[]).map(resolve);
      const declared = parameters.filter((one) => one['in'] === 'path').map((one) => one['name']);
      expect(declared).toEqual([...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name));
    }
  });

  it('names for each call of the API its scope, a key, and every way to fail', () => {
    for (const { path, method, node } of operations().filter((one) => one.path.startsWith('/api/'))) {
      const isWrite = method !== 'get';
      expect(['publish', 'read', 'control']).toContain(node['x-scope']);
      expect(node['security']).toEqual([{ apiKey: [] }]);
      const statuses = [200, 400, 401, 403, 404, ...(isWrite ? [409, 413] : []), 503].map(String);
      expect([path, method, ...Object.keys(child(node, 'responses'))]).toEqual([path, method, ...statuses]);
      const parameters = Object.values((node['parameters'] ?? []) as Node[]).map(resolve);
      expect(parameters.some((one) => one['name'] === 'Idempotency-Key')).toBe(isWrite);
    }
  });

  it('describes every route of the application', () => {
    const registered = routes(gateway()).filter(
      (route) => ours.test(route.split(' ')[1] ?? '') && !/^(?:HEAD|OPTIONS) /.test(route),
    );
    expect(registered.length).toBeGreaterThan(15);
    const described = operations().map(
      ({ method, path }) => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`,
    );
    expect(described.filter((route) => !registered.includes(route))).toEqual([]);
    expect(registered.filter((route) => !described.includes(route))).toEqual([]);
  });

  it('describes nothing that is not there', async () => {
    const missing: string[] = [];
    for (const { method, path } of operations()) {
      const answer = await fetch(`${gateway().url}${path.replace(/\{\w+\}/g, 'x')}`, {
        method: method.toUpperCase(),
        headers: { authorization: 'Bearer all-key' },
      });
      await answer.arrayBuffer();
      if (answer.status === 404) missing.push(`${method} ${path}`);
    }
    expect(missing).toEqual([]);
  });

  it('its examples are what its schemas say', () => {
    const checked: string[] = [];
    const contents = operations().flatMap(({ path, method, node }) => [
      ...(has(node, 'requestBody')
        ? [[`${method} ${path}`, child(node, 'requestBody', 'content')] as [string, Node]]
        : []),
      ...Object.entries(child(node, 'responses')).flatMap(([status, answer]): [string, Node][] => {
        const resolved = resolve(answer as Node);
        return has(resolved, 'content') ? [[`${method} ${path} ${status}`, child(resolved, 'content')]] : [];
      }),
    ]);
    for (const [what, content] of contents) {
      for (const media of Object.values(content) as Node[]) {
        const examples = has(media, 'examples')
          ? Object.values(child(media, 'examples')).map((example) => (example as Node)['value'])
          : [media['example']].filter((example) => example !== undefined);
        for (const example of examples) {
          check(child(media, 'schema'), example, what);
          checked.push(what);
        }
      }
    }
    expect(checked.length).toBeGreaterThan(60);
  });

  it('the plain endpoints answer what it says', async () => {
    for (const path of ['/health/live', '/health/ready', '/health/startup', '/stats']) {
      const answer = await fetch(`${gateway().url}${path}`);
      expect(answer.status).toBe(200);
      const schema = schemaOf(resolve(child(description, 'paths', path, 'get', 'responses', '200')));
      check(schema, await answer.json(), path);
    }
  });

  it('the API answers what it says', async () => {
    const client = await gateway().as('alice');
    await client.request({ type: 'join_room', room: 'lobby' });
    const publication = { channel: 'room:lobby', content: { deep: [null] }, message_id: 'm' };
    const statuses = [
      await answers('post', '/publish', publication),
      await answers('post', '/publish', publication),
      await answers('post', '/publish', { channel: 'room:cursor:1', content: 1 }),
      await answers('post', '/publish', { channel: 'nowhere', content: 1 }),
      await answers('post', '/publish', '{'),
      await answers('post', '/publish', { channel: 'room:lobby', content: 'x'.repeat(70_000) }),
      await answers('post', '/publish/batch', { messages: [publication, {}, publication] }),
      await answers('post', '/publish/batch', {}),
      await answers('get', '/rooms'),
      await answers('get', '/rooms', undefined, { at: '/rooms?limit=0' }),
      await answers('get', '/rooms/{room}', undefined, { at: '/rooms/lobby' }),
      await answers('get', '/rooms/{room}', undefined, { at: '/rooms/cursor:1' }),
      await answers('get', '/rooms/{room}', undefined, { at: '/rooms/no%20name' }),
      await answers('get', '/rooms/{room}/presence', undefined, { at: '/rooms/lobby/presence' }),
      await answers('get', '/rooms/{room}/history', undefined, { at: '/rooms/lobby/history?limit=1' }),
      await answers('get', '/users/{id}', undefined, { at: '/users/alice' }),
      await answers('put', '/users/{id}/rooms/{room}', undefined, { at: '/users/alice/rooms/team' }),
      await answers('delete', '/users/{id}/rooms/{room}', undefined, { at: '/users/alice/rooms/team' }),
      await answers('post', '/users/{id}/disconnect', { reason: 'bye' }, { at: '/users/alice/disconnect' }),
      await answers('post', '/users/{id}/disconnect', { reason: 7 }, { at: '/users/alice/disconnect' }),
      await answers('post', '/tokens/revoke', { jti: 'j' }),
      await answers('post', '/tokens/revoke', {}),
      await answers('get', '/instances'),
      await answers('get', '/instances', undefined, { as: new Api(gateway, 'nobodys-key') }),
    ].map(({ status }) => status);
    expect(statuses).toEqual([
      200, 200, 200, 400, 400, 413, 200, 400, 200, 400, 200, 200, 400, 200, 200, 200, 200, 200, 200, 400, 200,
      400, 200, 401,
    ]);
  });

  it('its request schemas take what the API takes', async () => {
    for (const { path, method, node } of operations().filter((one) => has(one.node, 'requestBody'))) {
      const media = child(node, 'requestBody', 'content', 'application/json');
      for (const example of Object.values(child(media, 'examples')) as Node[]) {
        const at = path.replace('/api/v1', '').replace(/\{\w+\}/g, 'x');
        const { status } = await api.call(method.toUpperCase(), at, example['value']);
        expect([path, example['summary'], status]).toEqual([path, example['summary'], 200]);
      }
    }
  });
});
