import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Broker, EventEnvelope, History, Published } from '../../src/core/broker.js';
import type { Position } from '../../src/protocol/messages.js';
import { eventually } from '../support/eventually.js';
import { fresh } from '../support/names.js';
import type { RecordingSink } from './recording-sink.js';

export interface BrokerOptions {
  historySize: number;
  historyTtlMs: number;
  idempotencyTtlMs: number;
  /** Patterns of channels that keep nothing. */
  ephemeral: string[];
}

export const defaults: BrokerOptions = {
  historySize: 1_000,
  historyTtlMs: 3_600_000,
  idempotencyTtlMs: 300_000,
  ephemeral: ['room:cursor:*'],
};

/** Two ends of one bus, both started and up; an embedded broker is both itself. */
export interface BrokerPair {
  here: Broker;
  hereSink: RecordingSink;
  there: Broker;
  thereSink: RecordingSink;
}

export interface BrokerFactory {
  name: string;
  create(options: BrokerOptions): Promise<BrokerPair>;
  /** Ends everything that was created. */
  close(): Promise<void>;
}

export function body(content: unknown): string {
  return `{"event":"chat","content":${JSON.stringify(content)}`;
}

export async function publishMany(broker: Broker, channel: string, count: number): Promise<Position[]> {
  const contents = Array.from({ length: count }, (_, at) => at + 1);
  const published = await Promise.all(
    contents.map((content) => broker.publish({ channel, body: body(content) })),
  );
  return published.map(positionOf);
}

export function positionOf({ position }: Published): Position {
  if (position === null) throw new Error('not numbered');
  return position;
}

export function firstOf<T>(items: readonly T[]): T {
  const [first] = items;
  if (first === undefined) throw new Error('there is none');
  return first;
}

export function lastOf<T>(items: readonly T[]): T {
  return firstOf(items.slice(-1));
}

export function eventsOf(history: History): EventEnvelope[] {
  if (history.kind === 'lost') throw new Error(`lost: ${JSON.stringify(history)}`);
  return history.events;
}

export function idsOf(events: readonly EventEnvelope[]): (number | undefined)[] {
  return events.map(({ position }) => position?.id);
}

export function upTo(last: number, first = 1): number[] {
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}

