import { afterEach, describe, expect, it, vi } from 'vitest';
import { Broker } from '../../src/core/broker.js';
import { number, text, type Client, type Message } from '../support/client.js';
import { brokers, idsAfter, Scene, serveOver, type ChannelKind } from '../support/durable.js';
import type { Gateway } from '../support/gateway.js';
import { fresh } from '../support/names.js';
import { secret, token } from '../support/tokens.js';

const kinds: ChannelKind[] = ['room', 'broadcast', 'direct'];

afterEach(() => {
  vi.restoreAllMocks();
});

function gaps(client: Client): Message[] {
  return client.all.filter(({ event }) => event === 'gap');
}

describe.each(brokers)('a resume over %s', (_name, broker) => {
  const gateway = serveOver(broker, {
    JWT_SECRET: secret,
    PRESENCE_GRACE_MS: '0',
    EPHEMERAL_CHANNELS: 'room:cursor:*',
  });

  describe.each(kinds)('of a %s channel', (kind) => {
    it.each([
      ['with the epoch', true],
      ['without the epoch', false],
    ])('%s brings every missed event once and in order, then the live ones', async (_how, withEpoch) => {
      const scene = await Scene.open(gateway(), kind);
      const first = await scene.read();
      const { id: base, epoch } = first.position;
      await scene.publish(3);
      await first.client.next((message) => message['id'] === base + 3);
      await first.client.cut();
      await scene.publish(7);
      const again = await scene.read({ id: base + 3, epoch: withEpoch ? epoch : undefined });
      expect(again.recovered).toBe(true);
      // `replayed` is the number of events up to `last_event_id`, wherever that is: the rest are live ones.
      expect(again.replayed).toBe(kind === 'room' ? again.position.id - base - 3 : undefined);
      await scene.publish(2);
      const { story, marker } = await scene.whole(again.client);
      // The reply is first, then what was missed, then what is live.
      expect(story).toEqual(['reply', ...idsAfter(base + 3, marker)]);
      expect(marker).toBe(base + 13);
    });

    it('from the head is recovered, with nothing to replay', async () => {
      const scene = await Scene.open(gateway(), kind);
      await scene.publish(2);
      const { position } = await scene.read();
      const again = await scene.read(position);
      expect(again).toMatchObject({ recovered: true, position });
      const { story, marker } = await scene.whole(again.client);
      expect(story).toEqual(['reply', marker]);
    });

    it('without a point is not recovered and starts with the live events', async () => {
      const scene = await Scene.open(gateway(), kind);
      await scene.publish(3);
      const reader = await scene.read();
      expect(reader.recovered).toBe(false);
      const { story, marker } = await scene.whole(reader.client);
      expect(story).toEqual(['reply', marker]);
    });

    it.each([
      ['of another life', () => 'otherlife.1'],
      ['of another life, never written', () => 'otherlife.0'],
      ['of another birth in this life', (epoch: string) => `${epoch.split('.')[0] ?? ''}.987654321`],
      ['that is empty', () => ''],
      ['that is no epoch at all', () => '{}"\n'],
    ])('from an epoch %s is told by a gap, without a partial replay', async (_what, other) => {
      const scene = await Scene.open(gateway(), kind);
      await scene.publish(5);
      const { position } = await scene.read();
      expect(position.id).toBeGreaterThanOrEqual(5);
      const after = position.id - 3;
      const reader = await scene.read({ id: after, epoch: other(position.epoch) });
      expect(reader).toMatchObject({ recovered: false, position });
      expect(reader.replayed).toBe(kind === 'room' ? 0 : undefined);
      const { story, marker } = await scene.whole(reader.client);
      expect(story).toEqual(['reply', { after, next: position.id + 1, epoch: position.epoch }, marker]);
      expect(gaps(reader.client)).toEqual([expect.objectContaining({ event: 'gap', ...scene.fields })]);
    });

    it.each([1, 1_000, Number.MAX_SAFE_INTEGER - 1_000])(
      'from an id %d ahead of the channel is told by a gap',
      async (ahead) => {
        const scene = await Scene.open(gateway(), kind);
        await scene.publish(2);
        for (const isNamed of [true, false]) {
          const { position } = await scene.read();
          const after = position.id + ahead;
          const reader = await scene.read({ id: after, epoch: isNamed ? position.epoch : undefined });
          expect(reader).toMatchObject({ recovered: false, position });
          const { story, marker } = await scene.whole(reader.client);
          expect(story).toEqual(['reply', { after, next: marker, epoch: position.epoch }, marker]);
        }
      },
    );

    it('goes on from what the user acknowledged on another device, and the highest id counts', async () => {
      const scene = await Scene.open(gateway(), kind);
      const phone = await scene.read();
      const ids = await scene.publish(6);
      const [third, fifth] = [Number(ids[2]), Number(ids[4])];
      const { epoch } = (await scene.read()).position;
      for (const [id, named] of [
        [fifth, undefined],
        [third, epoch],
      ] as const) {
        expect(
          await phone.client.request({
            type: 'ack_events',
            ...scene.fields,
            last_event_id: id,
            epoch: named,
          }),
        ).toMatchObject({ event: 'ack' });
      }
      const tablet = await scene.read({ id: 'acked' });
      expect(tablet).toMatchObject({ recovered: true, position: { id: ids[5], epoch } });
      const { story, marker } = await scene.whole(tablet.client);
      expect(story).toEqual(['reply', ...idsAfter(fifth, marker)]);
    });

    it('from "acked" without a remembered position is as if none was given', async () => {
      const scene = await Scene.open(gateway(), kind);
      await scene.publish(3);
      const reader = await scene.read({ id: 'acked' });
      expect(reader).toMatchObject({ recovered: false });
      const { story, marker } = await scene.whole(reader.client);
      expect(story).toEqual(['reply', marker]);
    });
  });

  it('from "acked" goes on from what this user acknowledged, not another one', async () => {
    const scene = await Scene.open(gateway(), 'room');
    await scene.publish(3);
    await scene.writer.request({ type: 'ack_events', room: scene.room, last_event_id: 1 });
    const stranger = await scene.read({ id: 'acked' });
    expect(stranger.recovered).toBe(false);
    expect((await scene.whole(stranger.client)).story).toEqual(['reply', 4]);
  });

  describe('of a channel that was never written', () => {
    it.each(['room', 'direct'] as const)(
      'is at id 0 (%s), and its first event is no epoch change',
      async (kind) => {
        const scene = await Scene.open(gateway(), kind);
        const reader = await scene.read();
        expect(reader).toMatchObject({ position: { id: 0 }, recovered: false });
        const unborn = reader.position;
        expect(await scene.read(unborn)).toMatchObject({ recovered: true, position: unborn });
        await scene.publish(5);
        expect((await scene.whole(reader.client)).story).toEqual(['reply', 1, 2, 3, 4, 5, 6]);
        // The epoch that was learnt at id 0 stays good, with id 0 and with every id that was seen since.
        for (const id of [0, 1, 4, 6]) {
          const again = await scene.read({ id, epoch: unborn.epoch });
          expect(again).toMatchObject({ recovered: true });
          const { story, marker } = await scene.whole(again.client);
          expect(story).toEqual(['reply', ...idsAfter(id, marker)]);
          await again.client.cut();
        }
        const born = (await scene.read()).position;
        expect(await scene.read({ id: 0, epoch: born.epoch })).toMatchObject({ recovered: true });
        const beyond = await scene.read({ id: born.id + 1, epoch: unborn.epoch });
        expect(beyond.recovered).toBe(false);
        expect((await scene.whole(beyond.client)).story[1]).toEqual({
          after: born.id + 1,
          next: born.id + 1,
          epoch: born.epoch,
        });
      },
    );

    it('from an id ahead of it is told by a gap', async () => {
      const scene = await Scene.open(gateway(), 'room');
      const reader = await scene.read({ id: 3 });
      expect(reader).toMatchObject({ recovered: false, position: { id: 0 }, replayed: 0 });
      const { story } = await scene.whole(reader.client);
      expect(story).toEqual(['reply', { after: 3, next: 1, epoch: reader.position.epoch }, 1]);
    });
  });

  describe('by rewind', () => {
    it.each([
      [1, [5]],
      [3, [3, 4, 5]],
      [5, [1, 2, 3, 4, 5]],
      [100, [1, 2, 3, 4, 5]],
    ])('of %d brings the last events and claims no recovery', async (count, missed) => {
      const scene = await Scene.open(gateway(), 'room');
      await scene.publish(5);
      const reader = await scene.read({ rewind: count });
      expect(reader).toMatchObject({ recovered: false, replayed: missed.length, position: { id: 5 } });
      expect((await scene.whole(reader.client)).story).toEqual(['reply', ...missed, 6]);
    });

    it('of a channel that was never written brings nothing', async () => {
      const scene = await Scene.open(gateway(), 'room');
      const reader = await scene.read({ rewind: 10 });
      expect(reader).toMatchObject({ recovered: false, replayed: 0, position: { id: 0 } });
      expect((await scene.whole(reader.client)).story).toEqual(['reply', 1]);
    });
  });

  it('of an ephemeral room is answered `recovered: false` without a gap', async () => {
    const room = `cursor:${fresh('c')}`;
    const [writer, reader] = [await gateway().as(fresh('w')), await gateway().as(fresh('r'))];
    await writer.request({ type: 'join_room', room });
    const ack = await writer.request({ type: 'room_message', room, content: 1, message_id: 'm' });
    expect(ack).toEqual({ event: 'ack', ref: ack['ref'] });
    for (const point of [{ last_event_id: 3, epoch: 'x.1' }, { rewind: 5 }, { last_event_id: 'acked' }, {}]) {
      expect(await reader.request({ type: 'join_room', room, ...point })).toMatchObject({
        event: 'joined_room',
        recovered: false,
        replayed: 0,
        last_event_id: null,
        epoch: null,
      });
    }
    for (const content of [2, 3])
      await writer.request({ type: 'room_message', room, content, message_id: 'm' });
    const events = await reader.take('chat', 2);
    expect(events.map(({ content, message_id }) => [content, message_id])).toEqual([
      [2, 'm'],
      [3, 'm'],
    ]);
    expect(events.flatMap((event) => ('id' in event ? [event] : []))).toEqual([]);
    expect(await reader.settled((message) => message.event === 'gap' || message.event === 'chat')).toEqual(
      [],
    );
  });

  it('of broadcast and direct messages together brings both, each once and in order', async () => {
    const user = fresh('reader');
    const writer = await gateway().as(fresh('writer'));
    const { connected: start } = await gateway().as(user);
    const direct = { type: 'direct_message', target_user: user };
    for (const content of [1, 2, 3]) {
      await writer.request({ type: 'chat', content });
      await writer.request({ ...direct, content });
    }
    const base = number(start, 'last_event_id');
    const query = {
      lastEventId: String(base),
      epoch: text(start, 'epoch'),
      lastDirectEventId: '1',
      directEpoch: text(start, 'direct_epoch'),
    };
    const reader = await gateway().as(user, { query });
    expect(reader.connected).toMatchObject({
      recovered: true,
      last_event_id: base + 3,
      last_direct_event_id: 3,
    });
    expect(reader.all[0]?.event).toBe('connected');
    for (const content of [4, 5]) {
      await writer.request({ type: 'chat', content });
      await writer.request({ ...direct, content });
    }
    const chats = await reader.take('chat', 9);
    const contents = (isDirect: boolean): unknown[] =>
      chats.filter((chat) => (chat['direct'] === true) === isDirect).map(({ content }) => content);
    expect([contents(false), contents(true)]).toEqual([
      [1, 2, 3, 4, 5],
      [2, 3, 4, 5],
    ]);

    // One of the two that can't be had: it alone is told by a gap, and the whole is not recovered.
    const half = await gateway().as(user, { query: { ...query, lastDirectEventId: '77' } });
    expect(half.connected).toMatchObject({ recovered: false, last_direct_event_id: 5 });
    const missed = await half.take('chat', 5);
    expect(missed.map(({ content }) => content)).toEqual([1, 2, 3, 4, 5]);
    expect(await half.settled('chat')).toEqual([]);
    expect(gaps(half)).toEqual([
      { event: 'gap', direct: true, after: 77, next: 6, epoch: half.connected['direct_epoch'] },
    ]);
    const other = await gateway().as(user, { query: { ...query, epoch: 'other.1' } });
    expect(other.connected['recovered']).toBe(false);
    expect((await other.take('chat', 4)).map(({ content }) => content)).toEqual([2, 3, 4, 5]);
    expect(gaps(other)).toEqual([
      { event: 'gap', after: base, next: base + 6, epoch: other.connected['epoch'] },
    ]);
  });

  it('gives a user who was offline the direct messages of that time', async () => {
    const user = fresh('offline');
    const writer = await gateway().as(fresh('writer'));
    for (const content of ['one', 'two']) {
      const ack = await writer.request({ type: 'direct_message', target_user: user, content });
      expect(ack.event).toBe('ack');
    }
    const reader = await gateway().as(user, { query: { lastDirectEventId: '0' } });
    expect(reader.connected).toMatchObject({ recovered: true, last_direct_event_id: 2 });
    expect(await reader.take('chat', 2)).toMatchObject([
      { content: 'one', id: 1, direct: true, from: writer.userId },
      { content: 'two', id: 2, direct: true, from: writer.userId },
    ]);
  });

  it('may hand a connection its own earlier chat, with its message_id and the id of the ack', async () => {
    const user = fresh('writer');
    const before = await gateway().as(user);
    const ack = await before.request({ type: 'chat', content: 'mine', message_id: 'm-1' });
    const id = number(ack, 'id');
    await before.cut();
    const after = await gateway().as(user, { query: { lastEventId: String(id - 1) } });
    expect(await after.next('chat')).toMatchObject({ content: 'mine', message_id: 'm-1', id });
  });

  describe('by a member', () => {
    it('who joins again without a point gets a reply and nothing twice', async () => {
      const scene = await Scene.open(gateway(), 'room');
      const { client } = await scene.read();
      await scene.publish(2);
      await client.take('chat', 2);
      expect(await scene.join(client)).toMatchObject({ recovered: false, replayed: 0, position: { id: 2 } });
      expect((await scene.whole(client)).story).toEqual(['reply', 3]);
    });

    it('who joins again with an id is put back to it, and live once after', async () => {
      const scene = await Scene.open(gateway(), 'room');
      const { client } = await scene.read();
      await scene.publish(4);
      await client.take('chat', 4);
      expect(await scene.join(client, { id: 1 })).toMatchObject({ recovered: true, replayed: 3 });
      expect((await scene.whole(client)).story).toEqual(['reply', 2, 3, 4, 5]);
    });

    it('who left and comes back with the id goes on there', async () => {
      const scene = await Scene.open(gateway(), 'room');
      const { client, position } = await scene.read();
      await scene.publish(2);
      await client.take('chat', 2);
      await client.request({ type: 'leave_room', room: scene.room });
      await scene.publish(3);
      expect(await scene.join(client, { id: 2, epoch: position.epoch })).toMatchObject({
        recovered: true,
        replayed: 3,
      });
      expect((await scene.whole(client)).story).toEqual(['reply', 3, 4, 5, 6]);
    });
  });

  it('needs the right to the room', async () => {
    const scene = await Scene.open(gateway(), 'room');
    await scene.publish(3);
    const { user, room } = scene;
    const allowed = await gateway().bearing(token(user, { rooms: { join: [room] } }));
    expect(await scene.join(allowed, { id: 0 })).toMatchObject({ recovered: true, replayed: 3 });
    const barred = await gateway().bearing(token(user, { rooms: { join: ['elsewhere'] } }));
    for (const point of [{ last_event_id: 0 }, { rewind: 3 }, { last_event_id: 'acked' }]) {
      expect(await barred.request({ type: 'join_room', room, ...point })).toMatchObject({
        event: 'error',
        code: 'forbidden',
      });
    }
    // Rights that were taken away by a new token count for the next resume of the same connection.
    await allowed.request({ type: 'auth', token: token(user, { rooms: { join: [] } }) });
    await allowed.next('left_room');
    expect(await allowed.request({ type: 'join_room', room, last_event_id: 1 })).toMatchObject({
      code: 'forbidden',
    });
    await scene.publish();
    expect(await barred.settled((message) => message['room'] === room)).toEqual([]);
    await allowed.take('chat', 3);
    expect(await allowed.settled('chat')).toEqual([]);
  });

  describe('that is malformed', () => {
    const values = ['', '-', '$', '+', '-1', '+1', '1.5', '1e3', '0x1', ' 1', '1 ', 'NaN', 'ACKED', '(1'];
    const large = ['9007199254740992', '99999999999999999999', '1'.repeat(400)];
    it.each([...values, ...large])('in the query is 400: "%s"', async (value) => {
      for (const name of ['lastEventId', 'lastDirectEventId']) {
        const refusal = await gateway().refused('/ws', { query: { [name]: value } });
        expect([name, refusal.status]).toEqual([name, 400]);
      }
    });

    it.each(['epoch', 'directEpoch'])('in the query is 400: %s too long', async (name) => {
      const refusal = await gateway().refused('/ws', { query: { [name]: 'e'.repeat(1_000) } });
      expect(refusal.status).toBe(400);
    });

    it('in the query is 400: given twice', async () => {
      const refusal = await gateway().refused('/ws?lastEventId=1&lastEventId=2');
      expect(refusal.status).toBe(400);
    });

    it.each([
      ['last_event_id', '5'],
      ['last_event_id', ''],
      ['last_event_id', 'ACKED'],
      ['last_event_id', '$'],
      ['last_event_id', -1],
      ['last_event_id', 1.5],
      ['last_event_id', 2 ** 53],
      ['last_event_id', 1e300],
      ['last_event_id', true],
      ['last_event_id', []],
      ['last_event_id', {}],
      ['epoch', 5],
      ['epoch', 'e'.repeat(1_000)],
      ['epoch', {}],
      ['rewind', 0],
      ['rewind', -1],
      ['rewind', 101],
      ['rewind', 1.5],
      ['rewind', '5'],
      ['rewind', 'acked'],
    ])('in join_room is invalid_message: %s %j', async (field, value) => {
      const client = await gateway().as(fresh('client'));
      const room = fresh('room');
      const point = field === 'epoch' ? { last_event_id: 0 } : {};
      expect(await client.request({ type: 'join_room', room, ...point, [field]: value })).toMatchObject({
        event: 'error',
        code: 'invalid_message',
        details: [{ field, problem: expect.any(String) as unknown }],
      });
      expect(await client.request({ type: 'room_message', room, content: 1 })).toMatchObject({
        code: 'not_in_room',
      });
    });

    it('in join_room is invalid_message: last_event_id together with rewind', async () => {
      const client = await gateway().as(fresh('client'));
      const join = { type: 'join_room', room: fresh('room'), last_event_id: 0, rewind: 1 };
      expect(await client.request(join)).toMatchObject({ event: 'error', code: 'invalid_message' });
    });
  });

  it('races with a writer at full speed without a loss or a double at any seam', async () => {
    const scene = await Scene.open(gateway(), 'room');
    const reader = await scene.read();
    let at = reader.position.id;
    const published = scene.publish(1_500);
    let isWriting = true;
    void published.finally(() => (isWriting = false));
    let seams = 0;
    const seen: number[] = [];
    let { client } = reader;
    while (isWriting) {
      seams += 1;
      if (seams % 5 === 0) {
        await client.cut();
        client = await gateway().as(scene.user);
      } else {
        await client.request({ type: 'leave_room', room: scene.room });
      }
      client.forget();
      const again = await scene.join(client, { id: at });
      expect(again.recovered).toBe(true);
      // The writer may have ended meanwhile, and then nothing comes any more.
      await Promise.race([client.next('chat').catch(() => null), published]);
      await client.fence();
      const told = scene.story(client).filter((entry) => typeof entry === 'number');
      seen.push(...told);
      at = told.at(-1) ?? at;
      // What comes between the fence and the next join is read again: only ids up to `at` count as seen.
    }
    await published;
    expect(seams).toBeGreaterThan(20);
    const last = await scene.read({ id: at });
    const { story, marker } = await scene.whole(last.client);
    seen.push(...story.filter((entry) => typeof entry === 'number'));
    expect(seen).toEqual(idsAfter(0, marker));
    expect(gaps(client)).toEqual([]);
  });
});

