import { Agent, get } from 'node:http';
import { afterEach, describe, expect, it } from 'vitest';
import { closeClients, number, type Client, type Message } from '../support/client.js';
import { eventually } from '../support/eventually.js';
import { GatewayProcess } from '../support/gateway-process.js';
import { status } from '../support/http.js';
import { fresh } from '../support/names.js';

let gateway: GatewayProcess;

afterEach(async () => {
  await closeClients();
  await gateway.dispose();
});

const crowd = (size: number): Promise<Client[]> =>
  Promise.all(Array.from({ length: size }, () => gateway.as(fresh('user'))));

describe.each(['SIGTERM', 'SIGINT'] as const)('%s', (signal) => {
  it('sends everyone `reconnect`, closes with 1012 and ends with exit code 0', async () => {
    gateway = await GatewayProcess.start();
    const clients = await crowd(50);
    const exit = gateway.stop(signal);
    const closes = await Promise.all(clients.map((client) => client.closed));
    expect(closes.map(({ code }) => code)).toEqual(Array(50).fill(1012));
    for (const client of clients) {
      const last = client.all.at(-1) ?? {};
      expect(last).toMatchObject({ event: 'reconnect', reason: expect.any(String) as string });
      expect(number(last, 'after_ms')).toBeGreaterThanOrEqual(0);
    }
    expect(await exit).toBe(0);
    expect(gateway.stderr).toBe('');
  });
});

describe('SIGTERM', () => {
  it('sends events that wait for each other before `reconnect`', async () => {
    gateway = await GatewayProcess.start({ DELIVERY_DELAY_MS: '1000' });
    const room = fresh('room');
    const [writer, reader] = (await crowd(2)) as [Client, Client];
    for (const client of [writer, reader]) await client.request({ type: 'join_room', room });
    for (const content of [1, 2]) await writer.request({ type: 'room_message', room, content });
    const exit = gateway.stop('SIGTERM');
    for (const client of [writer, reader]) {
      expect((await client.closed).code).toBe(1012);
      expect(client.unread('chat').map(({ content }) => content)).toEqual([1, 2]);
      expect(client.all.at(-1)?.event).toBe('reconnect');
    }
    expect(await exit).toBe(0);
  });

  it('ends an instance that nobody uses at once', async () => {
    gateway = await GatewayProcess.start();
    expect(await gateway.stop('SIGTERM', 2_000)).toBe(0);
  });

  it('does not wait for an idle HTTP connection', async () => {
    gateway = await GatewayProcess.start();
    const agent = new Agent({ keepAlive: true });
    await new Promise<void>((resolve, reject) => {
      get(`${gateway.url}/health/live`, { agent }, (response) => {
        response.resume().once('end', resolve);
      }).once('error', reject);
    });
    expect(await gateway.stop('SIGTERM', 4_000)).toBe(0);
    agent.destroy();
  });

  it('loses no message that was acknowledged, and leaves none that was sent without an answer', async () => {
    gateway = await GatewayProcess.start({ RATE_LIMIT_PER_SECOND: '0' });
    const room = fresh('room');
    const [writer, reader] = (await crowd(2)) as [Client, Client];
    for (const client of [writer, reader]) await client.request({ type: 'join_room', room });
    for (let content = 0; content < 200; content += 1) {
      writer.send({ type: 'room_message', room, content, ref: content });
    }
    // The signal comes while the answers are on their way.
    await writer.next('ack');
    const exit = gateway.stop();
    expect((await writer.closed).code).toBe(1012);
    expect((await reader.closed).code).toBe(1012);
    expect(await exit).toBe(0);
    const acknowledged = writer.all
      .filter((message) => message.event === 'ack')
      .map((message) => message['ref']);
    const read = reader.all
      .filter((message) => message.event === 'chat')
      .map((message) => message['content']);
    expect(acknowledged.length).toBeGreaterThan(0);
    expect(acknowledged.filter((content) => !read.includes(content))).toEqual([]);
    expect(read).toEqual(Array.from({ length: read.length }, (_value, index) => index));
  });

  it('closes nobody with 1006, even those who connect or leave at that moment', async () => {
    gateway = await GatewayProcess.start();
    const clients = await crowd(20);
    const late = Array.from({ length: 20 }, () =>
      gateway.as(fresh('late')).then(
        (client) => client.closed.then(({ code }) => code),
        (error: unknown) => (String(error).includes('1006') ? 1006 : 'refused'),
      ),
    );
    const exit = gateway.stop();
    for (const client of clients.slice(0, 5)) void client.close();
    const codes = await Promise.all([
      ...clients.map((client) => client.closed.then(({ code }) => code)),
      ...late,
    ]);
    expect(codes.filter((code) => code === 1006)).toEqual([]);
    expect(codes.slice(5, 20)).toEqual(Array(15).fill(1012));
    expect(await exit).toBe(0);
  });

  it('does not wait for ever for a client that answers no close', async () => {
    gateway = await GatewayProcess.start({ DRAIN_TIMEOUT_MS: '2000' });
    const raw = await gateway.raw('/ws', { answersClose: false });
    await raw.nextEvent('connected');
    const exit = gateway.stop('SIGTERM', 6_000);
    expect((await raw.closed).code).toBe(1012);
    expect(await exit).toBe(0);
    raw.destroy();
  });
});

describe('DRAIN_DELAY_MS', () => {
  it('is served through, not ready from its first moment; a second signal ends at once with 1001 and exit code 1', async () => {
    gateway = await GatewayProcess.start({ DRAIN_DELAY_MS: '60000' });
    const [alice, bob] = (await crowd(2)) as [Client, Client];
    expect(await status(`${gateway.url}/health/ready`)).toBe(200);
    gateway.signal('SIGTERM');
    await eventually(async () => {
      expect(await status(`${gateway.url}/health/ready`)).toBe(503);
    });
    expect(await status(`${gateway.url}/health/live`)).toBe(200);
    const late = await gateway.as(fresh('late'));
    await alice.request({ type: 'chat', content: 'still here' });
    for (const reader of [bob, late]) {
      expect(await reader.next('chat')).toMatchObject({ content: 'still here' });
    }
    const second = performance.now();
    expect(await gateway.stop('SIGTERM')).toBe(1);
    expect(performance.now() - second).toBeLessThan(2_000);
    const closes = await Promise.all([alice, bob, late].map((client) => client.closed));
    expect(closes.map(({ code }) => code)).toEqual([1001, 1001, 1001]);
  });

  it('ends in the drain, which answers upgrades with 503 and Retry-After', async () => {
    gateway = await GatewayProcess.start({ DRAIN_DELAY_MS: '300', DRAIN_TIMEOUT_MS: '5000' });
    // Whoever does not answer the close keeps the drain going for a while.
    const raw = await gateway.raw('/ws', { answersClose: false });
    await raw.nextEvent('connected');
    const client = await gateway.as(fresh('user'));
    const exit = gateway.stop();
    const refusals: { status: number; retryAfter: number }[] = [];
    const isReconnect = (message: Message): boolean => message.event === 'reconnect';
    await Promise.all([client.next(isReconnect), raw.nextEvent('reconnect')]);
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const refusal = await gateway.refused();
      refusals.push({ status: refusal.status, retryAfter: Number(refusal.headers['retry-after']) });
    }
    expect(refusals.map((refusal) => refusal.status)).toEqual([503, 503, 503]);
    expect(refusals.every((refusal) => refusal.retryAfter > 0)).toBe(true);
    raw.destroy();
    expect((await client.closed).code).toBe(1012);
    expect(await exit).toBe(0);
  });
});
