import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TokenBucket } from '../../src/core/token-bucket.js';

function takeAll(bucket: TokenBucket, nowMs: number): number {
  let taken = 0;
  while (bucket.take(nowMs) === 0) taken += 1;
  return taken;
}

describe('a token bucket', () => {
  it('gives the burst at once and then nothing', () => {
    expect(takeAll(new TokenBucket(10, 25, 0), 0)).toBe(25);
  });

  it('gives new tokens at its rate', () => {
    const bucket = new TokenBucket(10, 25, 0);
    takeAll(bucket, 0);
    expect(takeAll(bucket, 1_000)).toBe(10);
    expect(takeAll(bucket, 1_099)).toBe(0);
    expect(takeAll(bucket, 1_100)).toBe(1);
  });

  it('never holds more than the burst, however long it rests', () => {
    const bucket = new TokenBucket(1_000, 3, 0);
    takeAll(bucket, 0);
    expect(takeAll(bucket, 10_000_000)).toBe(3);
  });

  it('begins full at the time it is made, whatever the clock shows', () => {
    expect(takeAll(new TokenBucket(1, 5, 1e12), 1e12)).toBe(5);
  });

  it('says after how many milliseconds there will be a token, and then there is one', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5_000 }),
        fc.integer({ min: 1, max: 50 }),
        fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 30 }),
        (perSecond, burst, pausesMs) => {
          const bucket = new TokenBucket(perSecond, burst, 0);
          let nowMs = 0;
          for (const pauseMs of pausesMs) {
            nowMs += pauseMs;
            const waitMs = bucket.take(nowMs);
            if (waitMs === 0) continue;
            expect(Number.isInteger(waitMs) && waitMs >= 1).toBe(true);
            expect(waitMs).toBeLessThanOrEqual(Math.ceil(1_000 / perSecond));
            nowMs += waitMs;
            expect(bucket.take(nowMs)).toBe(0);
          }
        },
      ),
    );
  });

  it('lets through no more than burst + rate x time', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 200 }),
        fc.integer({ min: 1, max: 50 }),
        fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 200 }),
        (perSecond, burst, pausesMs) => {
          const bucket = new TokenBucket(perSecond, burst, 0);
          let nowMs = 0;
          let taken = 0;
          for (const pauseMs of pausesMs) {
            nowMs += pauseMs;
            if (bucket.take(nowMs) === 0) taken += 1;
          }
          expect(taken).toBeLessThanOrEqual(burst + (nowMs * perSecond) / 1_000 + 1e-6);
        },
      ),
    );
  });
});
