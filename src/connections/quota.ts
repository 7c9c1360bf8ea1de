/** How many connections each of something has, counted where there is a limit: else it is a map entry for each, for nothing. */
export class Quota {
  private readonly counts = new Map<string, number>();

  constructor(
    /** 0: none. */
    private readonly limit: number,
  ) {}

  isReached(key: string): boolean {
    return this.limit > 0 && (this.counts.get(key) ?? 0) >= this.limit;
  }

  take(key: string): void {
    if (this.limit > 0) this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
  }

  giveBack(key: string): void {
    const count = (this.counts.get(key) ?? 0) - 1;
    if (count > 0) this.counts.set(key, count);
    else this.counts.delete(key);
  }
}
