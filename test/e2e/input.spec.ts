import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { Client, Message } from '../support/client.js';
import { serve } from '../support/gateway.js';
import { metric, status } from '../support/http.js';
import { fresh } from '../support/names.js';
import { eventually } from '../support/eventually.js';
import { dial, encode, opcode, readToEnd, upgradeRequest, type FrameOptions } from '../support/raw-socket.js';

const gateway = serve({ RATE_LIMIT_PER_SECOND: '0' });

/** Whoever comes next is served, from the upgrade to a delivered message. */
async function nextIsServed(): Promise<void> {
  const next = await gateway().as(fresh('next'));
  const room = fresh('room');
  await next.request({ type: 'join_room', room });
  await next.request({ type: 'room_message', room, content: 'still here' });
  expect(await next.next('chat')).toMatchObject({ content: 'still here' });
  expect(await status(`${gateway().url}/health/live`)).toBe(200);
  expect({}).not.toHaveProperty('polluted');
}

afterEach(nextIsServed);

/** The code of the error that a text frame is answered with; the connection lives on. */
async function answer(frame: string): Promise<unknown> {
  const client = await gateway().as(fresh('sender'));
  client.send(frame);
  const error = await client.next('error');
  await client.fence();
  return error['code'];
}

const nested = (levels: number): string => `${'['.repeat(levels)}${']'.repeat(levels)}`;

describe('text that is no JSON', () => {
  it.each([
    ['an empty frame', ''],
    ['blanks', '  \n'],
    ['an open object', '{"type":"ping"'],
    ['two objects', '{"type":"ping"}{"type":"ping"}'],
    ['a word', 'ping'],
    ['single quotes', "{'type':'ping'}"],
    ['a comma too many', '{"type":"ping",}'],
    ['a comment', '{"type":"ping"}//'],
    ['NaN', '{"type":"chat","content":NaN}'],
    ['a leading zero', '{"type":"chat","content":01}'],
    ['a control character', '\u0000'],
    ['a raw line break in a string', '{"type":"chat","content":"a\nb"}'],
    ['a bad escape', '{"type":"chat","content":"\\x"}'],
    ['half an escape', '{"type":"chat","content":"\\u12"}'],
  ])('(%s) is answered invalid_json', async (_name, frame) => {
    expect(await answer(frame)).toBe('invalid_json');
  });
});

describe('JSON that is no message', () => {
  it.each([
    ['null', 'null'],
    ['true', 'true'],
    ['a number', '1'],
    ['a string', '"ping"'],
    ['a list', '[{"type":"ping"}]'],
    ['an empty object', '{}'],
    ['a type that is a number', '{"type":1}'],
    ['a type that is null', '{"type":null}'],
    ['a type that is a list', '{"type":["ping"]}'],
    ['a type that is an object', '{"type":{"toString":"ping"}}'],
    ['a type in __proto__', '{"__proto__":{"type":"ping"}}'],
    ['a type in constructor', '{"constructor":{"prototype":{"type":"ping"}}}'],
    ['fields in __proto__', '{"type":"join_room","__proto__":{"room":"a"}}'],
    ['a room that is a list', '{"type":"join_room","room":["a"]}'],
    ['a room that says it is a string', '{"type":"join_room","room":{"length":1,"toString":1}}'],
    ['65 levels', `{"type":"chat","content":${nested(64)}}`],
    ['65 levels of objects', `{"type":"chat","content":${'{"a":'.repeat(63)}{}${'}'.repeat(63)}}`],
    ['65 levels in a field that nobody knows', `{"type":"ping","x":${nested(64)}}`],
    ['30,000 levels', `{"type":"chat","content":${nested(30_000)}}`],
    ['30,000 levels and nothing else', nested(30_000)],
    ['30,000 levels that are never closed', '['.repeat(30_000)],
    [
      '30,000 levels behind a string with brackets',
      `{"type":"chat","x":"\\"]]]]","content":${nested(30_000)}}`,
    ],
  ])('(%s) is answered invalid_message', async (_name, frame) => {
    expect(await answer(frame)).toBe('invalid_message');
  });

  it.each([
    'nope',
    '',
    'PING',
    ' ping',
    'ping ',
    'connected',
    'error',
    'close',
    'message',
    'connection',
    '__proto__',
    'constructor',
    'prototype',
    'toString',
    'hasOwnProperty',
    'valueOf',
    'handleConnection',
  ])('with the type %j is answered unknown_type', async (type) => {
    expect(await answer(JSON.stringify({ type }))).toBe('unknown_type');
  });
});

