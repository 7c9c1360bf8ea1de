import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Channel } from '../../src/core/channel.js';
import { Rooms } from '../../src/core/rooms.js';
import { Turn } from '../../src/core/turn.js';

const names = ['a', 'b', 'c'];
const channels = [null, ...names.map((name) => new Channel(`room:${name}`, true, new Turn()))];

describe('the rooms of a connection', () => {
  it('are a map that keeps the order in which they came, whatever is done to it', () => {
    const step = fc.record({
      act: fc.constantFrom('set', 'set', 'delete', 'clear'),
      name: fc.constantFrom(...names),
      channel: fc.constantFrom(...channels),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const rooms = new Rooms();
        const model = new Map<string, Channel | null>();
        for (const { act, name, channel } of steps) {
          if (act === 'set') {
            rooms.set(name, channel);
            model.set(name, channel);
          } else if (act === 'delete') {
            rooms.delete(name);
            model.delete(name);
          } else {
            rooms.clear();
            model.clear();
          }
          expect(rooms.size).toBe(model.size);
          expect(rooms.list()).toEqual([...model]);
          for (const one of names) expect(rooms.get(one)).toBe(model.get(one));
        }
      }),
    );
  });
});
