import { describe, expect, it, vi } from 'vitest';
import { number, text, type Client, type Message } from '../support/client.js';
import { brokers, idsAfter, Scene, serveOver } from '../support/durable.js';
import { fresh } from '../support/names.js';
import { secret, token } from '../support/tokens.js';

function events(reply: Message): Message[] {
  const list = reply['events'];
  if (!Array.isArray(list)) throw new Error(`${JSON.stringify(reply)} has no events`);
  return list as Message[];
}

function ids(reply: Message): number[] {
  return events(reply).map((event) => number(event, 'id'));
}

async function history(client: Client, room: string, fields: object = {}): Promise<Message> {
  const reply = await client.request({ type: 'history', room, ...fields });
  if (reply.event !== 'history') throw new Error(`answered by ${JSON.stringify(reply)}`);
  return reply;
}

describe.each(brokers)('history over %s', (_name, broker) => {
  const gateway = serveOver(broker, { JWT_SECRET: secret, EPHEMERAL_CHANNELS: 'room:cursor:*' });

  it('has the events as their readers got them, oldest first', async () => {
    const scene = await Scene.open(gateway(), 'room');
    const { writer, room } = scene;
    await writer.request({
      type: 'room_message',
      room,
      content: { deep: [null, 'ü', 1.5] },
      message_id: 'm',
    });
    await writer.request({ type: 'room_message', room, content: null, event: 'note' });
    const live = [await writer.next('chat'), await writer.next('note')];
    const reply = await history(writer, room, { ref: 'not this one' });
    expect(reply).toEqual({
      event: 'history',
      ref: reply['ref'],
      room,
      events: live,
      more: false,
      epoch: (await scene.read()).position.epoch,
    });
    expect(live).toMatchObject([
      { id: 1, content: { deep: [null, 'ü', 1.5] }, message_id: 'm', from: writer.userId },
      { id: 2, content: null, event: 'note' },
    ]);
  });

  it('of a channel that was never written is empty', async () => {
    const scene = await Scene.open(gateway(), 'room');
    const { position } = await scene.read();
    expect(await history(scene.writer, scene.room)).toMatchObject({
      events: [],
      more: false,
      epoch: position.epoch,
    });
  });

  it('is paged by `before` and `limit`, 50 where none is named', async () => {
    const scene = await Scene.open(gateway(), 'room');
    await scene.publish(120);
    const { writer, room } = scene;
    const pages: [object, number[], boolean][] = [
      [{}, idsAfter(70, 120), true],
      [{ limit: 100 }, idsAfter(20, 120), true],
      [{ limit: 1 }, [120], true],
      [{ before: 71 }, idsAfter(20, 70), true],
      [{ before: 21 }, idsAfter(0, 20), false],
      [{ before: 51 }, idsAfter(0, 50), false],
      [{ before: 52 }, idsAfter(1, 51), true],
      [{ before: 2, limit: 1 }, [1], false],
      [{ before: 1 }, [], false],
      [{ before: 0 }, [], false],
      [{ before: 120, limit: 3 }, [117, 118, 119], true],
      [{ before: 121, limit: 3 }, [118, 119, 120], true],
      [{ before: 9_000, limit: 2 }, [119, 120], true],
      [{ before: Number.MAX_SAFE_INTEGER, limit: 2 }, [119, 120], true],
    ];
    for (const [fields, expected, more] of pages) {
      const reply = await history(writer, room, fields);
      expect([fields, ids(reply), reply['more']]).toEqual([fields, expected, more]);
    }
    const walked: number[] = [];
    let before: number | undefined;
    for (let more: unknown = true; more === true;) {
      const reply = await history(writer, room, { before, limit: 7 });
      walked.unshift(...ids(reply));
      [before] = ids(reply);
      more = reply['more'];
    }
    expect(walked).toEqual(idsAfter(0, 120));
  });

  it('is for members only, and needs its own right', async () => {
    const scene = await Scene.open(gateway(), 'room');
    await scene.publish(1);
    const { room } = scene;
    const stranger = await gateway().as(fresh('stranger'));
    expect(await stranger.request({ type: 'history', room })).toMatchObject({ code: 'not_in_room' });
    const rights = { rooms: { join: [room], history: [] } };
    const member = await gateway().bearing(token(fresh('member'), rights));
    // `forbidden` comes before `not_in_room`, and stays for a member.
    expect(await member.request({ type: 'history', room })).toMatchObject({ code: 'forbidden' });
    await member.request({ type: 'join_room', room });
    expect(await member.request({ type: 'history', room })).toMatchObject({ code: 'forbidden' });
    await stranger.request({ type: 'join_room', room });
    expect(ids(await history(stranger, room))).toEqual([1]);
    await stranger.request({ type: 'leave_room', room });
    expect(await stranger.request({ type: 'history', room })).toMatchObject({ code: 'not_in_room' });
  });

  it('of an ephemeral room is empty, with epoch null', async () => {
    const room = `cursor:${fresh('c')}`;
    const client = await gateway().as(fresh('client'));
    expect(await client.request({ type: 'history', room })).toMatchObject({ code: 'not_in_room' });
    await client.request({ type: 'join_room', room });
    await client.request({ type: 'room_message', room, content: 1 });
    expect(await history(client, room)).toMatchObject({ events: [], more: false, epoch: null });
  });

  it.each([
    ['room', undefined],
    ['room', 'no name'],
    ['before', -1],
    ['before', '5'],
    ['before', 1.5],
    ['before', 2 ** 53],
    ['limit', 0],
    ['limit', 101],
    ['limit', '5'],
    ['limit', 1.5],
  ])('is invalid_message where %s is %j', async (field, value) => {
    const client = await gateway().as(fresh('client'));
    const room = fresh('room');
    await client.request({ type: 'join_room', room });
    expect(await client.request({ type: 'history', room, [field]: value })).toMatchObject({
      event: 'error',
      code: 'invalid_message',
      details: [{ field }],
    });
  });
});