describe('a message', () => {
  it.each([
    ['64 levels', `{"type":"ping","x":${nested(63)}}`],
    ['brackets in a string', `{"type":"ping","x":"${'['.repeat(1000)}"}`],
    ['brackets behind an escaped quote', `{"type":"ping","x":"\\"${'['.repeat(1000)}\\\\"}`],
    ['a key of brackets', `{"type":"ping","${'{'.repeat(1000)}":1}`],
    ['10,000 lists side by side', `{"type":"ping","x":[${Array(10_000).fill('[]').join()}]}`],
    ['blanks around it', ' \n{ "type" : "ping" }\t'],
    ['an escaped type', '{"\\u0074ype":"\\u0070ing"}'],
    [
      'keys of the prototype',
      '{"type":"ping","__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}',
    ],
    ['keys without a name', '{"type":"ping","":1," ":2}'],
  ])('with %s is understood', async (_name, frame) => {
    const client = await gateway().as(fresh('sender'));
    client.send(frame);
    expect(await client.next('pong')).toMatchObject({ event: 'pong' });
    expect(client.unread('error')).toEqual([]);
  });

  it('with a lone surrogate for a user gets an answer that is not internal', async () => {
    const client = await gateway().as(fresh('sender'));
    const reply = await client.request({ type: 'direct_message', target_user: '\udfff', content: 1 });
    expect(['ack', 'invalid_message']).toContain(reply['code'] ?? reply.event);
  });

  it('of users, rooms and ids called like the prototype mixes nothing up', async () => {
    const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty'];
    const clients = await Promise.all(names.map((name) => gateway().as(name)));
    for (const [index, client] of clients.entries()) {
      const room = names[index];
      expect(await client.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room', room });
      const { members } = await client.request({ type: 'presence', room });
      expect(members).toEqual([expect.objectContaining({ user_id: names[index], connections: 1 })]);
      expect(
        await client.request({ type: 'room_message', room, content: 1, message_id: room }),
      ).toMatchObject({ id: 1 });
    }
  });
});

describe('many keys', () => {
  const wide = serve({ MAX_MESSAGE_BYTES: '4194304', RATE_LIMIT_PER_SECOND: '0' });
  const keys = Array.from({ length: 100_000 }, (_value, index) => `"k${index}":${index}`).join();

  it('(100,000) beside the known ones are ignored', async () => {
    const client = await wide().connect();
    client.send(`{"type":"ping","ref":1,${keys}}`);
    expect(await client.next('pong')).toMatchObject({ ref: 1 });
  });

  it('(100,000) in the content arrive as they were sent', async () => {
    const [alice, bob] = (await Promise.all([wide().as('alice'), wide().as('bob')])) as [Client, Client];
    alice.send(`{"type":"chat","content":{${keys}}}`);
    const event = await bob.next('chat');
    expect(event['content']).toEqual(JSON.parse(`{${keys}}`));
  });

  it('(100,000) in a message over the limit close with 1009', async () => {
    const client = await gateway().connect();
    client.send(`{"type":"ping",${keys}}`);
    expect((await client.closed).code).toBe(1009);
  });
});

describe('any JSON value', () => {
  const types = [
    'chat',
    'join_room',
    'leave_room',
    'room_message',
    'direct_message',
    'presence',
    'auth',
    'ping',
    'pong',
  ];
  const names = fc.constantFrom(
    'room',
    'content',
    'target_user',
    'token',
    'limit',
    'cursor',
    'ref',
    'event',
    'message_id',
  );
  const anyValue = fc.jsonValue({ maxDepth: 3 });
  const message = fc
    .tuple(
      fc.option(fc.constantFrom(...types), { freq: 8 }),
      fc.dictionary(fc.oneof(names, fc.string()), anyValue),
    )
    .map(([type, fields]) => (type === null ? fields : { ...fields, type }));

  it('is answered by something else than internal, and closes nothing', async () => {
    const client = await gateway().as(fresh('fuzz'));
    const fault = new Promise<Message>((resolve) => {
      client.watch((received) => {
        if (received['code'] === 'internal') resolve(received);
      });
    });
    const samples = fc.sample(fc.oneof({ weight: 9, arbitrary: message }, anyValue), {
      numRuns: 3_000,
      seed: 20_261_122,
    });
    for (let start = 0; start < samples.length; start += 100) {
      const frames = samples.slice(start, start + 100).map((sample) => JSON.stringify(sample));
      for (const frame of frames) client.send(frame);
      const outcome = await Promise.race([fault, client.fence().then(() => 'served')]);
      expect(outcome, `after one of ${frames.join('\n')}`).toBe('served');
    }
    expect(client.closedWith).toBeUndefined();
  });
});

describe('a frame', () => {
  const code = (value: number, reason: Buffer | string = ''): Buffer => {
    const bytes = Buffer.alloc(2);
    bytes.writeUInt16BE(value);
    return Buffer.concat([bytes, Buffer.from(reason)]);
  };
  const text = (payload: Buffer | string): FrameOptions => ({ opcode: opcode.text, payload });
  const limit = 65_536;
  const padded = (bytes: number): string => {
    const frame = '{"type":"ping","x":""}';
    return `${frame.slice(0, -2)}${'x'.repeat(bytes - frame.length)}"}`;
  };

  const cases: [string, number, FrameOptions[]][] = [
    ['that is not masked', 1002, [{ payload: '{"type":"ping"}', masked: false }]],
    ['with RSV1', 1002, [{ payload: 'x', rsv: 4 }]],
    ['with RSV2', 1002, [{ payload: 'x', rsv: 2 }]],
    ['with RSV3', 1002, [{ payload: 'x', rsv: 1 }]],
    ['with RSV1 on a ping', 1002, [{ opcode: opcode.ping, rsv: 4 }]],
    ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((reserved): [string, number, FrameOptions[]] => [
      `with the reserved opcode ${reserved}`,
      1002,
      [{ opcode: reserved, payload: 'x' }],
    ]),
    ['that continues nothing', 1002, [{ opcode: opcode.continuation, payload: 'x' }]],
    ['that starts a message inside another', 1002, [{ ...text('a'), fin: false }, text('b')]],
    ['that is a ping in fragments', 1002, [{ opcode: opcode.ping, payload: 'a', fin: false }]],
    ['that is a ping of 126 bytes', 1002, [{ opcode: opcode.ping, payload: 'a'.repeat(126) }]],
    ['that is a pong of 126 bytes', 1002, [{ opcode: opcode.pong, payload: 'a'.repeat(126) }]],
    ['that is a close of one byte', 1002, [{ opcode: opcode.close, payload: 'a' }]],
    ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535].map(
      (bad): [string, number, FrameOptions[]] => [
        `that closes with ${bad}`,
        1002,
        [{ opcode: opcode.close, payload: code(bad) }],
      ],
    ),
    [
      'that closes with a reason that is no UTF-8',
      1007,
      [{ opcode: opcode.close, payload: code(1000, Buffer.of(0xff)) }],
    ],
    ['that is binary', 1003, [{ opcode: opcode.binary, payload: '{"type":"ping"}' }]],
    ['that is binary and empty', 1003, [{ opcode: opcode.binary }]],
    [
      'that is binary in fragments',
      1003,
      [
        { opcode: opcode.binary, payload: 'a', fin: false },
        { opcode: opcode.continuation, payload: 'b' },
      ],
    ],
    ['with a byte that is never UTF-8', 1007, [text(Buffer.of(0x22, 0xff, 0x22))]],
    ['with half a sequence', 1007, [text(Buffer.of(0x22, 0xe2, 0x82))]],
    ['with an overlong slash', 1007, [text(Buffer.of(0xc0, 0xaf))]],
    ['with an encoded surrogate', 1007, [text(Buffer.of(0xed, 0xa0, 0x80))]],
    ['beyond U+10FFFF', 1007, [text(Buffer.of(0xf4, 0x90, 0x80, 0x80))]],
    [
      'with bad UTF-8 in its second fragment',
      1007,
      [
        { ...text('a'), fin: false },
        { opcode: opcode.continuation, payload: Buffer.of(0xff) },
      ],
    ],
    ['one byte over the limit', 1009, [text(padded(limit + 1))]],
    ['over the limit in bytes, not in characters', 1009, [text(`"${'é'.repeat(limit / 2)}"`)]],
    ['that claims 2^40 bytes', 1009, [{ payload: 'x', claimedLength: 2n ** 40n }]],
    ['that claims 2^62 bytes', 1009, [{ payload: 'x', claimedLength: 2n ** 62n }]],
    ['that claims 2^64 - 1 bytes', 1009, [{ payload: 'x', claimedLength: 2n ** 64n - 1n }]],
    [
      'that takes its message over the limit',
      1009,
      [
        { ...text('x'.repeat(40_000)), fin: false },
        { opcode: opcode.continuation, payload: 'x'.repeat(40_000) },
      ],
    ],
    [
      'of one byte, 20,000 times for one message',
      1008,
      [
        { ...text('"'), fin: false },
        ...Array.from({ length: 20_000 }, () => ({ opcode: opcode.continuation, payload: 'x', fin: false })),
      ],
    ],
    [
      'without a byte, 20,000 times for one message',
      1008,
      [
        { ...text(''), fin: false },
        ...Array.from({ length: 20_000 }, () => ({ opcode: opcode.continuation, fin: false })),
      ],
    ],
  ];

  it.each(cases)('%s closes with %i', async (_name, expected, frames) => {
    const raw = await gateway().raw();
    await raw.nextEvent('connected');
    raw.write(Buffer.concat(frames.map(encode)));
    expect((await raw.closed).code).toBe(expected);
    raw.destroy();
  });

  it('of exactly the limit is understood', async () => {
    const client = await gateway().connect();
    client.send(padded(limit));
    expect(await client.next('pong')).toMatchObject({ event: 'pong' });
  });

  it('that are 1,000 protocol pings at once are answered, many more are a flood', async () => {
    const raw = await gateway().raw();
    await raw.nextEvent('connected');
    const pings = (count: number): Buffer =>
      Buffer.concat(
        Array.from({ length: count }, (_, index) => encode({ opcode: opcode.ping, payload: `${index}` })),
      );
    const pongs = () =>
      raw.frames.filter((frame) => frame.opcode === opcode.pong).map((frame) => String(frame.payload));
    const all = Array.from({ length: 1_000 }, (_, index) => `${index}`);
    raw.write(pings(1_000));
    await eventually(() => expect(pongs()).toEqual(all));
    raw.write(pings(1_000));
    await eventually(() => expect(pongs()).toEqual([...all, ...all]));
    raw.write(pings(100_000));
    expect(await raw.closed).toEqual({ code: 4029, reason: 'rate limit' });
    raw.destroy();
  });

  it.each([
    ['a close frame', { opcode: opcode.close, payload: Buffer.from([0x03, 0xe8]) }, 1000],
    ['a frame that is none', { opcode: 3 }, 1002],
  ])('are answered before %s behind them is, and nothing comes after', async (_name, last, code) => {
    const raw = await gateway().raw();
    await raw.nextEvent('connected');
    const all = [
      { opcode: opcode.ping, payload: 'a' },
      text('{"type":"ping"}'),
      { opcode: opcode.ping, payload: 'b' },
    ];
    raw.write(Buffer.concat([...all, last].map(encode)));
    expect((await raw.closed).code).toBe(code);
    const answers = raw.frames
      .slice(-4)
      .map((frame) => [frame.opcode, frame.payload.subarray(0, 16).toString()]);
    expect(answers.slice(0, 3)).toEqual([
      [opcode.pong, 'a'],
      [opcode.text, '{"event":"pong"}'],
      [opcode.pong, 'b'],
    ]);
    expect(answers[3]?.[0]).toBe(opcode.close);
    raw.destroy();
  });

  it('may come in a few fragments, with a ping between them', async () => {
    const raw = await gateway().raw();
    await raw.nextEvent('connected');
    raw.send({ ...text('{"type":'), fin: false });
    raw.send({ opcode: opcode.ping, payload: 'between' });
    raw.send({ opcode: opcode.continuation, payload: '', fin: false });
    raw.send({ opcode: opcode.continuation, payload: '"ping"}' });
    const pong = await raw.next((frame) => frame.opcode === opcode.pong);
    expect(pong.payload.toString()).toBe('between');
    expect((await raw.nextEvent('pong')).fin).toBe(true);
    raw.destroy();
  });

  it('may come byte by byte', async () => {
    const raw = await gateway().raw();
    await raw.nextEvent('connected');
    for (const byte of encode({ payload: '{"type":"ping","ref":"slow"}' })) raw.write(Buffer.of(byte));
    expect((await raw.nextEvent('pong')).payload.toString()).toContain('"slow"');
    raw.destroy();
  });

  it('that closes is answered by the same code', async () => {
    const raw = await gateway().raw();
    await raw.nextEvent('connected');
    raw.send({ opcode: opcode.close, payload: code(1000, 'bye') });
    expect((await raw.closed).code).toBe(1000);
    raw.destroy();
  });

  it.each([
    ['nothing', (raw: { destroy: () => void }) => raw.destroy()],
    [
      'half a frame',
      (raw: { write: (bytes: Buffer) => void; destroy: () => void }) => {
        raw.write(Buffer.of(0x81, 0xfe, 0x7f));
        raw.destroy();
      },
    ],
    ['a reset', (raw: { reset: () => void }) => raw.reset()],
  ])('that never comes, but %s and the end of the connection, leaves nothing behind', async (_name, end) => {
    const raw = await gateway().raw();
    await raw.nextEvent('connected');
    end(raw);
    expect((await raw.closed).code).toBeUndefined();
  });
});

