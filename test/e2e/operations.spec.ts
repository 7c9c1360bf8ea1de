import { readFile } from 'node:fs/promises';
import { DiagnosticSeverity, Parser } from '@asyncapi/parser';
import request from 'supertest';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closeClients, notice, refused, type Client, type Message } from '../support/client.js';
import { eventually } from '../support/eventually.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { serve } from '../support/gateway.js';
import { metric, stats, status } from '../support/http.js';
import { fresh } from '../support/names.js';
import { freePort } from '../support/redis-server.js';
import { secret, token } from '../support/tokens.js';

const unreachable = `redis://127.0.0.1:${await freePort()}`;
const words = (text: string): string[] => text.trim().split(/\s+/);
const probes = ['/health/live', '/health/ready', '/health/startup'];

describe('a gateway with the embedded broker', () => {
  const gateway = serve({ PRESENCE_GRACE_MS: '0', RATE_LIMIT_PER_SECOND: '0' });

  it.each(probes)('%s is 200', async (path) => {
    await request(gateway().url)
      .get(path)
      .expect(200)
      .expect('content-type', /^application\/json/);
    expect(await status(`${gateway().url}${path}`)).toBe(200);
  });

  it('/stats tells this instance and the cluster, which here are the same', async () => {
    const room = fresh('room');
    const [alice, tab, bob] = await Promise.all([
      gateway().as('alice'),
      gateway().as('alice'),
      gateway().as('bob'),
    ]);
    await alice?.request({ type: 'join_room', room });
    await bob?.request({ type: 'join_room', room });
    expect(await stats(gateway().url)).toMatchObject({
      local_connections: 3,
      rooms: 1,
      instance: alice?.connected['instance'],
      uptime_s: expect.any(Number) as number,
      cluster: { connections: 3, users: 2, rooms: 1, instances: 1 },
    });
    await Promise.all([alice?.close(), tab?.close(), bob?.close()]);
    await eventually(async () => {
      expect(await stats(gateway().url)).toMatchObject({
        local_connections: 0,
        rooms: 0,
        cluster: { connections: 0, users: 0, rooms: 0, instances: 1 },
      });
    });
  });

  it('a room that everybody has left is no room any more', async () => {
    const [client, room] = [await gateway().connect(), fresh('room')];
    await client.request({ type: 'join_room', room });
    expect((await stats(gateway().url)).rooms).toBe(1);
    await client.request({ type: 'leave_room', room });
    await eventually(async () => {
      expect(await stats(gateway().url)).toMatchObject({ rooms: 0, cluster: { rooms: 0 } });
    });
  });

  it('/metrics counts connections, messages, events and deliveries', async () => {
    const read = async (): Promise<string> => {
      const response = await request(gateway().url)
        .get('/metrics')
        .expect(200)
        .expect('content-type', /^text\/plain/);
      return response.text;
    };
    const before = await read();
    const [alice, bob] = await Promise.all([gateway().as(fresh('alice')), gateway().as(fresh('bob'))]);
    for (let index = 0; index < 3; index += 1) await alice?.request({ type: 'chat', content: index });
    await bob?.take('chat', 3);
    const after = await read();
    const grown = (name: string, labels: Record<string, string> = {}): number =>
      metric(after, name, labels) - metric(before, name, labels);
    expect(metric(after, 'fanfare_connections')).toBe(2);
    expect(grown('fanfare_messages_received_total', { type: 'chat' })).toBe(3);
    expect(grown('fanfare_events_published_total', { durability: 'durable' })).toBeGreaterThanOrEqual(3);
    expect(grown('fanfare_events_delivered_total')).toBeGreaterThanOrEqual(3);
    expect(after).toMatch(/^fanfare_events_published_total\{[^}]*result="/m);
    expect(after).toMatch(/^# HELP fanfare_connections .+/m);
  });

  it('/openapi.yaml and /asyncapi.yaml are served as they are in the repository', async () => {
    for (const name of ['openapi.yaml', 'asyncapi.yaml']) {
      const response = await fetch(`${gateway().url}/${name}`);
      expect(response.status).toBe(200);
      expect(response.headers.get('content-type')).toMatch(/yaml/);
      expect(await response.text()).toBe(await readFile(new URL(`../../${name}`, import.meta.url), 'utf8'));
    }
  });

  it('/asyncapi.yaml is valid and names every message of the contract', async () => {
    const description = await (await fetch(`${gateway().url}/asyncapi.yaml`)).text();
    const { document, diagnostics } = await new Parser().parse(description);
    const faults = diagnostics.filter(({ severity }) => severity === DiagnosticSeverity.Error);
    expect(faults.map(({ message, path }) => `${path.join('.')}: ${message}`)).toEqual([]);
    expect(document?.channels().all().length).toBeGreaterThan(0);
    const names = words(`
  chat join_room leave_room room_message direct_message presence auth ping pong connected
  user_connected user_disconnected text user_joined user_left joined_room left_room ack error gap
  reconnect
`);
    expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(description))).toEqual([]);
  });

  it('/openapi.yaml describes the plain HTTP endpoints', async () => {
    const description = await (await fetch(`${gateway().url}/openapi.yaml`)).text();
    expect(description).toMatch(/^openapi: ['"]?3\./m);
    expect(['/stats:', ...probes, '/metrics:'].filter((path) => !description.includes(path))).toEqual([]);
  });

  it.each(['/nope', '/stats/', '/api/v1/publish', '/health'])('%s is 404 in JSON', async (path) => {
    const response = await request(gateway().url)
      .get(path)
      .expect(404)
      .expect('content-type', /^application\/json/);
    expect(response.body).toMatchObject({ statusCode: 404 });
  });

  it('no answer names the software or its version', async () => {
    const response = await fetch(`${gateway().url}/health/live`);
    await response.arrayBuffer();
    expect(response.headers.get('x-powered-by')).toBeNull();
    expect(response.headers.get('server')).toBeNull();
  });

  it('what is announced to a user who leaves at once ends with their leaving', async () => {
    const observer = await gateway().as('observer');
    for (let index = 0; index < 20; index += 1) {
      const user = fresh('brief');
      await (await gateway().as(user)).close();
      await observer.next(notice('user_disconnected', user));
    }
    await eventually(async () => {
      expect(await stats(gateway().url)).toMatchObject({ local_connections: 1, cluster: { users: 1 } });
    });
  });
});

describe('a gateway whose Redis is out of reach', () => {
  const gateway = serve({ REDIS_URL: unreachable, LOG_LEVEL: 'fatal' });
  const tolerant = serve({ REDIS_URL: unreachable, LOG_LEVEL: 'fatal', READY_NEEDS_BROKER: 'false' });

  it.each([
    ['/health/live', 200],
    ['/health/ready', 503],
    ['/health/startup', 503],
  ])('answers %s with %i', async (path, expected) => {
    const response = await fetch(`${gateway().url}${path}`);
    expect(response.status).toBe(expected);
    expect(await response.json()).toBeTypeOf('object');
  });

  it('gives its reasons', async () => {
    const response = await fetch(`${gateway().url}/health/ready`);
    expect(JSON.stringify(await response.json())).toMatch(/broker|redis/i);
  });

  it('knows nothing of the cluster', async () => {
    expect(await stats(gateway().url)).toMatchObject({ local_connections: 0, cluster: null });
  });

  it('is ready, but degraded, with READY_NEEDS_BROKER=false', async () => {
    const response = await fetch(`${tolerant().url}/health/ready`);
    expect(response.status).toBe(200);
    expect(JSON.stringify(await response.json())).toContain('degraded');
  });
});

describe('in production', () => {
  const production = { NODE_ENV: 'production', JWT_SECRET: secret, DRAIN_DELAY_MS: '0' };
  const gateway = serve({ ...production, API_KEYS: 'all-key,reader-key:read,writer-key:publish+control' });
  const keyless = serve(production);

  describe.each(['/stats', '/metrics'])('%s', (path) => {
    it.each([
      ['no key', undefined, 401],
      ['an unknown key', 'Bearer nobodys-key', 401],
      ['a part of a key', 'Bearer reader', 401],
      ['a key with its scopes', 'Bearer reader-key:read', 401],
      ['a user token', `Bearer ${token('alice')}`, 401],
      ['another scheme', 'Basic reader-key', 401],
      ['a key without read', 'Bearer writer-key', 403],
      ['a key with read', 'Bearer reader-key', 200],
      ['a key of all scopes', 'Bearer all-key', 200],
    ])('with %s is answered', async (_name, authorization, expected) => {
      const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
      expect(await status(`${gateway().url}${path}`, headers)).toBe(expected);
    });

    it('is closed to all where there are no keys', async () => {
      expect([401, 403, 404]).toContain(await status(`${keyless().url}${path}`));
      expect([401, 403, 404]).toContain(
        await status(`${keyless().url}${path}`, { authorization: 'Bearer ' }),
      );
    });
  });

  it.each(probes)('%s needs no key', async (path) => {
    expect(await status(`${gateway().url}${path}`)).toBe(200);
  });
});

describe('INTERNAL_PORT', () => {
  let gateway: GatewayProcess;

  beforeAll(async () => {
    gateway = await GatewayProcess.start({
      NODE_ENV: 'production',
      JWT_SECRET: secret,
      INTERNAL_PORT: '0',
      DRAIN_DELAY_MS: '0',
      LOG_LEVEL: 'trace',
    });
  });

  afterAll(async () => {
    await closeClients();
    await gateway.dispose();
  });

  it.each(['/stats', '/metrics', '/openapi.yaml', '/asyncapi.yaml'])(
    'alone serves %s, without a key',
    async (path) => {
      expect(gateway.internalUrl).not.toBe(gateway.url);
      expect(await status(`${gateway.internalUrl}${path}`)).toBe(200);
      expect(await status(`${gateway.url}${path}`)).toBe(404);
    },
  );

  it('leaves the probes and the upgrade on the public one', async () => {
    for (const path of probes) expect(await status(`${gateway.url}${path}`)).toBe(200);
    const client = await gateway.bearing(token('alice'));
    expect(client.userId).toBe('alice');
  });

  it('upgrades nobody', async () => {
    const internal = gateway.internalUrl.replace(/^http/, 'ws');
    const answer = await refused(`${internal}/ws`, {
      headers: { authorization: `Bearer ${token('alice')}` },
    });
    expect(answer.status).toBeGreaterThanOrEqual(400);
  });

  it('the log is JSON, a line each, and holds no token', async () => {
    const [inHeader, inQuery] = [token('alice', { in: 'header' }), token('bob', { in: 'query' })];
    const bad = `${token('eve')}x`;
    await gateway.bearing(inHeader);
    const client = await gateway.connect('/ws', { query: { token: inQuery } });
    await gateway.refused('/ws', { query: { token: bad } });
    await gateway.refused('/nope', { query: { token: inQuery } });
    await client.request({ type: 'auth', token: inQuery });
    await client.request({ type: 'chat', content: 'PRIVATE-CONTENT' });
    await status(`${gateway.url}/health/live?token=${inQuery}`);
    await client.close();
    const lines = gateway.stdout.trim().split('\n');
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) expect(JSON.parse(line)).toBeTypeOf('object');
    for (const hidden of [inHeader, inQuery, bad, secret, 'PRIVATE-CONTENT']) {
      expect(gateway.output).not.toContain(hidden);
    }
  });
});

describe('DELIVERY_DELAY_MS', () => {
  const gateway = serve({ DELIVERY_DELAY_MS: '1000', RATE_LIMIT_PER_SECOND: '0' });

  async function members(room: string, count: number): Promise<Client[]> {
    const clients = await Promise.all(Array.from({ length: count }, () => gateway().as(fresh('user'))));
    for (const client of clients) await client.request({ type: 'join_room', room });
    return clients;
  }

  const contents = (messages: readonly Message[]): unknown[] => messages.map(({ content }) => content);

  it('lets events wait for each other, in order, and answers at once', async () => {
    const room = fresh('room');
    const [writer, reader] = (await members(room, 2)) as [Client, Client];
    for (let content = 1; content <= 5; content += 1) {
      const ack = await writer.request({ type: 'room_message', room, content });
      expect(ack).toMatchObject({ event: 'ack' });
    }
    expect(writer.unread('chat')).toEqual([]);
    expect(contents(await reader.take('chat', 5))).toEqual([1, 2, 3, 4, 5]);
    expect(contents(await writer.take('chat', 5))).toEqual([1, 2, 3, 4, 5]);
  });

  it('leaves who sends to everybody out of its own, and of nothing else', async () => {
    const [alice, bob, carol] = (await members(fresh('room'), 3)) as [Client, Client, Client];
    for (const [sender, content] of [
      [alice, 'a'],
      [bob, 'b'],
      [alice, 'c'],
    ] as const) {
      expect(await sender.request({ type: 'chat', content })).toMatchObject({ event: 'ack' });
    }
    expect(carol.unread('chat')).toEqual([]);
    expect(contents(await carol.take('chat', 3))).toEqual(['a', 'b', 'c']);
    expect(contents(await bob.take('chat', 2))).toEqual(['a', 'c']);
    expect(contents(await alice.take('chat', 1))).toEqual(['b']);
  });

  it('gives who leaves or comes just what was sent while it was there', async () => {
    const room = fresh('room');
    const [writer, leaver] = (await members(room, 2)) as [Client, Client];
    await writer.request({ type: 'room_message', room, content: 'before' });
    await leaver.request({ type: 'leave_room', room });
    const before = leaver.all.map(({ event }) => event);
    expect(before.indexOf('chat')).toBeLessThan(before.indexOf('left_room'));
    expect(before).toContain('chat');
    const [late] = (await members(room, 1)) as [Client];
    await writer.request({ type: 'room_message', room, content: 'after' });
    expect(await late.next('chat')).toMatchObject({ content: 'after' });
    expect(contents(await writer.take('chat', 2))).toEqual(['before', 'after']);
    expect(leaver.unread('chat')).toHaveLength(1);
  });

  it('does not hold back what goes out before a close', async () => {
    const room = fresh('room');
    const [writer, closed] = (await members(room, 2)) as [Client, Client];
    await writer.request({ type: 'room_message', room, content: 'last' });
    closed.send('x'.repeat(70_000));
    expect((await closed.closed).code).toBe(1009);
    expect(contents(closed.unread('chat'))).toEqual(['last']);
  });
});

describe('PERMESSAGE_DEFLATE=true', () => {
  const gateway = serve({ PERMESSAGE_DEFLATE: 'true' });

  it('compresses for clients that offer it', async () => {
    const [compressed, plain] = await Promise.all([
      gateway().connect('/ws', { deflate: true }),
      gateway().connect('/ws'),
    ]);
    expect(compressed?.extensions).toContain('permessage-deflate');
    expect(plain?.extensions).toBe('');
    const content = 'the same again and '.repeat(1_000);
    await plain?.request({ type: 'chat', content });
    expect(await compressed?.next('chat')).toMatchObject({ content });
    await compressed?.request({ type: 'chat', content });
    expect(await plain?.next('chat')).toMatchObject({ content });
  });

  it('closes with 1009 who compresses more than a message may hold', async () => {
    const client = await gateway().connect('/ws', { deflate: true });
    client.send(`{"type":"ping","x":"${'x'.repeat(5_000_000)}"}`);
    expect((await client.closed).code).toBe(1009);
  });
});
