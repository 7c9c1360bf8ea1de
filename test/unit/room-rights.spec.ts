import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RoomRights } from '../../src/auth/room-rights.js';
import type { Action } from '../../src/core/identity.js';
import { BROADCAST, roomChannel, userChannel } from '../../src/protocol/names.js';

const actions: Action[] = ['join', 'publish', 'presence', 'history'];

/** Whether the claims allow it; where they say nothing, that somebody else decides. */
function allowed(claims: object, action: Action, channel: string): boolean | string {
  const [open, closed] = [true, false].map((otherwise) =>
    new RoomRights(claims, () => otherwise).allows(action, channel),
  );
  return open === closed ? open === true : 'not said';
}

describe('a right that no claim names', () => {
  it.each([[{}], [{ rooms: {} }], [{ rooms: { other: ['*'] } }], [{ sub: 'alice', scope: 'admin' }]])(
    'is for others to decide: %j',
    (claims) => {
      for (const action of actions) expect(allowed(claims, action, roomChannel('a'))).toBe('not said');
      expect(allowed(claims, 'publish', userChannel('bob'))).toBe('not said');
      expect(allowed(claims, 'publish', BROADCAST)).toBe('not said');
    },
  );

  it('is asked for by its action and channel, and may take its time', async () => {
    const asked: string[] = [];
    const rights = new RoomRights({ rooms: { publish: ['a'] } }, async (action, channel) => {
      asked.push(`${action} ${channel}`);
      return channel === 'room:a';
    });
    expect([rights.allows('publish', 'room:a'), rights.allows('publish', 'room:b')]).toEqual([true, false]);
    expect([await rights.allows('join', 'room:a'), await rights.allows('join', 'room:b')]).toEqual([
      true,
      false,
    ]);
    expect(asked).toEqual(['join room:a', 'join room:b']);
  });

  it('is apart from the others', () => {
    const claims = { rooms: { join: ['a'] }, direct: ['bob'] };
    expect(allowed(claims, 'publish', 'room:a')).toBe('not said');
    expect(allowed(claims, 'publish', BROADCAST)).toBe('not said');
  });
});

describe('rights in rooms', () => {
  it.each<[string[], string, boolean]>([
    [['a'], 'a', true],
    [['a'], 'b', false],
    [['a'], 'A', false],
    [['a'], 'ab', false],
    [['a', 'b'], 'b', true],
    [['tenant1:*'], 'tenant1:x', true],
    [['tenant1:*'], 'tenant1:', true],
    [['tenant1:*'], 'tenant10:x', false],
    [['tenant1:*'], 'x:tenant1:y', false],
    [['*'], 'anything', true],
    [['*:public'], 't:public', true],
    [['a*z'], 'az', true],
    [['a.c'], 'abc', false],
    [[], 'a', false],
    [[''], 'a', false],
    [['room:a'], 'a', false],
  ])('by the patterns %j for %s: %s', (patterns, room, is) => {
    for (const action of actions)
      expect(allowed({ rooms: { [action]: patterns } }, action, roomChannel(room))).toBe(is);
  });

  it('say nothing about a user whose id looks like a room', () => {
    const claims = { rooms: { publish: ['*'], join: ['*'] }, direct: [] };
    expect(allowed(claims, 'publish', userChannel('a'))).toBe(false);
    expect(allowed(claims, 'publish', userChannel('room:a'))).toBe(false);
  });

  it('say nothing about broadcast, nor about a room of that name', () => {
    expect(allowed({ rooms: { publish: ['*'] }, broadcast: false }, 'publish', BROADCAST)).toBe(false);
    expect(allowed({ rooms: { publish: [] }, broadcast: true }, 'publish', roomChannel('broadcast'))).toBe(
      false,
    );
  });
});

describe('rights to users', () => {
  it.each([
    [['bob'], 'bob', true],
    [['bob'], 'bobby', false],
    [['team:*'], 'team:carol', true],
    [['*'], '日本', true],
    [[], 'bob', false],
  ])('by the patterns %j for %s: %s', (direct, user, is) => {
    expect(allowed({ direct }, 'publish', userChannel(user))).toBe(is);
  });
});

describe('the right to broadcast', () => {
  it.each([
    [true, true],
    [false, false],
    ['true', false],
    [1, false],
    [null, false],
    [{}, false],
    [[true], false],
  ])('of %j is %s', (broadcast, is) => {
    expect(allowed({ broadcast }, 'publish', BROADCAST)).toBe(is);
  });
});

describe('a claim that makes no sense', () => {
  it.each([[['a']], [['*']], [[]]])(
    'grants nothing as an array in place of the rights in rooms: %j',
    (rooms) => {
      for (const action of actions) expect(allowed({ rooms }, action, roomChannel('a'))).toBe(false);
    },
  );

  it.each([null, 'a', '*', 7, true, { 0: '*', length: 1 }])('grants nothing: %j', (claim) => {
    for (const action of actions) {
      expect(allowed({ rooms: { [action]: claim } }, action, roomChannel('a'))).toBe(false);
      expect(allowed({ rooms: claim }, action, roomChannel('a'))).toBe(
        typeof claim === 'object' && claim !== null ? 'not said' : false,
      );
    }
    expect(allowed({ direct: claim }, 'publish', userChannel('a'))).toBe(false);
  });

  it('grants nothing as one of several patterns, and the others hold', () => {
    const rights = new RoomRights({ rooms: { join: [7, null, ['*'], { a: '*' }, 'b'] } }, () => true);
    expect([rights.allows('join', 'room:a'), rights.allows('join', 'room:b')]).toEqual([false, true]);
  });

  it('can’t be inherited', () => {
    const inherited: object = Object.create({ broadcast: true, rooms: { join: ['*'] }, direct: ['*'] });
    expect(allowed(inherited, 'join', roomChannel('a'))).toBe('not said');
    const proto: object = JSON.parse('{"__proto__":{"broadcast":true},"rooms":{"__proto__":{"join":["*"]}}}');
    expect(allowed(proto, 'publish', BROADCAST)).toBe('not said');
    expect(allowed(proto, 'join', roomChannel('a'))).toBe('not said');
  });

  it('is never more than a refusal, whatever it is', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(...actions), (claim, action) => {
        const rights = new RoomRights(
          { rooms: { [action]: claim }, direct: claim, broadcast: claim },
          () => false,
        );
        const patterns = Array.isArray(claim) ? claim : [];
        const grants = patterns.some(
          (pattern) => typeof pattern === 'string' && /^(?:\*+|\**x\**)$/.test(pattern),
        );
        expect(rights.allows(action, 'room:x')).toBe(grants);
        expect(rights.allows(action, BROADCAST)).toBe(claim === true);
      }),
    );
  });
});
