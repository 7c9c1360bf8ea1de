import { describe, expect, it } from 'vitest';
import { ChannelRules } from '../../src/core/channel-rules.js';
import { MemoryBroker } from '../../src/memory/memory-broker.js';
import { body, brokerContract, defaults, publishMany } from './broker.contract.js';
import { RecordingSink } from './recording-sink.js';

const brokers: MemoryBroker[] = [];

brokerContract({
  name: 'memory',
  create: async ({ ephemeral, ...options }) => {
    const broker = new MemoryBroker(new ChannelRules(ephemeral), options);
    const sink = new RecordingSink();
    broker.start(sink);
    brokers.push(broker);
    return { here: broker, hereSink: sink, there: broker, thereSink: sink };
  },
  close: async () => {
    await Promise.all(brokers.map((broker) => broker.stop()));
  },
});

describe('a memory broker alone', () => {
  it('is down before it is started and after it was stopped', async () => {
    const broker = new MemoryBroker(new ChannelRules([]), defaults);
    expect(broker.health().up).toBe(false);
    broker.start(new RecordingSink());
    expect(broker.health().up).toBe(true);
    await broker.stop();
    expect(broker.health().up).toBe(false);
  });

  it('begins another epoch with each process', async () => {
    const lives = await Promise.all(
      [1, 2].map(async () => {
        const broker = new MemoryBroker(new ChannelRules([]), defaults);
        const [position] = await publishMany(broker, 'room:a', 1);
        await broker.stop();
        return position?.epoch;
      }),
    );
    expect(lives[0]).not.toBe(lives[1]);
  });

  it('counts ages by a clock that is handed to it', async () => {
    let nowMs = 0;
    const broker = new MemoryBroker(new ChannelRules([]), defaults, () => nowMs);
    const idempotency = { scope: 'alice', key: 'm1' };
    const publish = () => broker.publish({ channel: 'room:a', body: body(1), idempotency });
    const first = await publish();
    nowMs = defaults.idempotencyTtlMs - 1;
    expect(await publish()).toEqual({ ...first, duplicate: true });
    nowMs = defaults.idempotencyTtlMs;
    const second = await publish();
    expect([second.duplicate, second.position?.id]).toEqual([false, 2]);
    nowMs = defaults.historyTtlMs - 1;
    const start = { epoch: first.position?.epoch ?? '', id: 0 };
    expect(await broker.history('room:a', start, 10)).toMatchObject({ kind: 'events' });
    nowMs = defaults.historyTtlMs;
    expect(await broker.history('room:a', start, 10)).toMatchObject({ kind: 'lost', oldestId: 2 });
    await broker.stop();
  });
});