describe.each(brokers)('a resume over %s, of channels that keep five events', (_name, broker) => {
  const gateway = serveOver(broker, { HISTORY_SIZE: '5' });

  it.each(kinds)('from an id that is older than what a %s channel keeps is told by a gap', async (kind) => {
    const scene = await Scene.open(gateway(), kind);
    await scene.publish(12);
    const { position } = await scene.read();
    for (const [behind, isKept] of [
      [12, false],
      [6, false],
      [5, true],
      [1, true],
    ] as const) {
      const head = (await scene.read()).position.id;
      const after = head - behind;
      const reader = await scene.read({ id: after, epoch: position.epoch });
      expect(reader).toMatchObject({ recovered: isKept, position: { id: head, epoch: position.epoch } });
      const { story, marker } = await scene.whole(reader.client);
      const gap = { after, next: head + 1, epoch: position.epoch };
      expect(story).toEqual(['reply', ...(isKept ? idsAfter(after, head) : [gap]), marker]);
    }
  });

  it('by rewind brings what is kept, without a gap', async () => {
    const scene = await Scene.open(gateway(), 'room');
    await scene.publish(12);
    const reader = await scene.read({ rewind: 100 });
    expect(reader).toMatchObject({ recovered: false, replayed: 5, position: { id: 12 } });
    expect((await scene.whole(reader.client)).story).toEqual(['reply', 8, 9, 10, 11, 12, 13]);
  });

  it('from an acknowledged id that is too old is told by a gap', async () => {
    const scene = await Scene.open(gateway(), 'room');
    const { client } = await scene.read();
    await scene.publish(2);
    await client.request({ type: 'ack_events', room: scene.room, last_event_id: 2 });
    await scene.publish(10);
    const tablet = await scene.read({ id: 'acked' });
    expect(tablet.recovered).toBe(false);
    const { story } = await scene.whole(tablet.client);
    expect(story).toEqual(['reply', { after: 2, next: 13, epoch: tablet.position.epoch }, 13]);
  });
});