describe.each(brokers)('history over %s, of rooms that keep ten events', (_name, broker) => {
  const gateway = serveOver(broker, { HISTORY_SIZE: '10' });

  it('has exactly the last ten, however many were published', async () => {
    const scene = await Scene.open(gateway(), 'room');
    for (const count of [9, 10, 11, 19, 20, 21, 35, 250]) {
      const [last = 0] = (await scene.publish(count - (await scene.read()).position.id)).slice(-1);
      expect(last).toBe(count);
      const reply = await history(scene.writer, scene.room, { limit: 100 });
      expect([ids(reply), reply['more']]).toEqual([idsAfter(Math.max(0, count - 10), count), false]);
    }
    const page = await history(scene.writer, scene.room, { before: 246, limit: 3 });
    expect([ids(page), page['more']]).toEqual([[243, 244, 245], true]);
    const oldest = await history(scene.writer, scene.room, { before: 243 });
    expect([ids(oldest), oldest['more']]).toEqual([[241, 242], false]);
    const trimmed = await history(scene.writer, scene.room, { before: 241 });
    expect([ids(trimmed), trimmed['more']]).toEqual([[], false]);
  });
});

describe.each(brokers)('history over %s, of rooms whose events live one second', (_name, broker) => {
  const gateway = serveOver(broker, { HISTORY_TTL_SECONDS: '1' });

  it('loses each event when it is a second old, and the numbering goes on', async () => {
    const scene = await Scene.open(gateway(), 'room');
    await scene.publish(3);
    const published = performance.now();
    const { writer, room } = scene;
    const before = await history(writer, room);
    // Unless the machine was asleep meanwhile, they are there.
    const isYoung = performance.now() - published < 900;
    expect(isYoung ? ids(before) : [1, 2, 3]).toEqual([1, 2, 3]);
    await vi.waitFor(
      async () => {
        expect(ids(await history(writer, room))).toEqual([]);
      },
      { timeout: 5_000, interval: 20 },
    );
    expect(performance.now() - published).toBeLessThan(2_500);
    expect(await scene.publish()).toEqual([4]);
    const reply = await history(writer, room);
    expect([ids(reply), reply['more'], reply['epoch']]).toEqual([[4], false, before['epoch']]);
  });
});

describe.each(brokers)('history over %s, of large events', (_name, broker) => {
  const gateway = serveOver(broker, { SLOW_CONSUMER_BYTES: '65536' });

  it('never fills the send queue, and says that there is more', async () => {
    const scene = await Scene.open(gateway(), 'room');
    await scene.publish(20, 'x'.repeat(10_000));
    const { client } = await scene.read();
    const reply = await history(client, scene.room, { limit: 100 });
    expect(ids(reply)).toEqual([18, 19, 20]);
    expect(reply['more']).toBe(true);
    // One event is sent however large it is.
    await scene.publish(1, 'x'.repeat(60_000));
    const large = await history(client, scene.room);
    expect([ids(large), large['more']]).toEqual([[21], true]);
    let before: unknown;
    const walked: number[] = [];
    for (let more: unknown = true; more === true;) {
      const page = await history(client, scene.room, { before });
      walked.unshift(...ids(page));
      [before] = ids(page);
      more = page['more'];
    }
    expect(walked).toEqual(idsAfter(0, 21));
    expect(client.closedWith).toBeUndefined();
  });
});

