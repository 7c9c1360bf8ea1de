import { describe, expect, it } from 'vitest';
import { ChannelRules } from '../../src/core/channel-rules.js';
import { MemoryBroker } from '../../src/memory/memory-broker.js';
import { MemoryPresence } from '../../src/memory/memory-presence.js';
import { defaults } from './broker.contract.js';
import { entry, presenceContract } from './presence.contract.js';
import { RecordingSink } from './recording-sink.js';

const brokers: MemoryBroker[] = [];

function create(options: { announceUsers: boolean; announceMembersMax: number }) {
  const broker = new MemoryBroker(new ChannelRules([]), defaults);
  brokers.push(broker);
  const sink = new RecordingSink();
  broker.start(sink);
  const store = new MemoryPresence(broker, options);
  return { store, broker, sink };
}

presenceContract({
  name: 'memory',
  create: async (options) => create(options),
  close: async () => {
    await Promise.all(brokers.map((broker) => broker.stop()));
  },
});

describe('a memory presence store alone', () => {
  it('asks for all entries at its start, and they were not taken out by anybody', () => {
    const lost: boolean[] = [];
    create({ announceUsers: true, announceMembersMax: 3 }).store.start((reaped) => lost.push(reaped));
    expect(lost).toEqual([false]);
  });

  it('knows nobody after it was stopped', async () => {
    const { store } = create({ announceUsers: true, announceMembersMax: 3 });
    await store.write([entry('cluster', 'alice'), entry('room:a', 'alice')]);
    await store.stop();
    expect(await store.totals()).toMatchObject({ connections: 0, users: 0, rooms: 0 });
  });
});
