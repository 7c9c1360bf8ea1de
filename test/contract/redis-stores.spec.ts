import { afterAll, beforeAll } from 'vitest';
import { fresh } from '../support/names.js';
import { RedisServer } from '../support/redis-server.js';
import { RedisInstance } from './redis-instance.js';
import { storesContract } from './stores.contract.js';

let server: RedisServer;
const instances: RedisInstance[] = [];

beforeAll(async () => {
  server = await RedisServer.start();
});
afterAll(async () => {
  await server.dispose();
});

storesContract({
  name: 'Redis',
  create: async ({ answerTtlMs }) => {
    const prefix = fresh('t');
    const [here, there] = [
      await RedisInstance.start(server, { prefix }),
      await RedisInstance.start(server, { prefix }),
    ];
    instances.push(here, there);
    return {
      broker: here.broker,
      acked: { here: here.ackedPositions(), there: there.ackedPositions() },
      answers: { here: here.answers(answerTtlMs), there: there.answers(answerTtlMs) },
    };
  },
  close: async () => {
    await Promise.all(instances.map((instance) => instance.close()));
  },
});
