import type { Channel } from './channel.js';

/** The rooms that a connection is a member of, or about to be (null). One room, as most have, needs no map. */
export class Rooms {
  private name: string | null = null;
  private channel: Channel | null = null;
  private several: Map<string, Channel | null> | null = null;

  get size(): number {
    return this.several?.size ?? (this.name === null ? 0 : 1);
  }

  /** Undefined where it is not in it, nor about to be. */
  get(name: string): Channel | null | undefined {
    if (this.several !== null) return this.several.get(name);
    return this.name === name ? this.channel : undefined;
  }

  set(name: string, channel: Channel | null): void {
    if (this.several !== null) this.several.set(name, channel);
    else if (this.name === null || this.name === name) [this.name, this.channel] = [name, channel];
    else {
      this.several = new Map([
        [this.name, this.channel],
        [name, channel],
      ]);
      [this.name, this.channel] = [null, null];
    }
  }

  delete(name: string): void {
    if (this.several !== null) this.several.delete(name);
    else if (this.name === name) [this.name, this.channel] = [null, null];
  }

  clear(): void {
    [this.name, this.channel, this.several] = [null, null, null];
  }

  list(): [name: string, channel: Channel | null][] {
    if (this.several !== null) return [...this.several];
    return this.name === null ? [] : [[this.name, this.channel]];
  }
}
