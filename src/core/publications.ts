interface UnderWay {
  begun: number;
  done: number;
  waiting: { until: number; resolve: () => void }[] | null;
}

/** What one connection is publishing, by channel, so that what has to see it can wait for it. */
export class Publications {
  private readonly channels = new Map<string, UnderWay>();
  /** The id of the last event that it published to each room it is in. */
  private readonly lastIds = new Map<string, number>();

  begin(channel: string): void {
    const known = this.channels.get(channel);
    if (known === undefined) this.channels.set(channel, { begun: 1, done: 0, waiting: null });
    else known.begun += 1;
  }

  /** One more is stored, or has failed; publications to a channel settle in the order in which they began. */
  end(channel: string): void {
    const known = this.channels.get(channel);
    if (known === undefined) return;
    known.done += 1;
    if (known.waiting !== null) known.waiting = release(known.waiting, known.done);
    if (known.done === known.begun) this.channels.delete(channel);
  }

  /** Settles when all that have begun are done; undefined where none is under way. */
  settled(channel: string): Promise<void> | undefined {
    const known = this.channels.get(channel);
    if (known === undefined) return undefined;
    return new Promise((resolve) => {
      (known.waiting ??= []).push({ until: known.begun, resolve });
    });
  }

  noteId(channel: string, id: number): void {
    this.lastIds.set(channel, id);
  }

  /** 0 where it has published nothing. */
  lastId(channel: string): number {
    return this.lastIds.get(channel) ?? 0;
  }

  forgetId(channel: string): void {
    this.lastIds.delete(channel);
  }
}

function release(waiting: NonNullable<UnderWay['waiting']>, done: number): UnderWay['waiting'] {
  const later = waiting.filter(({ until }) => until > done);
  for (const { until, resolve } of waiting) if (until <= done) resolve();
  return later.length === 0 ? null : later;
}
