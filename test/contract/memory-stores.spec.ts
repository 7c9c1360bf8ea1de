import { ChannelRules } from '../../src/core/channel-rules.js';
import { MemoryAckedPositions } from '../../src/memory/memory-acked-positions.js';
import { MemoryBroker } from '../../src/memory/memory-broker.js';
import { MemoryIdempotency } from '../../src/memory/memory-control.js';
import { defaults } from './broker.contract.js';
import { storesContract } from './stores.contract.js';

const brokers: MemoryBroker[] = [];

storesContract({
  name: 'memory',
  create: async ({ answerTtlMs }) => {
    const broker = new MemoryBroker(new ChannelRules([]), defaults);
    brokers.push(broker);
    const acked = new MemoryAckedPositions(broker);
    const answers = new MemoryIdempotency(answerTtlMs);
    return { broker, acked: { here: acked, there: acked }, answers: { here: answers, there: answers } };
  },
  close: async () => {
    await Promise.all(brokers.map((broker) => broker.stop()));
  },
});
