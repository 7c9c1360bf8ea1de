import { describe, expect, it } from 'vitest';
import { number, type Client, type Message } from '../support/client.js';
import { serve } from '../support/gateway.js';

const gateway = serve({ HEARTBEAT_INTERVAL_MS: '200', HEARTBEAT_TIMEOUT_MS: '200' });
const jsonPing = (message: Message): boolean => message.type === 'ping';

/** Lives through several times the silence that would end it, doing only `alive` at each ping. */
async function outlives(client: Client, alive: () => void): Promise<Client> {
  client.watch((message) => {
    if (jsonPing(message)) alive();
  });
  await client.take(jsonPing, 6);
  return client;
}

describe('the heartbeat', () => {
  it('is told in `connected` and comes as a JSON ping together with a protocol ping', async () => {
    const client = await gateway().connect();
    expect(number(client.connected, 'heartbeat_ms')).toBe(200);
    const ping = await client.next(jsonPing);
    expect(ping).toEqual({ type: 'ping' });
    await client.fence();
    expect(client.pings).toBeGreaterThan(0);
  });

  it('closes with 4009 who is silent', async () => {
    const client = await gateway().connect('/ws', { autoPong: false });
    expect((await client.closed).code).toBe(4009);
    expect(client.all.some(jsonPing)).toBe(true);
  });

  it('ends a connection whose other end answers nothing, not even a close', async () => {
    const raw = await gateway().raw('/ws', { answersClose: false });
    expect((await raw.closed).code).toBe(4009);
    raw.destroy();
  });

  it.each([
    ['answers the protocol ping only', true, () => undefined],
    ['answers the JSON ping only', false, (client: Client) => client.send({ type: 'pong' })],
    ['sends any message', false, (client: Client) => client.send({ type: 'ping' })],
    ['sends messages that are wrong', false, (client: Client) => client.send('no JSON')],
    ['sends protocol pings only', false, (client: Client) => client.ping()],
  ])('keeps a client that %s', async (_name, autoPong, alive) => {
    const client = await gateway().connect('/ws', { autoPong });
    await outlives(client, () => alive(client));
    expect(client.closedWith).toBeUndefined();
    expect(await client.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
  });

  it('answers protocol pings with pongs', async () => {
    const client = await gateway().connect();
    client.ping();
    await client.fence();
    expect(client.pongs).toBe(1);
  });
});
