import { describe, expect, it } from 'vitest';
import { number, type Client, type Message } from '../support/client.js';
import { serve } from '../support/gateway.js';
import { fresh } from '../support/names.js';

const sentBy = (user: string) => (message: Message) => message.event === 'text' && message['sender'] === user;

describe('/ws/:userId', () => {
  const gateway = serve({ RATE_LIMIT_PER_SECOND: '0' });

  async function inPath(query = ''): Promise<Client> {
    return gateway().connect(`/ws/${fresh('writer')}${query}`);
  }

  it('broadcasts plain text to everyone, the sender included', async () => {
    const [writer, reader] = (await Promise.all([inPath(), gateway().connect()])) as [Client, Client];
    const tab = await gateway().as(writer.userId);
    const before = Date.now();
    writer.send('hello, world');
    for (const client of [writer, tab, reader]) {
      const event = await client.next(sentBy(writer.userId));
      expect(event).toMatchObject({ event: 'text', sender: writer.userId, text: 'hello, world' });
      expect(number(event, 'id')).toBeGreaterThan(0);
      expect(number(event, 'ts')).toBeGreaterThanOrEqual(before);
      expect(number(event, 'ts')).toBeLessThanOrEqual(Date.now());
    }
  });

  it.each([
    ['an empty frame', ''],
    ['a JSON string', '"ping"'],
    ['a JSON number', '42'],
    ['null', 'null'],
    ['a JSON list', '[{"type":"ping"}]'],
    ['an object without a type', '{"hello":1}'],
    ['an object whose type is no string', '{"type":1}'],
    ['an object with a type in __proto__', '{"__proto__":{"type":"ping"}}'],
    ['broken JSON', '{"type":"ping"'],
    ['100 open brackets', '['.repeat(100)],
    ['quotes, backslashes and line breaks', '"\\"\n\u2028\u0000{}'],
    ['emoji', '👩‍👩‍👧‍👦 zöe'],
    ['text that looks like an event', '","event":"connected"}'],
  ])('takes %s for plain text', async (_name, text) => {
    const [writer, reader] = (await Promise.all([inPath(), gateway().connect()])) as [Client, Client];
    writer.send(text);
    expect(await reader.next(sentBy(writer.userId))).toMatchObject({ text });
    expect(await writer.next(sentBy(writer.userId))).toMatchObject({ text });
    expect(await writer.settled('error')).toEqual([]);
  });

  it('takes a JSON object with a string type for a message', async () => {
    const [writer, reader] = (await Promise.all([inPath(), gateway().connect()])) as [Client, Client];
    writer.send({ type: 'chat', content: 'hi', ref: 1 });
    expect(await writer.next('ack')).toMatchObject({ ref: 1 });
    expect(await reader.next('chat')).toMatchObject({ from: writer.userId, content: 'hi' });
    writer.send({ type: 'nonsense' });
    expect(await writer.next('error')).toMatchObject({ code: 'unknown_type' });
    expect(await reader.settled(sentBy(writer.userId))).toEqual([]);
  });

  it('with frames=text takes every frame for plain text', async () => {
    const [writer, reader] = (await Promise.all([inPath('?frames=text'), gateway().connect()])) as [
      Client,
      Client,
    ];
    const frames = ['hello', '{"type":"ping","ref":1}', '{"type":"chat","content":"hi"}', '{}'];
    for (const frame of frames) writer.send(frame);
    for (const client of [writer, reader]) {
      const events = await client.take(sentBy(writer.userId), frames.length);
      expect(events.map((event) => event['text'])).toEqual(frames);
    }
    expect(writer.unread('pong')).toEqual([]);
    expect(reader.unread('chat')).toEqual([]);
  });

  it('numbers text and chat together, in the order of sending', async () => {
    const [writer, reader] = (await Promise.all([inPath(), gateway().connect()])) as [Client, Client];
    for (let index = 0; index < 50; index += 1) {
      writer.send(index % 2 === 0 ? `line ${index}` : { type: 'chat', content: `line ${index}` });
    }
    const events = await reader.take((message) => message.event === 'text' || message.event === 'chat', 50);
    const lines = events.map((event) => event['text'] ?? event['content']);
    expect(lines).toEqual(Array.from({ length: 50 }, (_value, index) => `line ${index}`));
    const first = number(events[0] ?? {}, 'id');
    expect(events.map((event) => event['id'])).toEqual(events.map((_event, index) => first + index));
  });

  it('names the sender as the path does, decoded', async () => {
    const [writer, reader] = (await Promise.all([
      gateway().connect(`/ws/${encodeURIComponent('zöe "/" 😀')}`),
      gateway().connect(),
    ])) as [Client, Client];
    writer.send('hi');
    expect(await reader.next(sentBy('zöe "/" 😀'))).toMatchObject({ text: 'hi' });
    expect(writer.userId).toBe('zöe "/" 😀');
  });

  it('is no excuse for binary frames or too long ones', async () => {
    const [binary, long] = (await Promise.all([inPath(), inPath()])) as [Client, Client];
    binary.sendBinary(Buffer.from('hello'));
    long.send('x'.repeat(65_537));
    expect((await binary.closed).code).toBe(1003);
    expect((await long.closed).code).toBe(1009);
  });
});

describe('/ws', () => {
  const gateway = serve();

  it('broadcasts no plain text', async () => {
    const [writer, reader] = (await Promise.all([gateway().connect(), gateway().connect()])) as [
      Client,
      Client,
    ];
    writer.send('hello');
    expect(await writer.next('error')).toMatchObject({ code: 'invalid_json' });
    expect(await reader.settled('text')).toEqual([]);
  });
});
