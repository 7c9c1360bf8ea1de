interface Load<T> {
  readonly items: T[];
  readonly carried: Promise<void>;
  go(): void;
}

/**
 * Carries items by one call at a time: what comes while a call is under way goes along with the next one. What comes
 * alone does not wait, and in a storm every call takes many along.
 */
export class Relay<T> {
  private underWay = 0;
  private next: Load<T> | null = null;

  constructor(private readonly call: (items: readonly T[]) => Promise<void>) {}

  /** Settles as the call does that carries them. */
  carry(items: readonly T[]): Promise<void> {
    if (this.underWay === 0) return this.start(items);
    this.next ??= this.load();
    this.next.items.push(...items);
    return this.next.carried;
  }

  /** What waits goes now, behind the call that is under way. */
  hurry(): void {
    const { next } = this;
    this.next = null;
    next?.go();
  }

  private load(): Load<T> {
    const items: T[] = [];
    let go = (): void => undefined;
    const carried = new Promise<void>((resolve, reject) => {
      go = () => {
        this.start(items).then(resolve, reject);
      };
    });
    return { items, carried, go };
  }

  private start(items: readonly T[]): Promise<void> {
    this.underWay += 1;
    return this.call(items).finally(() => {
      this.underWay -= 1;
      if (this.underWay === 0) this.hurry();
    });
  }
}
