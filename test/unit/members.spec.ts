import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Members } from '../../src/core/members.js';
import { connect } from './fakes.js';

describe('the members of a channel', () => {
  it('are a set that keeps the order in which they came, whatever is done to it', () => {
    const connections = Array.from({ length: 4 }, (_, index) => connect(`u${index}`).connection);
    const step = fc.record({ isAdded: fc.boolean(), index: fc.nat({ max: connections.length - 1 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const members = new Members();
        const model = new Set<object>();
        for (const { isAdded, index } of steps) {
          const connection = connections[index];
          if (connection === undefined) continue;
          if (isAdded) {
            members.add(connection);
            model.add(connection);
          } else {
            members.delete(connection);
            model.delete(connection);
          }
          const visited: object[] = [];
          members.forEach((member) => visited.push(member));
          expect(members.size).toBe(model.size);
          expect(visited).toEqual([...model]);
          expect(members.list()).toEqual([...model]);
          for (const one of connections) expect(members.has(one)).toBe(model.has(one));
        }
      }),
    );
  });
});
