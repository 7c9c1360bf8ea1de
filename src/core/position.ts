import type { Position } from '../protocol/messages.js';

/**
 * An epoch is `<life>.<birth>`: the life is one unbroken history of the storage below the channel, the birth tells
 * channels apart that were born in the same life. Birth 0 is a channel that was not written yet.
 */
export function lifeOf(epoch: string): string {
  const dot = epoch.indexOf('.');
  return dot === -1 ? epoch : epoch.slice(0, dot);
}

/**
 * Whether a reader at `seen` may go on in a channel whose current epoch is `epoch`: the same epoch, or the reader got
 * its epoch before the channel's first event in the same life. Events carry no epoch, so it may be far beyond id 0 by now.
 */
export function continues(seen: Position, epoch: string): boolean {
  if (seen.epoch === epoch) return true;
  return lifeOf(seen.epoch) === lifeOf(epoch) && (seen.id === 0 || seen.epoch.endsWith('.0'));
}

/** Whether `epoch` was over when `other` began: lives are named so that later ones sort after earlier ones. */
export function isOlder(epoch: string, other: string): boolean {
  const life = lifeOf(epoch);
  const otherLife = lifeOf(other);
  if (life !== otherLife) return life < otherLife;
  return Number(epoch.slice(life.length + 1)) < Number(other.slice(otherLife.length + 1));
}
