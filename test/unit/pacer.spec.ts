import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Pacer } from '../../src/core/pacer.js';

const PER_SECOND = 100;
const BURST = 3;

let runs: number[];
let pacer: Pacer;

beforeEach(() => {
  vi.useFakeTimers();
  runs = [];
  pacer = new Pacer(PER_SECOND, BURST, () => runs.push(performance.now()));
});
afterEach(() => {
  vi.useRealTimers();
});

/** Asks, again and again, for so many turns of a millisecond. */
async function storm(turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) {
    pacer.ask();
    await vi.advanceTimersByTimeAsync(1);
  }
}

describe('a pacer', () => {
  it('runs what it is asked for at the end of the turn, not before', async () => {
    pacer.ask();
    expect(runs).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(0);
    expect(runs).toHaveLength(1);
  });

  it('runs once, however often it is asked in a turn', async () => {
    for (let asked = 0; asked < 10; asked += 1) pacer.ask();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(runs).toHaveLength(1);
  });

  it('runs at its rate in a storm, after the burst', async () => {
    await storm(100);
    const first = runs[0] ?? 0;
    expect(runs.filter((atMs) => atMs < first + 5)).toHaveLength(BURST);
    // A tenth of a second more brings a tenth of the rate.
    expect(runs.length).toBeGreaterThanOrEqual(BURST + 8);
    expect(runs.length).toBeLessThanOrEqual(BURST + 10);
  });

  it('leaves nobody waiting: what was asked last is run', async () => {
    await storm(BURST + 1);
    const before = runs.length;
    expect(before).toBe(BURST);
    await vi.advanceTimersByTimeAsync(1_000 / PER_SECOND);
    expect(runs).toHaveLength(before + 1);
  });

  it('does not wait again after a rest', async () => {
    await storm(50);
    await vi.advanceTimersByTimeAsync(1_000);
    const before = runs.length;
    pacer.ask();
    await vi.advanceTimersByTimeAsync(0);
    expect(runs).toHaveLength(before + 1);
  });

  it('runs nothing after it was stopped, neither of this turn nor later', async () => {
    pacer.ask();
    pacer.stop();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(runs).toHaveLength(0);
    await storm(BURST + 1);
    const before = runs.length;
    pacer.stop();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(runs).toHaveLength(before);
  });
});