describe.each(brokers)('ack_events over %s', (_name, broker) => {
  const gateway = serveOver(broker, { EPHEMERAL_CHANNELS: 'room:cursor:*' });

  describe.each(['room', 'direct', 'broadcast'] as const)('of a %s channel', (kind) => {
    it('takes a position of the present epoch, with or without naming it, and 0', async () => {
      const scene = await Scene.open(gateway(), kind);
      const { client } = await scene.read();
      const [last = 0] = (await scene.publish(3)).slice(-1);
      // An ack may come before the event does.
      await client.next(({ id }) => id === last);
      const { position } = await scene.read();
      expect(position.id).toBe(last);
      for (const [id, epoch] of [
        [0, undefined],
        [last - 1, position.epoch],
        [last, null],
        [last, position.epoch],
      ]) {
        const ack = await client.request({ type: 'ack_events', ...scene.fields, last_event_id: id, epoch });
        expect(ack).toEqual({ event: 'ack', ref: ack['ref'] });
      }
      // Without a ref there is no ack.
      client.send({ type: 'ack_events', ...scene.fields, last_event_id: last });
      expect(await client.settled((message) => message.event === 'ack' || message.event === 'error')).toEqual(
        [],
      );
    });

    it('refuses an id that is ahead of the channel', async () => {
      const scene = await Scene.open(gateway(), kind);
      const { client } = await scene.read();
      const [last = 0] = (await scene.publish(2)).slice(-1);
      for (const id of [last + 1, Number.MAX_SAFE_INTEGER]) {
        expect(
          await client.request({ type: 'ack_events', ...scene.fields, last_event_id: id }),
        ).toMatchObject({
          event: 'error',
          code: 'invalid_message',
          details: [{ field: 'last_event_id' }],
        });
      }
      expect((await scene.read({ id: 'acked' })).recovered).toBe(false);
    });

    it.each(['other.1', 'other.0', '', '.'])(
      'refuses an epoch that is not the channel’s: "%s"',
      async (epoch) => {
        const scene = await Scene.open(gateway(), kind);
        const { client } = await scene.read();
        const [last = 0] = (await scene.publish(2)).slice(-1);
        expect(
          await client.request({ type: 'ack_events', ...scene.fields, last_event_id: last, epoch }),
        ).toMatchObject({ event: 'error', code: 'invalid_message', details: [{ field: 'epoch' }] });
        expect((await scene.read({ id: 'acked' })).recovered).toBe(false);
      },
    );
  });

  it('takes the epoch that was learnt before the channel’s first event, and goes on from there', async () => {
    const scene = await Scene.open(gateway(), 'room');
    const { client, position } = await scene.read();
    await scene.publish(4);
    expect(
      await client.request({
        type: 'ack_events',
        room: scene.room,
        last_event_id: 2,
        epoch: position.epoch,
      }),
    ).toMatchObject({ event: 'ack' });
    const tablet = await scene.read({ id: 'acked' });
    expect(tablet.recovered).toBe(true);
    expect((await scene.whole(tablet.client)).story).toEqual(['reply', 3, 4, 5]);
  });

  it('remembers id 0 of a channel that was never written', async () => {
    const scene = await Scene.open(gateway(), 'room');
    const { client } = await scene.read();
    expect(await client.request({ type: 'ack_events', room: scene.room, last_event_id: 0 })).toMatchObject({
      event: 'ack',
    });
    await scene.publish(2);
    const tablet = await scene.read({ id: 'acked' });
    expect(tablet.recovered).toBe(true);
    expect((await scene.whole(tablet.client)).story).toEqual(['reply', 1, 2, 3]);
  });

  it('keeps the channels apart', async () => {
    const scenes = await Promise.all([Scene.open(gateway(), 'room'), Scene.open(gateway(), 'room')]);
    const [one, other] = scenes;
    if (one === undefined || other === undefined) throw new Error('two scenes are needed');
    const client = await gateway().as(one.user);
    await one.join(client);
    await one.publish(3);
    await other.publish(3);
    await client.request({ type: 'ack_events', room: one.room, last_event_id: 3 });
    await other.join(client, { id: 'acked' });
    expect((await other.whole(client)).story).toEqual(['reply', 4]);
    const direct = await gateway().as(one.user, {
      query: { lastDirectEventId: 'acked', lastEventId: 'acked' },
    });
    expect(direct.connected['recovered']).toBe(false);
  });

  it('is for members only, and not for an ephemeral room', async () => {
    const client = await gateway().as(fresh('client'));
    const [room, cursor] = [fresh('room'), `cursor:${fresh('c')}`];
    for (const name of [room, cursor]) {
      expect(await client.request({ type: 'ack_events', room: name, last_event_id: 0 })).toMatchObject({
        code: 'not_in_room',
      });
    }
    await client.request({ type: 'join_room', room: cursor });
    expect(await client.request({ type: 'ack_events', room: cursor, last_event_id: 0 })).toMatchObject({
      code: 'invalid_message',
    });
  });

  it.each<[string, Record<string, unknown>]>([
    ['last_event_id', {}],
    ['last_event_id', { last_event_id: null }],
    ['last_event_id', { last_event_id: 'acked' }],
    ['last_event_id', { last_event_id: -1 }],
    ['last_event_id', { last_event_id: 1.5 }],
    ['last_event_id', { last_event_id: 2 ** 53 }],
    ['epoch', { last_event_id: 0, epoch: 5 }],
    ['room', { last_event_id: 0, room: 'no name' }],
    ['direct', { last_event_id: 0, direct: false }],
    ['direct', { last_event_id: 0, direct: 1 }],
    ['direct', { last_event_id: 0, direct: true, room: 'a' }],
  ])('is invalid_message by %s: %j', async (field, fields) => {
    const client = await gateway().as(fresh('client'));
    expect(await client.request({ type: 'ack_events', ...fields })).toMatchObject({
      event: 'error',
      code: 'invalid_message',
      details: [{ field }],
    });
  });
});

