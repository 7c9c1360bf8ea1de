import { describe, expect, it } from 'vitest';
import { Channel } from '../../src/core/channel.js';
import { Turn } from '../../src/core/turn.js';
import { continues, lifeOf } from '../../src/core/position.js';
import type { Position } from '../../src/protocol/messages.js';
import { eventAt } from './fakes.js';

function channelAt(position: Position | null): Channel {
  const channel = new Channel('room:a', true, new Turn());
  channel.position = position;
  return channel;
}

describe('a step of a channel', () => {
  it.each([
    ['the event after the last one is next', { epoch: 'l.1', id: 3 }, { epoch: 'l.1', id: 4 }, 'next'],
    ['the last event again is a duplicate', { epoch: 'l.1', id: 3 }, { epoch: 'l.1', id: 3 }, 'duplicate'],
    ['an earlier event is a duplicate', { epoch: 'l.1', id: 3 }, { epoch: 'l.1', id: 1 }, 'duplicate'],
    ['an event further on shows a hole', { epoch: 'l.1', id: 3 }, { epoch: 'l.1', id: 5 }, 'hole'],
    ['the first event ever is next', { epoch: 'l.0', id: 0 }, { epoch: 'l.7', id: 1 }, 'next'],
    ['the second event ever shows a hole', { epoch: 'l.0', id: 0 }, { epoch: 'l.7', id: 2 }, 'hole'],
    [
      'the first event of another life shows a hole',
      { epoch: 'l.0', id: 0 },
      { epoch: 'm.7', id: 1 },
      'hole',
    ],
    ['another birth of the same life shows a hole', { epoch: 'l.1', id: 3 }, { epoch: 'l.2', id: 4 }, 'hole'],
    ['another life shows a hole', { epoch: 'l.1', id: 3 }, { epoch: 'm.1', id: 4 }, 'hole'],
    ['before the head is known everything is a hole', null, { epoch: 'l.1', id: 1 }, 'hole'],
  ] as const)('%s', (_what, at, event, step) => {
    const channel = channelAt(at);
    expect(channel.step(event)).toBe(step);
    expect(channel.position).toEqual(step === 'next' ? event : at);
  });
});

describe('the waiting of a channel', () => {
  it('begins with the channel, keeps events in order and hands them back once', () => {
    const channel = channelAt(null);
    expect(channel.isWaiting).toBe(true);
    const events = [1, 2, 3].map((id) => eventAt('room:a', 'l.1', id));
    for (const event of events) channel.wait(event);
    expect(channel.resume()).toEqual(events);
    expect(channel.isWaiting).toBe(false);
    expect(channel.resume()).toEqual([]);
  });

  it('is bounded, and what does not fit is left out at the end', () => {
    const channel = channelAt(null);
    for (let id = 1; id <= 10_000; id += 1) channel.wait(eventAt('room:a', 'l.1', id));
    const kept = channel.resume().map(({ position }) => position?.id);
    expect(kept).toEqual(Array.from({ length: 4_096 }, (_, at) => at + 1));
  });
});

describe('an epoch', () => {
  it('names its life before the dot', () => {
    expect([lifeOf('abc.12'), lifeOf('abc'), lifeOf('a.b.c'), lifeOf('')]).toEqual(['abc', 'abc', 'a', '']);
  });

  it.each([
    ['itself', { epoch: 'l.1', id: 9 }, 'l.1', true],
    ['a channel born after the reader came', { epoch: 'l.0', id: 0 }, 'l.5', true],
    ['the same, with a reader that has counted on since', { epoch: 'l.0', id: 9 }, 'l.5', true],
    ['id 0, whatever birth the reader knows', { epoch: 'l.2', id: 0 }, 'l.5', true],
    ['another birth', { epoch: 'l.2', id: 3 }, 'l.5', false],
    ['a birth that ends with 0', { epoch: 'l.10', id: 3 }, 'l.5', false],
    ['another life', { epoch: 'l.0', id: 0 }, 'm.5', false],
    ['another life that begins alike', { epoch: 'l.1', id: 0 }, 'l1.1', false],
    ['nothing that a client could make up', { epoch: '', id: 3 }, 'l.1', false],
  ])('goes on from %s', (_what, seen, epoch, goesOn) => {
    expect(continues(seen, epoch)).toBe(goesOn);
  });
});