describe.each(brokers)('a resume over %s, of channels whose events live one second', (_name, broker) => {
  const gateway = serveOver(broker, { HISTORY_TTL_SECONDS: '1' });

  it('outlives its events: the head is still recovered, what is gone is told by a gap', async () => {
    const scene = await Scene.open(gateway(), 'room');
    await scene.publish(3);
    const { client, position } = await scene.read();
    await vi.waitFor(
      async () => {
        const { events } = await client.request({ type: 'history', room: scene.room });
        expect(events).toEqual([]);
      },
      { timeout: 5_000, interval: 50 },
    );
    expect(await scene.read(position)).toMatchObject({ recovered: true, position });
    const late = await scene.read({ id: 2, epoch: position.epoch });
    expect(late).toMatchObject({ recovered: false, position });
    expect((await scene.whole(late.client)).story).toEqual([
      'reply',
      { after: 2, next: 4, epoch: position.epoch },
      4,
    ]);
  });
});

describe.each(brokers)('a resume over %s, where everybody’s channels are ephemeral', (_name, broker) => {
  const gateway = serveOver(broker, { EPHEMERAL_CHANNELS: 'broadcast,user:*' });

  it('by the query is answered `recovered: false` without a gap', async () => {
    const writer = await gateway().as(fresh('writer'));
    const queries: Record<string, string>[] = [
      { lastEventId: '5', lastDirectEventId: '5', epoch: 'x.1' },
      { lastEventId: 'acked', lastDirectEventId: 'acked' },
    ];
    for (const query of queries) {
      const reader = await gateway().as(fresh('reader'), { query });
      expect(reader.connected).toMatchObject({
        recovered: false,
        last_event_id: null,
        epoch: null,
        last_direct_event_id: null,
        direct_epoch: null,
      });
      await writer.request({ type: 'chat', content: 'all' });
      await writer.request({ type: 'direct_message', target_user: reader.userId, content: 'one' });
      expect((await reader.take('chat', 2)).map(({ content }) => content)).toEqual(['all', 'one']);
      expect(await reader.settled('gap')).toEqual([]);
    }
  });
});

