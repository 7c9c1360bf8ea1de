import { beforeEach, describe, expect, it } from 'vitest';
import { Relay } from '../../src/core/relay.js';

interface Call {
  readonly items: readonly string[];
  resolve(): void;
  reject(error: Error): void;
}

let calls: Call[];
let relay: Relay<string>;

beforeEach(() => {
  calls = [];
  relay = new Relay<string>(
    (items) => new Promise((resolve, reject) => calls.push({ items: [...items], resolve, reject })),
  );
});

const carried = (): (readonly string[])[] => calls.map(({ items }) => items);
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('a relay', () => {
  it('carries what comes alone at once', () => {
    void relay.carry(['a']);
    expect(carried()).toEqual([['a']]);
  });

  it('carries what comes during a call with the next one, in order', async () => {
    void relay.carry(['a']);
    void relay.carry(['b', 'c']);
    void relay.carry(['d']);
    expect(carried()).toEqual([['a']]);
    calls[0]?.resolve();
    await settle();
    expect(carried()).toEqual([['a'], ['b', 'c', 'd']]);
  });

  it('calls for nothing when nothing came meanwhile', async () => {
    void relay.carry(['a']);
    calls[0]?.resolve();
    await settle();
    void relay.carry(['b']);
    expect(carried()).toEqual([['a'], ['b']]);
  });

  it('tells each how the call went that carried it', async () => {
    const told: string[] = [];
    const tell = (name: string) => (result: Promise<void>) =>
      void result.then(
        () => told.push(`${name} done`),
        (error: unknown) => told.push(`${name} ${String(error)}`),
      );
    tell('a')(relay.carry(['a']));
    tell('b')(relay.carry(['b']));
    tell('c')(relay.carry(['c']));
    calls[0]?.resolve();
    await settle();
    expect(told).toEqual(['a done']);
    calls[1]?.reject(new Error('away'));
    await settle();
    expect(told).toEqual(['a done', 'b Error: away', 'c Error: away']);
  });

  it('goes on after a call that failed', async () => {
    relay.carry(['a']).catch(() => undefined);
    void relay.carry(['b']);
    calls[0]?.reject(new Error('away'));
    await settle();
    expect(carried()).toEqual([['a'], ['b']]);
  });

  it('hurries what waits behind the call that is under way, once', async () => {
    void relay.carry(['a']);
    void relay.carry(['b']);
    relay.hurry();
    relay.hurry();
    expect(carried()).toEqual([['a'], ['b']]);
    void relay.carry(['c']);
    calls[0]?.resolve();
    await settle();
    // One is still under way.
    expect(carried()).toEqual([['a'], ['b']]);
    calls[1]?.resolve();
    await settle();
    expect(carried()).toEqual([['a'], ['b'], ['c']]);
  });
});
