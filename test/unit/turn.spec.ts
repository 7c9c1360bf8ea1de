import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Turn } from '../../src/core/turn.js';

const DELAY_MS = 40;

/** Channels that hand on what they have collected to one outbox; all say what they do. */
function setUp(delayMs: number) {
  const said: string[] = [];
  const say = (what: string) => () => void said.push(what);
  const turn = new Turn({ hold: say('hold'), release: say('release') }, delayMs);
  const outbox = { flush: say('outbox') };
  const channel = (name: string) => ({
    flush: () => {
      said.push(name);
      turn.addOutbox(outbox);
    },
  });
  return { said, turn, outbox, channel };
}

/** Lets time pass, and one more millisecond for the end of the turn: immediates come that much late from within timers. */
function pass(ms: number): void {
  vi.advanceTimersByTime(ms);
  vi.advanceTimersByTime(1);
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe('a turn', () => {
  it('ends with the channels, then the outboxes, in one batch', () => {
    const { said, turn, channel } = setUp(0);
    turn.addChannel(channel('a'));
    expect(said).toEqual([]);
    pass(0);
    expect(said).toEqual(['a', 'hold', 'outbox', 'release']);
  });

  it('ends once for all that it brought, and not without any', () => {
    const { said, turn, channel, outbox } = setUp(0);
    turn.addOutbox(outbox);
    turn.addChannel(channel('a'));
    turn.addChannel(channel('b'));
    pass(1_000);
    expect(said).toEqual(['a', 'b', 'hold', 'outbox', 'outbox', 'outbox', 'release']);
  });
});

describe('a turn whose channels are delayed', () => {
  it('hands on what they collect when the delay of the first is over, and writes it in one batch', () => {
    const { said, turn, channel } = setUp(DELAY_MS);
    turn.addChannel(channel('a'));
    pass(DELAY_MS - 2);
    turn.addChannel(channel('b'));
    expect(vi.getTimerCount()).toBe(1);
    expect(said).toEqual([]);
    pass(1);
    expect(said).toEqual(['a', 'b', 'hold', 'outbox', 'outbox', 'release']);
  });

  it('writes what is pushed to an outbox itself at its own end', () => {
    const { said, turn, channel, outbox } = setUp(DELAY_MS);
    turn.addChannel(channel('a'));
    turn.addOutbox(outbox);
    pass(0);
    expect(said).toEqual(['hold', 'outbox', 'release']);
  });

  it('begins another delay with the first channel after it', () => {
    const { said, turn, channel } = setUp(DELAY_MS);
    turn.addChannel(channel('a'));
    pass(DELAY_MS);
    said.length = 0;
    turn.addChannel(channel('b'));
    pass(DELAY_MS - 2);
    expect(said).toEqual([]);
    pass(1);
    expect(said).toEqual(['b', 'hold', 'outbox', 'release']);
  });

  it('has nothing left to hand on when it was settled before', () => {
    const { said, turn, channel } = setUp(DELAY_MS);
    turn.addChannel(channel('a'));
    turn.settle();
    expect(said).toEqual(['a']);
    pass(1_000);
    expect(said).toEqual(['a', 'hold', 'outbox', 'release']);
    expect(vi.getTimerCount()).toBe(0);
  });
});