describe.each(brokers)('a replay over %s', (_name, broker) => {
  const gateway = serveOver(broker, { SLOW_CONSUMER_BYTES: '65536', HISTORY_SIZE: '5000' });

  it(
    'of 3,000 events never makes a slow consumer of a client that reads, and is in order',
    { timeout: 40_000 },
    async () => {
      const scene = await Scene.open(gateway(), 'direct');
      await scene.publish(3_000, 'x'.repeat(1_024));
      const readers = await Promise.all([0, 1_000, 2_999].map((id) => scene.read({ id })));
      expect(readers.map(({ recovered }) => recovered)).toEqual([true, true, true]);
      await scene.publish(200);
      for (const [index, { client }] of readers.entries()) {
        await client.next((message) => message['id'] === 3_200, 20_000);
        expect(scene.story(client)).toEqual(['reply', ...idsAfter([0, 1_000, 2_999][index] ?? 0, 3_200)]);
        expect(client.closedWith).toBeUndefined();
      }
    },
  );

  it(
    'of events that are large never makes a slow consumer of a client that reads',
    { timeout: 40_000 },
    async () => {
      const scene = await Scene.open(gateway(), 'direct');
      await scene.publish(400, 'x'.repeat(60_000));
      const { client, recovered } = await scene.read({ id: 0 });
      expect(recovered).toBe(true);
      await client.next((message) => message['id'] === 400, 20_000);
      expect(scene.story(client)).toEqual(['reply', ...idsAfter(0, 400)]);
    },
  );

  it(
    'never makes a slow consumer of a client that reads by what is published meanwhile',
    { timeout: 40_000 },
    async () => {
      const scene = await Scene.open(gateway(), 'direct');
      await scene.publish(2, 'x'.repeat(60_000));
      const held = holdHistory(gateway(), 1);
      const reader = scene.read({ id: 0 });
      await held.asked;
      await scene.publish(150, 'x'.repeat(60_000));
      held.release();
      const { client } = await reader;
      await client.next((message) => message['id'] === 152, 20_000);
      expect(scene.story(client)).toEqual(['reply', ...idsAfter(0, 152)]);
    },
  );
});

