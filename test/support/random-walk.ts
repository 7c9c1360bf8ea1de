import type { Client } from './client.js';

/** Numbers from 0 to 1 that a seed repeats (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const bad = [
  'no JSON',
  '[]',
  '{"type":1}',
  '{"type":"nope"}',
  '{"type":"join_room","room":"not a name"}',
  '{"type":"__proto__"}',
  `{"type":"chat","content":${'['.repeat(65)}${']'.repeat(65)}}`,
];

export interface Walk {
  readonly operations: number;
  readonly clients: number;
  readonly seed: number;
  /** Opens a connection for this walker: the same user each time, on any instance. */
  readonly connect: (walker: number, random: () => number) => Promise<Client>;
}

/**
 * Clients that join, leave, send, disconnect and send nonsense at random, side by side, each one step after
 * the other. Resolves with the number of steps of each kind; every client is closed then.
 */
export async function randomWalk({ operations, clients, seed, connect }: Walk): Promise<Map<string, number>> {
  const steps = new Map<string, number>();
  const walk = async (walker: number): Promise<void> => {
    const random = seeded(seed + walker);
    const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T;
    const rooms = Array.from({ length: 20 }, (_value, index) => `walk:${index}`);
    let client = await connect(walker, random);
    const operation = {
      join: () => client.request({ type: 'join_room', room: pick(rooms) }),
      leave: () => client.request({ type: 'leave_room', room: pick(rooms) }),
      room: () => client.request({ type: 'room_message', room: pick(rooms), content: random() }),
      direct: () =>
        client.request({
          type: 'direct_message',
          target_user: `walker-${pick([1, 2, 3])}`,
          content: random(),
        }),
      chat: () => client.request({ type: 'chat', content: random() }),
      presence: () => client.request({ type: 'presence', room: pick(rooms) }),
      nonsense: () => {
        client.send(pick(bad));
        return client.next('error');
      },
      // Sent and cut off at once: the answer meets a connection that is gone.
      hangUp: async () => {
        client.send({ type: 'join_room', room: pick(rooms) });
        client.send({ type: 'room_message', room: pick(rooms), content: 1 });
        await client.cut();
        client = await connect(walker, random);
      },
      reconnect: async () => {
        await client.close();
        client = await connect(walker, random);
      },
    };
    const kinds = Object.keys(operation) as (keyof typeof operation)[];
    // Joins, leaves and room messages weigh most; a broadcast costs a delivery to everyone.
    const weights = {
      join: 30,
      leave: 20,
      room: 20,
      direct: 8,
      chat: 4,
      presence: 4,
      nonsense: 6,
      hangUp: 4,
      reconnect: 4,
    };
    const deck = kinds.flatMap((kind) => Array.from({ length: weights[kind] }, () => kind));
    for (let step = 0; step < operations / clients; step += 1) {
      const kind = pick(deck);
      steps.set(kind, (steps.get(kind) ?? 0) + 1);
      await operation[kind]();
      client.forget();
    }
    await (random() < 0.5 ? client.close() : client.cut());
  };
  await Promise.all(Array.from({ length: clients }, (_value, walker) => walk(walker)));
  return steps;
}
