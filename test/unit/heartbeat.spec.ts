import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Heartbeat } from '../../src/core/heartbeat.js';
import { CLOSE } from '../../src/protocol/close-codes.js';
import { connect, identityOf, settled } from './fakes.js';

const INTERVAL_MS = 1_000;
const TIMEOUT_MS = 400;

/** A heartbeat over one open connection, with both clocks in the test's hand. */
function setUp(random = 0) {
  const clock = { monotonicMs: 10_000, wallMs: 1_000_000 };
  const { connection, transport } = connect('alice', { nowMs: clock.monotonicMs });
  const heartbeat = new Heartbeat(
    { intervalMs: INTERVAL_MS, timeoutMs: TIMEOUT_MS },
    [connection],
    () => clock.monotonicMs,
    () => clock.wallMs,
    () => random,
  );
  const sweepAt = async (afterMs: number): Promise<void> => {
    clock.monotonicMs = 10_000 + afterMs;
    heartbeat.sweep();
    await settled();
  };
  return { clock, connection, transport, heartbeat, sweepAt };
}

describe('the heartbeat', () => {
  it.each([
    [0, 500],
    [0.5, 750],
    [0.998, 999],
  ])('gives a new connection its place in the second half of the interval: %d, %d ms', (random, atMs) => {
    const { heartbeat, connection } = setUp(random);
    heartbeat.schedule(connection);
    expect(connection.nextPingMs).toBe(10_000 + atMs);
  });

  it('pings when the ping is due, and again an interval later', async () => {
    const { heartbeat, connection, transport, sweepAt } = setUp();
    heartbeat.schedule(connection);
    await sweepAt(499);
    expect(transport.texts).toEqual([]);
    await sweepAt(500);
    expect(transport.texts).toEqual(['{"type":"ping"}']);
    connection.lastSeenMs = 10_500;
    await sweepAt(1_499);
    expect(transport.texts).toHaveLength(1);
    await sweepAt(1_500);
    expect(transport.texts).toHaveLength(2);
  });

  it('sends the protocol ping in the same write', async () => {
    const { heartbeat, connection, transport, sweepAt } = setUp();
    heartbeat.schedule(connection);
    await sweepAt(600);
    expect(transport.writes.map((bytes) => bytes.subarray(-2))).toEqual([Buffer.from([0x89, 0])]);
  });

  it('closes with 4009 who was silent for longer than interval + timeout', async () => {
    const { transport, sweepAt } = setUp();
    await sweepAt(INTERVAL_MS + TIMEOUT_MS);
    expect(transport.closes).toEqual([]);
    await sweepAt(INTERVAL_MS + TIMEOUT_MS + 1);
    expect(transport.closes).toEqual([CLOSE.heartbeatMissed]);
  });

  it('lets any sign of life count', async () => {
    const { connection, transport, sweepAt } = setUp();
    connection.lastSeenMs = 11_000;
    await sweepAt(2_400);
    expect(transport.closes).toEqual([]);
  });

  it('does not blame the client for a silence while it is not read', async () => {
    const { connection, transport, sweepAt } = setUp();
    connection.pause(true);
    await sweepAt(60_000);
    expect(transport.closes).toEqual([]);
  });

  it('closes with 4001 when the token ends, by the wall clock', async () => {
    const { connection, transport, clock, sweepAt } = setUp();
    connection.identity = identityOf('alice', { expiresAtMs: 1_000_500 });
    clock.wallMs = 1_000_499;
    await sweepAt(1);
    expect(transport.closes).toEqual([]);
    clock.wallMs = 1_000_500;
    await sweepAt(2);
    expect(transport.closes).toEqual([CLOSE.unauthorized]);
  });

  it('does not miss a heartbeat because the wall clock jumps', async () => {
    const { transport, clock, sweepAt } = setUp();
    for (const jumpMs of [3_600_000, -3_600_000]) {
      clock.wallMs += jumpMs;
      await sweepAt(100);
    }
    expect(transport.closes).toEqual([]);
  });

  it('closes with 4008 who has stopped reading while nothing new is sent', async () => {
    const { transport, sweepAt } = setUp();
    transport.queuedBytes = 2 ** 21;
    await sweepAt(1);
    expect(transport.closes).toEqual([CLOSE.slowConsumer]);
  });

  it.each(['opening', 'closing', 'closed'] as const)(
    'leaves a connection alone that is %s',
    async (state) => {
      const { connection, transport, heartbeat, sweepAt } = setUp();
      heartbeat.schedule(connection);
      connection.state = state;
      await sweepAt(100_000);
      expect([transport.closes, transport.texts]).toEqual([[], []]);
    },
  );

  it('closes once', async () => {
    const { transport, sweepAt } = setUp();
    await sweepAt(5_000);
    await sweepAt(6_000);
    expect(transport.closes).toHaveLength(1);
  });
});

describe('the timer of the heartbeat', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it.each([
    ['a tenth of the shorter setting', 2_000, 900, 90],
    ['never longer than 500 ms', 25_000, 10_000, 500],
    ['never shorter than 10 ms', 50, 50, 10],
  ])('sweeps every %s', (_what, intervalMs, timeoutMs, everyMs) => {
    let sweeps = 0;
    const counting = {
      *[Symbol.iterator]() {
        sweeps += 1;
        yield* [];
      },
    };
    const heartbeat = new Heartbeat({ intervalMs, timeoutMs }, counting);
    heartbeat.start();
    vi.advanceTimersByTime(everyMs * 10);
    expect(sweeps).toBe(10);
    heartbeat.stop();
    vi.advanceTimersByTime(everyMs * 10);
    expect(sweeps).toBe(10);
    expect(vi.getTimerCount()).toBe(0);
  });
});