describe.each(brokers)('a replay over %s that trimming overtakes', (_name, broker) => {
  const gateway = serveOver(broker, { HISTORY_SIZE: '400' });

  it('has a gap in the place of what is gone, and goes on after it', async () => {
    const scene = await Scene.open(gateway(), 'direct');
    await scene.publish(400);
    // The first page is read at once, the second when its events have been pushed out of the log.
    const held = holdHistory(gateway(), 2);
    const { client, recovered, position } = await scene.read({ id: 0 });
    expect(recovered).toBe(true);
    await client.next((message) => message['id'] === 256);
    await held.asked;
    await scene.publish(500);
    held.release();
    const { story, marker } = await scene.whole(client);
    // The marker is an event, too: where it comes before the page is read, one more is gone.
    const next = story.includes(501) ? 501 : 502;
    expect(story).toEqual([
      'reply',
      ...idsAfter(0, 256),
      { after: 256, next, epoch: position.epoch },
      ...idsAfter(next - 1, marker),
    ]);
  });
});

/** Keeps the broker's answer to the nth question for history back until it is released. */
function holdHistory(gateway: Gateway, nth: number): { asked: Promise<void>; release: () => void } {
  const store = gateway.app.get(Broker);
  const history = store.history.bind(store);
  let count = 0;
  let wasAsked = (): void => undefined;
  let release = (): void => undefined;
  const asked = new Promise<void>((resolve) => {
    wasAsked = resolve;
  });
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  vi.spyOn(store, 'history').mockImplementation(async (...question) => {
    count += 1;
    if (count === nth) {
      wasAsked();
      await released;
    }
    return history(...question);
  });
  return { asked, release };
}