describe('a flood of pings', () => {
  it('that reads its pongs is served or cut off, and others do not notice', async () => {
    const other = await gateway().connect();
    const raw = await gateway().raw();
    await raw.nextEvent('connected');
    raw.write(
      Buffer.concat(Array.from({ length: 20_000 }, () => encode({ opcode: opcode.ping, payload: 'x' }))),
    );
    raw.send({ opcode: opcode.ping, payload: 'last' });
    const last = raw.next((frame) => frame.opcode === opcode.pong && frame.payload.toString() === 'last');
    const outcome = await Promise.race([
      last.then(
        () => 'served',
        () => 'cut off',
      ),
      raw.closed.then(() => 'cut off'),
    ]);
    expect(['served', 'cut off']).toContain(outcome);
    expect(await other.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
    raw.destroy();
  });
});

describe('a handshake', () => {
  const bytes = async (request: string): Promise<string> => {
    const target = new URL(gateway().url);
    const socket = await dial(target.hostname, Number(target.port));
    socket.write(request);
    return readToEnd(socket);
  };
  const request = (headers: Record<string, string>): string =>
    upgradeRequest(new URL(gateway().ws()), headers).replace(/^.*: absent\r\n/gm, '');

  it.each([
    ['of garbage', () => '\u0000\u0001garbage\r\n\r\n'],
    ['without a key', () => request({ 'Sec-WebSocket-Key': 'absent' })],
    ['with a short key', () => request({ 'Sec-WebSocket-Key': 'c2hvcnQ=' })],
    ['of an old version', () => request({ 'Sec-WebSocket-Version': '7' })],
    ['with a path of bytes', () => 'GET /ws/\u0001 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n'],
    ['with 20 KB of headers', () => request({ 'X-Long': 'x'.repeat(20_000) })],
    ['with a subprotocol that is no token', () => request({ 'Sec-WebSocket-Protocol': 'a,,b' })],
    ['of another protocol', () => request({ Upgrade: 'h2c' })],
  ])('%s is refused with a status of 4xx', async (_name, build) => {
    expect(await bytes(build())).toMatch(/^HTTP\/1\.1 4\d\d /);
  });

  it.each([
    ['before the end of its headers', (whole: string) => whole.slice(0, whole.length / 2)],
    ['right after it', (whole: string) => whole],
  ])('that is cut off %s leaves nothing behind', async (_name, cut) => {
    const target = new URL(gateway().url);
    const socket = await dial(target.hostname, Number(target.port));
    socket.write(cut(request({})));
    socket.resetAndDestroy();
    const client = await gateway().connect();
    expect(await client.request({ type: 'ping' })).toMatchObject({ event: 'pong' });
  });
});

describe('what clients call their messages', () => {
  it('never becomes the label of a metric', async () => {
    const client = await gateway().connect();
    for (const type of ['made-up', '__proto__', 'x"} 1']) client.send({ type });
    await client.fence();
    const exposition = await (await fetch(`${gateway().url}/metrics`)).text();
    expect(exposition).not.toMatch(/made-up|__proto__|x\\"/);
    expect(metric(exposition, 'fanfare_messages_received_total', { type: 'ping' })).toBeGreaterThan(0);
  });
});
