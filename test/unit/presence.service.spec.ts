import { Logger } from '@nestjs/common';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readSettings } from '../../src/config/settings.js';
import type { PresenceEntry } from '../../src/core/presence-store.js';
import { PresenceService } from '../../src/presence/presence.service.js';
import { connect, FakePresenceStore, identityOf } from './fakes.js';

const ROOM = 'room:a';
const GRACE_MS = 2_000;
const RETRY_MS = 1_000;

let store: FakePresenceStore;
let presence: PresenceService;

function start(graceMs = GRACE_MS): void {
  store = new FakePresenceStore();
  presence = new PresenceService(store, readSettings({ PRESENCE_GRACE_MS: String(graceMs) }));
  presence.start();
}

/** Lets `durationMs` pass, and what follows from it happen. */
async function pass(durationMs = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(durationMs);
}

const enter = (userId: string, scope: PresenceEntry['scope'] = ROOM): void =>
  presence.enter(scope, connect(userId).connection);
const lose = (userId: string): void => presence.leave(ROOM, userId, true);
const leave = (userId: string): void => presence.leave(ROOM, userId, false);

beforeEach(() => {
  vi.useFakeTimers();
  Logger.overrideLogger(false);
  start();
});
afterEach(() => {
  vi.useRealTimers();
});

describe('presence', () => {
  it('writes how many connections a user has, in the order in which they came and went', async () => {
    enter('alice');
    enter('bob');
    enter('alice');
    leave('alice');
    await pass();
    expect(store.writes).toEqual(['room:a alice 1', 'room:a bob 1', 'room:a alice 2', 'room:a alice 1']);
    expect(store.announced.every(Boolean)).toBe(true);
  });

  it('counts each scope apart', async () => {
    enter('alice', 'cluster');
    enter('alice', 'room:a');
    enter('alice', 'room:b');
    leave('alice');
    await pass();
    expect([...store.state]).toEqual([
      ['alice', 1],
      ['room:b alice', 1],
    ]);
  });

  it('gives the name of the connection that has one', async () => {
    presence.enter(ROOM, connect('alice', { identity: identityOf('alice', { name: 'Alice' }) }).connection);
    enter('alice');
    await pass();
    expect(store.names.get('room:a alice')).toBe('Alice');
  });

  it('takes no notice of a user leaving who is not there', async () => {
    leave('nobody');
    lose('nobody');
    await pass(GRACE_MS * 2);
    expect(store.writes).toEqual([]);
  });

  it('shows in a page what was said before it was asked for', async () => {
    enter('alice');
    expect((await presence.page('a', 10, undefined)).count).toBe(1);
  });

  it('knows the totals, and null while the store is away', async () => {
    expect(await presence.totals()).toEqual({ connections: 1, users: 2, rooms: 3, instances: 4 });
    store.away = true;
    expect(await presence.totals()).toBeNull();
  });
});

describe('a user who leaves', () => {
  it('is gone at once', async () => {
    enter('alice');
    leave('alice');
    await pass();
    expect(store.writes).toEqual(['room:a alice 1', 'room:a alice gone']);
  });

  it('is gone with the last connection only', async () => {
    enter('alice');
    enter('alice');
    leave('alice');
    await pass(GRACE_MS * 2);
    expect(store.state.get('room:a alice')).toBe(1);
    leave('alice');
    await pass();
    expect(store.writes.at(-1)).toBe('room:a alice gone');
  });
});

