import { compilePattern } from '../protocol/names.js';

/** Which channels keep no events. */
export class ChannelRules {
  private readonly ephemeral: readonly ((channel: string) => boolean)[];

  /** Patterns of whole channel names, `*` for any run of characters: `room:cursor:*`. */
  constructor(ephemeralPatterns: readonly string[]) {
    this.ephemeral = ephemeralPatterns.map(compilePattern);
  }

  isDurable(channel: string): boolean {
    for (const matches of this.ephemeral) if (matches(channel)) return false;
    return true;
  }
}
