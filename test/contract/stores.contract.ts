import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AckedPositions } from '../../src/core/acked-positions.js';
import type { Broker } from '../../src/core/broker.js';
import type { IdempotencyStore } from '../../src/core/control.js';
import type { Position } from '../../src/protocol/messages.js';
import { eventually } from '../support/eventually.js';
import { fresh } from '../support/names.js';
import { publishMany } from './broker.contract.js';

/** What is remembered beside the channels, seen from two instances; embedded both are one. */
export interface Stores {
  broker: Broker;
  acked: { here: AckedPositions; there: AckedPositions };
  answers: { here: IdempotencyStore; there: IdempotencyStore };
}

export interface StoresFactory {
  name: string;
  create(options: { answerTtlMs: number }): Promise<Stores>;
  /** Ends everything that was created. */
  close(): Promise<void>;
}

/** What every store of positions and answers promises, wherever it keeps them. */
export function storesContract(factory: StoresFactory): void {
  let stores: Stores;

  beforeAll(async () => {
    stores = await factory.create({ answerTtlMs: 300_000 });
  });
  afterAll(async () => {
    await factory.close();
  });

  describe(`acknowledged positions in ${factory.name}`, () => {
    async function written(count: number): Promise<{ channel: string; head: Position }> {
      const channel = fresh('room:a');
      const [head = await stores.broker.head(channel)] = (
        await publishMany(stores.broker, channel, count)
      ).slice(-1);
      return { channel, head };
    }

    it('are none before there is one', async () => {
      expect(await stores.acked.here.recall(fresh('room:a'), 'alice')).toBeNull();
    });

    it('are remembered for a user and a channel, on any instance', async () => {
      const { channel, head } = await written(5);
      const { here, there } = stores.acked;
      expect(await here.remember(channel, 'alice', 3, head.epoch)).toBe('taken');
      expect(await there.recall(channel, 'alice')).toEqual({ ...head, id: 3 });
      expect(await there.recall(channel, 'bob')).toBeNull();
      expect(await there.recall(fresh('room:b'), 'alice')).toBeNull();
    });

    it('never go back within an epoch', async () => {
      const { channel, head } = await written(12);
      const { here, there } = stores.acked;
      for (const id of [3, 11, 9, 0])
        expect(await here.remember(channel, 'alice', id, head.epoch)).toBe('taken');
      expect(await there.recall(channel, 'alice')).toEqual({ ...head, id: 11 });
    });

    it('mean the present epoch where none is named', async () => {
      const { channel, head } = await written(2);
      expect(await stores.acked.here.remember(channel, 'alice', 2, undefined)).toBe('taken');
      expect(await stores.acked.here.recall(channel, 'alice')).toEqual(head);
    });

    it('may be at the beginning, also of a channel that was never written', async () => {
      const { channel, head } = await written(0);
      expect(await stores.acked.here.remember(channel, 'alice', 0, head.epoch)).toBe('taken');
      expect(await stores.acked.here.recall(channel, 'alice')).toEqual(head);
    });

    it('go on from the epoch that a reader had before the first event', async () => {
      const { channel, head } = await written(0);
      await publishMany(stores.broker, channel, 2);
      expect(await stores.acked.here.remember(channel, 'alice', 2, head.epoch)).toBe('taken');
      expect(await stores.acked.here.recall(channel, 'alice')).toEqual(await stores.broker.head(channel));
    });

    it.each([
      ['ahead of the channel', 3, undefined, 'ahead'],
      ['far ahead of the channel', Number.MAX_SAFE_INTEGER, undefined, 'ahead'],
      ['of another epoch', 1, 'nonsense.1', 'other_epoch'],
      ['of no epoch', 1, '', 'other_epoch'],
    ] as const)('are not taken %s', async (_what, id, epoch, verdict) => {
      const { channel, head } = await written(2);
      const { here } = stores.acked;
      expect(await here.remember(channel, 'alice', id, epoch ?? head.epoch)).toBe(verdict);
      expect(await here.recall(channel, 'alice')).toBeNull();
    });

    it('are apart for users whose ids look like one another', async () => {
      const { channel, head } = await written(9);
      const users = ['a', 'a:b', 'b', 'a b', '%61', 'ä', '{1}', 'A'];
      for (const [at, user] of users.entries())
        await stores.acked.here.remember(channel, user, at + 1, head.epoch);
      const recalled = await Promise.all(users.map((user) => stores.acked.there.recall(channel, user)));
      expect(recalled.map((position) => position?.id)).toEqual(users.map((_, at) => at + 1));
    });
  });

  describe(`answers by key in ${factory.name}`, () => {
    it('let the first one act, and everybody else wait for its answer', async () => {
      const key = fresh('key');
      const { here, there } = stores.answers;
      const claims = await Promise.all([here, there, here, there].map((store) => store.claim(key, 'f')));
      expect(claims.map(({ kind }) => kind).toSorted()).toEqual(['first', 'pending', 'pending', 'pending']);
      await here.finish(key, 'f', '{"a":"b c\\nd"}');
      expect(await there.claim(key, 'f')).toEqual({ kind: 'done', answer: '{"a":"b c\\nd"}' });
      expect(await here.claim(key, 'f')).toEqual({ kind: 'done', answer: '{"a":"b c\\nd"}' });
    });

    it('are a conflict for another request under the same key, done or not', async () => {
      const key = fresh('key');
      const { here, there } = stores.answers;
      await here.claim(key, 'f');
      expect(await there.claim(key, 'g')).toEqual({ kind: 'conflict' });
      await here.finish(key, 'f', '{}');
      expect(await there.claim(key, 'g')).toEqual({ kind: 'conflict' });
    });

    it('let the next one act where the first gave up', async () => {
      const key = fresh('key');
      const { here, there } = stores.answers;
      await here.claim(key, 'f');
      await here.abandon(key);
      expect(await there.claim(key, 'f')).toEqual({ kind: 'first' });
    });

    it('are forgotten after their time', async () => {
      const short = await factory.create({ answerTtlMs: 200 });
      const key = fresh('key');
      await short.answers.here.claim(key, 'f');
      await short.answers.here.finish(key, 'f', '{}');
      await eventually(async () => {
        expect(await short.answers.there.claim(key, 'g')).toEqual({ kind: 'first' });
      });
    });
  });
}