describe('a user whose connection is lost', () => {
  it('counts as present without a connection until the grace is over, and then is gone once', async () => {
    enter('alice');
    lose('alice');
    await pass(GRACE_MS - 1);
    expect(store.writes).toEqual(['room:a alice 1', 'room:a alice 0']);
    await pass(GRACE_MS / 10);
    expect(store.writes).toEqual(['room:a alice 1', 'room:a alice 0', 'room:a alice gone']);
    await pass(GRACE_MS * 3);
    expect(store.writes).toHaveLength(3);
  });

  it('has never been away when it comes back in the grace', async () => {
    enter('alice');
    lose('alice');
    await pass(GRACE_MS - 1);
    enter('alice');
    await pass(GRACE_MS * 5);
    expect(store.writes).toEqual(['room:a alice 1', 'room:a alice 0', 'room:a alice 1']);
  });

  it('has the whole grace again when it is lost again', async () => {
    enter('alice');
    lose('alice');
    await pass(GRACE_MS - 1);
    enter('alice');
    lose('alice');
    await pass(GRACE_MS - 1);
    expect(store.state.get('room:a alice')).toBe(0);
    await pass(GRACE_MS / 10);
    expect(store.state.has('room:a alice')).toBe(false);
  });

  it('keeps its grace when another of its connections leaves by itself', async () => {
    enter('alice');
    enter('alice');
    lose('alice');
    leave('alice');
    await pass(GRACE_MS - 1);
    expect(store.state.get('room:a alice')).toBe(0);
    await pass(GRACE_MS / 10);
    expect(store.state.has('room:a alice')).toBe(false);
  });

  it('is gone at once where there is no grace', async () => {
    start(0);
    enter('alice');
    lose('alice');
    await pass();
    expect(store.writes).toEqual(['room:a alice 1', 'room:a alice gone']);
  });

  it('does not keep another one from going', async () => {
    enter('alice');
    enter('bob');
    lose('alice');
    await pass(GRACE_MS / 2);
    lose('bob');
    await pass(GRACE_MS / 2 + GRACE_MS / 10);
    expect([...store.state.keys()]).toEqual(['room:a bob']);
    await pass(GRACE_MS);
    expect([...store.state.keys()]).toEqual([]);
  });
});

describe('what could not be written', () => {
  it('is written when the store is back', async () => {
    store.away = true;
    enter('alice');
    enter('bob');
    await pass(RETRY_MS * 3);
    store.away = false;
    await pass(RETRY_MS);
    expect(Object.fromEntries(store.state)).toEqual({ 'room:a alice': 1, 'room:a bob': 1 });
  });

  it('is written once', async () => {
    store.away = true;
    enter('alice');
    await pass(RETRY_MS);
    store.away = false;
    await pass(RETRY_MS * 5);
    expect(store.writes).toEqual(['room:a alice 1']);
  });

  it('is written as it is by then, not step by step', async () => {
    store.away = true;
    enter('alice');
    enter('alice');
    enter('bob');
    leave('bob');
    lose('alice');
    await pass(RETRY_MS / 2);
    store.away = false;
    await pass(RETRY_MS);
    expect(Object.fromEntries(store.state)).toEqual({ 'room:a alice': 1 });
  });

  it('is tried again as long as it takes, of a user who has gone too', async () => {
    enter('alice');
    await pass();
    store.away = true;
    leave('alice');
    await pass(RETRY_MS * 10);
    expect(store.state.get('room:a alice')).toBe(1);
    store.away = false;
    await pass(RETRY_MS);
    expect(store.state.has('room:a alice')).toBe(false);
  });

  it('is not written over what is newer', async () => {
    store.away = true;
    enter('alice');
    enter('bob');
    await pass(RETRY_MS / 4);
    store.away = false;
    leave('alice');
    enter('bob');
    await pass(RETRY_MS * 5);
    expect(Object.fromEntries(store.state)).toEqual({ 'room:a bob': 2 });
  });

  it('is tried again after any other failure, too', async () => {
    store.fault = new TypeError('not expected');
    enter('alice');
    await pass();
    store.fault = null;
    await pass(RETRY_MS);
    expect(store.state.get('room:a alice')).toBe(1);
  });
});

describe('a store that has lost the entries', () => {
  it.each([
    [false, 'nobody is told'],
    [true, 'the others are told again'],
  ])('gets them all again; reaped: %s, %s', async (reaped) => {
    enter('alice');
    enter('bob');
    enter('bob');
    lose('alice');
    await pass();
    store.writes.length = 0;
    store.announced.length = 0;
    store.lose(reaped);
    await pass();
    expect(store.writes).toEqual(['room:a alice 0', 'room:a bob 2']);
    expect(store.announced).toEqual([reaped, reaped]);
  });

  it('gets nothing where nobody is there', async () => {
    store.lose(true);
    await pass();
    expect(store.writes).toEqual([]);
  });
});

describe('the end of presence', () => {
  it('comes after all that waits was written, and nothing is written after it', async () => {
    enter('alice');
    enter('bob');
    lose('bob');
    leave('alice');
    const released = presence.release();
    await released;
    expect(store.writes).toEqual(['room:a alice 1', 'room:a bob 1', 'room:a bob 0', 'room:a alice gone']);
    await pass(GRACE_MS * 5);
    expect(store.writes).toHaveLength(4);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('comes also where the store is away', async () => {
    enter('alice');
    await pass();
    store.away = true;
    leave('alice');
    await expect(presence.release()).resolves.toBeUndefined();
  });
});
