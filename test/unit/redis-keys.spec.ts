import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isRoomName, isUserId } from '../../src/protocol/names.js';
import {
  encodeChannel,
  encodeUserId,
  PARTITIONS,
  partitionOf,
  RedisKeys,
} from '../../src/redis/redis-keys.js';

const userId = fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }).filter(isUserId);
/** Ids that try to be another key. */
const sly = fc
  .string({
    unit: fc.constantFrom('{', '}', ':', '%', '*', ' ', '0', '1', 'a', 'meta', 'log', 'room', '7B', 'ä'),
    minLength: 1,
    maxLength: 12,
  })
  .filter(isUserId);
const roomName = fc
  .string({
    unit: fc.constantFrom('a', ':', 'meta', 'log', 'bus', 'idem', '/', '.', '@', 'user', '0'),
    minLength: 1,
    maxLength: 12,
  })
  .filter(isRoomName);
const channel = fc.oneof(
  fc.constant('broadcast'),
  userId.map((id) => `user:${id}`),
  sly.map((id) => `user:${id}`),
  roomName.map((room) => `room:${room}`),
);

const keys = new RedisKeys('p');

/** Every key and bus that belongs to a channel. */
function all(name: string): string[] {
  const base = keys.channel(partitionOf(name), name);
  return [...['meta', 'log', 'idem:x'].map((suffix) => `${base}:${suffix}`), keys.bus(name)];
}

describe('the id of a user in a key', () => {
  it.each([
    ['alice', 'alice'],
    ['a.B_9@x-y', 'a.B_9@x-y'],
    ['{0}:life', '%7B0%7D%3Alife'],
    ['a b', 'a%20b'],
    ['100%', '100%25'],
    ['%41', '%2541'],
    ['*?[x]', '%2A%3F%5Bx%5D'],
    ['ä', '%C3%A4'],
    ['😀', '%F0%9F%98%80'],
    ['a/b', 'a%2Fb'],
  ])('%s stands as %s', (id, encoded) => {
    expect(encodeUserId(id)).toBe(encoded);
  });

  it('has nothing in it that means something in a key, a slot, a pattern or a script', () => {
    fc.assert(
      fc.property(fc.oneof(userId, sly), (id) => {
        expect(encodeUserId(id)).toMatch(/^[A-Za-z0-9._@%-]+$/);
      }),
      { numRuns: 2_000 },
    );
  });

  it('can be read back, so that no two are the same', () => {
    fc.assert(
      fc.property(fc.oneof(userId, sly), (id) => {
        expect(decodeURIComponent(encodeUserId(id))).toBe(id);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('a channel', () => {
  it('is in one of 256 partitions, for ever the same', () => {
    expect(PARTITIONS).toBe(256);
    // What is stored under these must be found by every later version.
    expect(['broadcast', 'room:a', 'user:alice', 'room:日', 'user:{1}:life'].map(partitionOf)).toEqual(
      ['broadcast', 'room:a', 'user:alice', 'room:日', 'user:{1}:life'].map(crc16).map((crc) => crc % 256),
    );
    expect(crc16('123456789')).toBe(0x31c3);
    fc.assert(
      fc.property(channel, (name) => {
        expect(partitionOf(name)).toBe(crc16(name) % 256);
      }),
    );
  });

  it('fills the partitions evenly', () => {
    const counts = new Map<number, number>();
    for (let at = 0; at < 25_600; at += 1) {
      const partition = partitionOf(`user:u${at}`);
      counts.set(partition, (counts.get(partition) ?? 0) + 1);
    }
    expect(counts.size).toBe(256);
    expect(Math.max(...counts.values())).toBeLessThan(200);
  });

  it('shares no key and no bus with any other', () => {
    fc.assert(
      fc.property(channel, channel, (one, other) => {
        fc.pre(one !== other);
        const others = new Set(all(other));
        expect(all(one).filter((key) => others.has(key))).toEqual([]);
      }),
      { numRuns: 3_000 },
    );
  });

  it('reaches no key that the gateway uses otherwise', () => {
    const own = (partition: number): string[] => [
      keys.control,
      keys.instances,
      keys.fenceLock,
      keys.life(partition),
      keys.notices(partition),
      keys.instance('i'),
      keys.reaped('i/0'),
      ...['rooms', 'presence:counts', 'presence:cluster:live', 'entries:i/0'].map(
        (name) => `${keys.tag(partition)}:${name}`,
      ),
    ];
    fc.assert(
      fc.property(channel, (name) => {
        const taken = new Set(own(partitionOf(name)));
        expect(all(name).filter((key) => taken.has(key))).toEqual([]);
      }),
      { numRuns: 2_000 },
    );
  });

  it('keeps all its keys in the one slot of its partition, whatever it is called', () => {
    fc.assert(
      fc.property(channel, (name) => {
        const tag = `{${partitionOf(name)}}`;
        for (const key of all(name)) {
          expect(/\{([^}]*)\}/.exec(key)?.[0]).toBe(tag);
          expect(key.startsWith(`p:${tag}:`)).toBe(true);
          expect(key.split('{')).toHaveLength(2);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it('of a user is never one of a room', () => {
    expect(encodeChannel('user:room:a')).toBe('user:room%3Aa');
    expect(encodeChannel('room:user:a')).toBe('room:user:a');
    expect(encodeChannel('broadcast')).toBe('broadcast');
    expect(encodeChannel('user:broadcast')).toBe('user:broadcast');
  });
});

describe('the keys', () => {
  it('all begin with the prefix', () => {
    const other = new RedisKeys('q');
    const found = [other.control, other.instances, other.fenceLock, other.life(0), other.notices(255)];
    found.push(other.instance('i'), other.reaped('l'), other.bus('broadcast'), other.tag(7));
    for (const key of found) expect(key.startsWith('q:')).toBe(true);
  });

  it('of the partitions are 256 different ones', () => {
    const lives = Array.from({ length: PARTITIONS }, (_, partition) => keys.life(partition));
    expect(new Set(lives).size).toBe(256);
    expect(lives[255]).toBe('p:{255}:life');
  });
});

/** CRC16/XMODEM by its polynomial, one bit after the other. */
function crc16(text: string): number {
  let crc = 0;
  for (const byte of Buffer.from(text)) {
    for (let bit = 7; bit >= 0; bit -= 1) {
      const carry = ((crc >> 15) & 1) ^ ((byte >> bit) & 1);
      crc = ((crc << 1) & 0xffff) ^ (carry === 1 ? 0x1021 : 0);
    }
  }
  return crc;
}
