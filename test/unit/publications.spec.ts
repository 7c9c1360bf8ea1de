import { describe, expect, it } from 'vitest';
import { Publications } from '../../src/core/publications.js';
import { settled } from './fakes.js';

const ROOM = 'room:a';

/** Whether what waits for the publications of a channel may go on. */
function waiterOf(publications: Publications, channel = ROOM): () => boolean {
  let isDone = false;
  const waiting = publications.settled(channel);
  if (waiting === undefined) return () => true;
  void waiting.then(() => (isDone = true));
  return () => isDone;
}

describe('the publications of a connection', () => {
  it('keep nobody waiting where none is under way', () => {
    const publications = new Publications();
    expect(publications.settled(ROOM)).toBeUndefined();
    publications.begin(ROOM);
    publications.end(ROOM);
    expect(publications.settled(ROOM)).toBeUndefined();
  });

  it('keep a waiter until those before it are done, and not those after it', async () => {
    const publications = new Publications();
    publications.begin(ROOM);
    publications.begin(ROOM);
    const first = waiterOf(publications);
    publications.begin(ROOM);
    const second = waiterOf(publications);
    publications.end(ROOM);
    await settled();
    expect([first(), second()]).toEqual([false, false]);
    publications.end(ROOM);
    publications.begin(ROOM);
    await settled();
    expect([first(), second()]).toEqual([true, false]);
    publications.end(ROOM);
    await settled();
    expect(second()).toBe(true);
  });

  it('are counted for each channel', async () => {
    const publications = new Publications();
    publications.begin(ROOM);
    publications.begin('room:b');
    const waiter = waiterOf(publications);
    publications.end('room:b');
    await settled();
    expect(waiter()).toBe(false);
    publications.end(ROOM);
    await settled();
    expect(waiter()).toBe(true);
  });

  it('remember the last id of a channel until it is forgotten', () => {
    const publications = new Publications();
    expect(publications.lastId(ROOM)).toBe(0);
    publications.noteId(ROOM, 7);
    publications.noteId('room:b', 2);
    expect(publications.lastId(ROOM)).toBe(7);
    publications.forgetId(ROOM);
    expect([publications.lastId(ROOM), publications.lastId('room:b')]).toEqual([0, 2]);
  });
});