describe.each(brokers)('message_id over %s', (_name, broker) => {
  const gateway = serveOver(broker);

  it.each(['room', 'direct', 'broadcast'] as const)(
    'makes a second publish on the same %s channel a duplicate of the first',
    async (kind) => {
      const scene = await Scene.open(gateway(), kind);
      const { client, position } = await scene.read();
      const message = { ...scene.address, content: 'first', message_id: fresh('m') };
      const first = await scene.writer.request(message);
      expect(first).toEqual({ event: 'ack', ref: first['ref'], id: position.id + 1 });
      const repeats = await Promise.all(
        Array.from({ length: 20 }, (_value, index) =>
          scene.writer.request({ ...message, content: `repeat ${index}` }),
        ),
      );
      expect(repeats.map(({ id, duplicate }) => [id, duplicate])).toEqual(
        Array.from({ length: 20 }, () => [position.id + 1, true]),
      );
      const { story, marker } = await scene.whole(client);
      expect(story).toEqual(['reply', position.id + 1, marker]);
      expect(marker).toBe(position.id + 2);
      expect(client.all.filter((one) => one['content'] === 'first')).toEqual([
        expect.objectContaining({ message_id: text(message, 'message_id') }),
      ]);
    },
  );

  it('counts for one user and one channel only, whatever the names are', async () => {
    const rooms = [fresh('a'), fresh('b')];
    const [alice, bob] = await Promise.all([gateway().as(fresh('a:x')), gateway().as(fresh('a'))]);
    const answers: Message[] = [];
    for (const client of [alice, bob]) {
      for (const room of rooms) {
        await client.request({ type: 'join_room', room });
        for (const message_id of ['x}{', 'm', '__proto__', 'constructor', 'M'])
          answers.push(await client.request({ type: 'room_message', room, content: 1, message_id }));
      }
    }
    expect(answers.map(({ event, duplicate }) => [event, duplicate])).toEqual(
      answers.map(() => ['ack', undefined]),
    );
  });

  it('of a publish that was refused does not count as published', async () => {
    const scene = await Scene.open(gateway(), 'room');
    const stranger = await gateway().as(fresh('stranger'));
    const message = { type: 'room_message', room: scene.room, content: 1, message_id: 'm' };
    expect(await stranger.request(message)).toMatchObject({ code: 'not_in_room' });
    await scene.join(stranger);
    const ack = await stranger.request(message);
    expect(ack).toEqual({ event: 'ack', ref: ack['ref'], id: 1 });
  });
});

describe.each(brokers)('message_id over %s, remembered for a second', (_name, broker) => {
  const gateway = serveOver(broker, { IDEMPOTENCY_TTL_SECONDS: '1' });

  it('may be used again after IDEMPOTENCY_TTL_SECONDS', async () => {
    const { writer, room } = await Scene.open(gateway(), 'room');
    const message = { type: 'room_message', room, content: 1, message_id: 'm' };
    expect(await writer.request(message)).toMatchObject({ id: 1 });
    const began = performance.now();
    const again = await vi.waitFor(
      async () => {
        const ack = await writer.request(message);
        expect(ack['duplicate']).toBeUndefined();
        return ack;
      },
      { timeout: 5_000, interval: 50 },
    );
    expect(again).toMatchObject({ event: 'ack', id: 2 });
    expect(performance.now() - began).toBeGreaterThan(800);
  });
});