/** What every broker promises, whatever carries its events. */
export function brokerContract(factory: BrokerFactory): void {
  describe(`a ${factory.name} broker`, () => {
    let pair: BrokerPair;

    beforeAll(async () => {
      pair = await factory.create(defaults);
    });
    afterAll(async () => {
      await factory.close();
    });

    describe('numbers', () => {
      it('a channel from 1 without holes, whoever publishes', async () => {
        const channel = fresh('room:a');
        const ids: number[] = [];
        for (const broker of [pair.here, pair.there, pair.here, pair.here, pair.there])
          ids.push(positionOf(await broker.publish({ channel, body: body(1) })).id);
        expect(ids).toEqual([1, 2, 3, 4, 5]);
      });

      it('every channel apart, in one epoch', async () => {
        const [first, second] = [fresh('room:a'), fresh('user:a')];
        const one = await publishMany(pair.here, first, 3);
        const other = await publishMany(pair.there, second, 2);
        expect([one.map(({ id }) => id), other.map(({ id }) => id)]).toEqual([
          [1, 2, 3],
          [1, 2],
        ]);
        for (const positions of [one, other])
          expect(new Set(positions.map(({ epoch }) => epoch)).size).toBe(1);
      });

      it('what was published in one turn in the order of the calls', async () => {
        const channel = fresh('room:a');
        await pair.there.subscribe(channel);
        const positions = await publishMany(pair.here, channel, 1_000);
        expect(positions.map(({ id }) => id)).toEqual(upTo(1_000));
        await pair.thereSink.received(channel, 1_000);
        expect(pair.thereSink.bodies(channel)).toEqual(upTo(1_000).map(body));
      });

      it('nothing in an ephemeral channel, and delivers it all the same, in order', async () => {
        const channel = fresh('room:cursor:a');
        expect(pair.here.isDurable(channel)).toBe(false);
        await pair.there.subscribe(channel);
        const published = await Promise.all(
          upTo(50).map((content) => pair.here.publish({ channel, body: body(content) })),
        );
        expect(published).toEqual(upTo(50).map(() => ({ position: null, duplicate: false })));
        const events = await pair.thereSink.received(channel, 50);
        expect(events.map(({ position }) => position)).toEqual(upTo(50).map(() => null));
        expect(pair.thereSink.bodies(channel)).toEqual(upTo(50).map(body));
      });

      it.each(['broadcast', 'room:a', 'user:room:cursor:a', 'room:cursor'])(
        '%s, which is durable',
        (channel) => {
          expect(pair.here.isDurable(channel)).toBe(true);
        },
      );
    });

    describe('delivers', () => {
      it('in the order of the ids, to both ends alike, while both publish', async () => {
        const channel = fresh('room:a');
        await Promise.all([pair.here.subscribe(channel), pair.there.subscribe(channel)]);
        const texts = (name: string): string[] => upTo(200).map((at) => body(`${name} ${at}`));
        const publish = async (broker: Broker, name: string): Promise<[number, string][]> =>
          Promise.all(
            texts(name).map(async (text) => [
              positionOf(await broker.publish({ channel, body: text })).id,
              text,
            ]),
          );
        const acknowledged = await Promise.all([publish(pair.here, 'here'), publish(pair.there, 'there')]);
        const order = acknowledged
          .flat()
          .sort(([a], [b]) => a - b)
          .map(([, text]) => text);
        for (const sink of [pair.hereSink, pair.thereSink]) {
          await sink.received(channel, 400);
          expect(sink.ids(channel)).toEqual(upTo(400));
          expect(sink.bodies(channel)).toEqual(order);
        }
        for (const name of ['here', 'there'])
          expect(order.filter((text) => text.includes(`"${name} `))).toEqual(texts(name));
      });

      it('with the position that the publisher was told', async () => {
        const channel = fresh('room:a');
        await pair.there.subscribe(channel);
        const position = positionOf(await pair.here.publish({ channel, body: body(1) }));
        const [event] = await pair.thereSink.received(channel, 1);
        expect(event?.position).toEqual(position);
      });

      it('once, however often the channel was subscribed', async () => {
        const channel = fresh('room:a');
        await Promise.all([pair.there.subscribe(channel), pair.there.subscribe(channel)]);
        await pair.there.subscribe(channel);
        await publishMany(pair.here, channel, 2);
        await pair.thereSink.received(channel, 2);
        await publishMany(pair.here, channel, 1);
        await pair.thereSink.received(channel, 3);
        expect(pair.thereSink.ids(channel)).toEqual([1, 2, 3]);
      });

      it('everything from the moment at which the subscription is there', async () => {
        const channels = upTo(40).map(() => fresh('room:a'));
        await Promise.all(
          channels.map(async (channel) => {
            await pair.there.subscribe(channel);
            await pair.here.publish({ channel, body: body(1) });
          }),
        );
        for (const channel of channels) await pair.thereSink.received(channel, 1);
        expect(channels.map((channel) => pair.thereSink.ids(channel))).toEqual(channels.map(() => [1]));
      });

      it('nothing more after the subscription was given back', async () => {
        const [channel, other] = [fresh('room:a'), fresh('room:b')];
        await Promise.all([pair.there.subscribe(channel), pair.there.subscribe(other)]);
        await publishMany(pair.here, channel, 1);
        await pair.thereSink.received(channel, 1);
        pair.there.unsubscribe(channel);
        let fences = 0;
        await eventually(
          async () => {
            const before = pair.thereSink.of(channel).length;
            await publishMany(pair.here, channel, 1);
            fences += 1;
            await publishMany(pair.here, other, 1);
            await pair.thereSink.received(other, fences);
            expect(pair.thereSink.of(channel)).toHaveLength(before);
          },
          { timeoutMs: 6_000, everyMs: 100 },
        );
      });

      it('on, where the subscription was given back and taken again at once', async () => {
        const channel = fresh('room:a');
        await pair.there.subscribe(channel);
        pair.there.unsubscribe(channel);
        await pair.there.subscribe(channel);
        await publishMany(pair.here, channel, 1);
        await pair.thereSink.received(channel, 1);
        expect(pair.thereSink.ids(channel)).toEqual([1]);
      });

      it.each([
        ['a line feed and a null byte', '\n\u0000\r\u2028'],
        ['every kind of character', 'aäß日本語👩‍👩‍👧\u{10ffff}'],
        ['what looks like a header', '1 2 3 4\n{"event":"x"'],
        ['60 KB', '日'.repeat(20_000)],
        ['half a surrogate pair', '\ud83d'],
      ])('the body byte for byte, and stores it so: %s', async (_what, content) => {
        const channel = fresh('room:a');
        const text = body(content);
        await pair.there.subscribe(channel);
        const { epoch } = positionOf(await pair.here.publish({ channel, body: text }));
        const [live] = await pair.thereSink.received(channel, 1);
        const [stored] = eventsOf(await pair.there.history(channel, { epoch, id: 0 }, 10));
        for (const event of [live, stored]) expect(event?.body.equals(Buffer.from(text, 'utf8'))).toBe(true);
      });

      it.each([
        '',
        'connection:2f1c',
        'user:alice',
        'user:a b:c{d}',
        'user: leading and trailing ',
        `user:${'👩‍👩‍👧'.repeat(25)}`,
        'user:1 2 3',
      ])('who is excluded character for character, and stores it so: %j', async (exclude) => {
        const [channel, ephemeral] = [fresh('broadcast'), fresh('room:cursor:a')];
        await Promise.all([pair.there.subscribe(channel), pair.there.subscribe(ephemeral)]);
        const { epoch } = positionOf(await pair.here.publish({ channel, body: body(1), exclude }));
        await pair.here.publish({ channel: ephemeral, body: body(1), exclude });
        const [live] = await pair.thereSink.received(channel, 1);
        const [passing] = await pair.thereSink.received(ephemeral, 1);
        const [stored] = eventsOf(await pair.there.history(channel, { epoch, id: 0 }, 10));
        expect([live, passing, stored].map((event) => event?.exclude)).toEqual([exclude, exclude, exclude]);
      });
    });

    describe('with a key publishes once', () => {
      const idempotency = { scope: 'alice', key: 'm1' };

      it('and answers the first result again, on any instance', async () => {
        const channel = fresh('room:a');
        await pair.there.subscribe(channel);
        const first = await pair.here.publish({ channel, body: body('first'), idempotency });
        await publishMany(pair.here, channel, 3);
        const again = await pair.here.publish({ channel, body: body('again'), idempotency });
        const elsewhere = await pair.there.publish({ channel, body: body('elsewhere'), idempotency });
        expect(first.duplicate).toBe(false);
        expect([again, elsewhere]).toEqual([
          { position: first.position, duplicate: true },
          { position: first.position, duplicate: true },
        ]);
        await publishMany(pair.here, channel, 1);
        await pair.thereSink.received(channel, 5);
        expect(pair.thereSink.ids(channel)).toEqual([1, 2, 3, 4, 5]);
      });

      it('of twins in one turn, also on both instances', async () => {
        const channel = fresh('room:a');
        const twins = await Promise.all(
          [pair.here, pair.here, pair.there, pair.there].map((broker) =>
            broker.publish({ channel, body: body('twin'), idempotency }),
          ),
        );
        expect(twins.filter(({ duplicate }) => !duplicate)).toHaveLength(1);
        expect(new Set(twins.map((twin) => JSON.stringify(positionOf(twin)))).size).toBe(1);
        expect((await pair.here.head(channel)).id).toBe(1);
      });

      it.each([
        ['another key', { scope: 'alice', key: 'm2' }],
        ['another scope', { scope: 'bob', key: 'm1' }],
        ['a scope and key that only look alike together', { scope: 'alicem', key: '1' }],
        ['a scope and key that are swapped', { scope: 'm1', key: 'alice' }],
        ['no key', undefined],
      ])('but not for %s', async (_what, other) => {
        const channel = fresh('room:a');
        await pair.here.publish({ channel, body: body(1), idempotency });
        const second = await pair.here.publish({
          channel,
          body: body(2),
          ...(other === undefined ? {} : { idempotency: other }),
        });
        expect([second.duplicate, second.position?.id]).toEqual([false, 2]);
      });

      it('but not over channels', async () => {
        const [first, second] = [fresh('room:a'), fresh('room:b')];
        await pair.here.publish({ channel: first, body: body(1), idempotency });
        expect((await pair.here.publish({ channel: second, body: body(1), idempotency })).duplicate).toBe(
          false,
        );
      });

      it('but not on an ephemeral channel', async () => {
        const channel = fresh('room:cursor:a');
        await pair.there.subscribe(channel);
        for (const content of [1, 2])
          expect(await pair.here.publish({ channel, body: body(content), idempotency })).toEqual({
            position: null,
            duplicate: false,
          });
        await pair.thereSink.received(channel, 2);
      });

      it('for as long as it is remembered, counted from the first', async () => {
        const short = await factory.create({ ...defaults, idempotencyTtlMs: 400 });
        const channel = fresh('room:a');
        const publish = (): Promise<Published> => short.here.publish({ channel, body: body(1), idempotency });
        expect([await publish(), await publish()].map(({ duplicate }) => duplicate)).toEqual([false, true]);
        await eventually(async () => {
          const { duplicate, position } = await publish();
          expect([duplicate, position?.id]).toEqual([false, 2]);
        });
      });
    });

    describe('the head', () => {
      it('of a channel that was never written is id 0, and its first event continues it', async () => {
        const channel = fresh('room:a');
        const unwritten = await pair.here.head(channel);
        expect(unwritten.id).toBe(0);
        expect(await pair.there.head(channel)).toEqual(unwritten);
        expect(await pair.here.history(channel, unwritten, 10)).toEqual({
          kind: 'events',
          events: [],
          head: unwritten,
        });
        await publishMany(pair.here, channel, 2);
        expect(idsOf(eventsOf(await pair.there.history(channel, unwritten, 10)))).toEqual([1, 2]);
      });

      it('is the position of the last event, on both ends', async () => {
        const channel = fresh('room:a');
        const last = (await publishMany(pair.here, channel, 7)).at(-1);
        expect([await pair.here.head(channel), await pair.there.head(channel)]).toEqual([last, last]);
      });
    });

    describe('history', () => {
      it('is what follows a position, oldest first, the same on both ends', async () => {
        const channel = fresh('room:a');
        const positions = await publishMany(pair.here, channel, 5);
        const { epoch } = firstOf(positions);
        for (const broker of [pair.here, pair.there]) {
          for (const id of upTo(5, 0)) {
            const history = await broker.history(channel, { epoch, id }, 100);
            expect(history).toMatchObject({ kind: 'events', head: { epoch, id: 5 } });
            const events = eventsOf(history);
            expect(events.map(({ position }) => position)).toEqual(positions.slice(id));
            expect(events.map((event) => event.body.toString('utf8'))).toEqual(upTo(5, id + 1).map(body));
            expect(events.every((event) => event.channel === channel)).toBe(true);
          }
        }
      });

      it.each([1, 2, 3, 7, 99, 100, 101])('comes in pages of %d, nothing lost or doubled', async (limit) => {
        const channel = fresh('room:a');
        const { epoch } = firstOf(await publishMany(pair.here, channel, 100));
        const ids: (number | undefined)[] = [];
        let after = 0;
        for (;;) {
          const page = eventsOf(await pair.there.history(channel, { epoch, id: after }, limit));
          expect(page.length).toBeLessThanOrEqual(limit);
          if (page.length === 0) break;
          ids.push(...idsOf(page));
          after = ids.at(-1) ?? 0;
        }
        expect(ids).toEqual(upTo(100));
      });

      it.each([
        ['another epoch', { epoch: 'nonsense.1', id: 2 }],
        ['no epoch', { epoch: '', id: 2 }],
        ['another epoch at the head', { epoch: 'nonsense.1', id: 5 }],
        ['an id ahead of the channel', { id: 6 }],
        ['an id far ahead of the channel', { id: Number.MAX_SAFE_INTEGER }],
      ])('after %s is lost', async (_what, asked) => {
        const channel = fresh('room:a');
        const head = lastOf(await publishMany(pair.here, channel, 5));
        expect(await pair.there.history(channel, { ...head, ...asked }, 10)).toEqual({
          kind: 'lost',
          head,
          oldestId: 1,
        });
      });

      it('keeps the newest events up to its size, and says from where on', async () => {
        const { here, there } = await factory.create({ ...defaults, historySize: 10 });
        const channel = fresh('room:a');
        const head = lastOf(await publishMany(here, channel, 137));
        const at = (id: number): Promise<History> => there.history(channel, { ...head, id }, 1_000);
        expect(idsOf(eventsOf(await at(127)))).toEqual(upTo(137, 128));
        expect(idsOf(eventsOf(await at(136)))).toEqual([137]);
        expect(eventsOf(await at(137))).toEqual([]);
        for (const id of [0, 1, 126]) expect(await at(id)).toEqual({ kind: 'lost', head, oldestId: 128 });
      });

      it('keeps events for their time, and the numbering beyond it', async () => {
        const { here, there } = await factory.create({ ...defaults, historyTtlMs: 300 });
        const channel = fresh('room:a');
        const head = lastOf(await publishMany(here, channel, 3));
        expect(idsOf(eventsOf(await there.history(channel, { ...head, id: 0 }, 10)))).toEqual([1, 2, 3]);
        await eventually(async () => {
          const history = await there.history(channel, { ...head, id: 0 }, 10);
          expect(history).toEqual({ kind: 'lost', head, oldestId: 4 });
        });
        expect(await there.history(channel, head, 10)).toEqual({ kind: 'events', events: [], head });
        expect(positionOf(await here.publish({ channel, body: body(4) }))).toEqual({ ...head, id: 4 });
        expect(idsOf(eventsOf(await there.history(channel, head, 10)))).toEqual([4]);
        expect(await there.history(channel, { ...head, id: 1 }, 10)).toMatchObject({
          kind: 'lost',
          oldestId: 4,
        });
      });
    });

    describe('history before an id', () => {
      const bytes = 1_000_000;

      it('is the newest that fit, oldest first, and says whether there are older ones', async () => {
        const channel = fresh('room:a');
        const { epoch } = firstOf(await publishMany(pair.here, channel, 10));
        const ask = async (id: number | null, events: number): Promise<unknown> => {
          const page = await pair.there.before(channel, id, { events, bytes });
          expect(page.epoch).toBe(epoch);
          return [idsOf(page.events), page.more];
        };
        expect(await ask(null, 3)).toEqual([[8, 9, 10], true]);
        expect(await ask(8, 3)).toEqual([[5, 6, 7], true]);
        expect(await ask(5, 4)).toEqual([[1, 2, 3, 4], false]);
        expect(await ask(5, 3)).toEqual([[2, 3, 4], true]);
        expect(await ask(1, 3)).toEqual([[], false]);
        expect(await ask(0, 3)).toEqual([[], false]);
        expect(await ask(11, 100)).toEqual([upTo(10), false]);
        expect(await ask(Number.MAX_SAFE_INTEGER, 10)).toEqual([upTo(10), false]);
      });

      it('has the events as they were published', async () => {
        const channel = fresh('room:a');
        const exclude = 'user:ä b';
        const position = positionOf(await pair.here.publish({ channel, body: body('日\n'), exclude }));
        const { events } = await pair.there.before(channel, null, { events: 10, bytes });
        expect(events).toEqual([{ channel, position, exclude, body: Buffer.from(body('日\n')) }]);
      });

      it('stays within the bytes, but for one event', async () => {
        const channel = fresh('room:a');
        for (const content of upTo(5))
          await pair.here.publish({ channel, body: body(`${content}${'x'.repeat(1_000)}`) });
        const ids = async (most: number): Promise<unknown> => {
          const { events, more } = await pair.there.before(channel, null, { events: 10, bytes: most });
          return [idsOf(events), more];
        };
        expect(await ids(3_200)).toEqual([[3, 4, 5], true]);
        expect(await ids(1)).toEqual([[5], true]);
        expect(await ids(100_000)).toEqual([upTo(5), false]);
      });

      it('of a channel that was never written is empty, with the epoch of its head', async () => {
        const channel = fresh('room:a');
        const { epoch } = await pair.here.head(channel);
        expect(await pair.there.before(channel, null, { events: 10, bytes })).toEqual({
          events: [],
          more: false,
          epoch,
        });
      });

      it('ends where the history does', async () => {
        const { here, there } = await factory.create({ ...defaults, historySize: 10 });
        const channel = fresh('room:a');
        await publishMany(here, channel, 95);
        const { events, more } = await there.before(channel, 90, { events: 100, bytes });
        expect([idsOf(events), more]).toEqual([upTo(89, 86), false]);
      });
    });

    it('is up', () => {
      expect([pair.here.health(), pair.there.health()]).toEqual([{ up: true }, { up: true }]);
    });
  });
}
