import type { Judgement } from './ledger.js';

/** The size of a run; `--quick` is for looking at the runner itself. */
export interface Size {
  readonly clients: number;
  readonly rooms: number;
  readonly rate: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly isQuick: boolean;
}

export const FULL: Size = { clients: 500, rooms: 20, rate: 200, bytes: 200, seconds: 100, isQuick: false };
export const QUICK: Size = { clients: 100, rooms: 20, rate: 50, bytes: 200, seconds: 10, isQuick: true };

export interface Result extends Partial<Judgement> {
  closes?: ReadonlyMap<number, number>;
  recoveryMs?: number;
  rssGrowthMb?: number;
  /** Further figures of the row. */
  notes?: string[];
  /** What did not hold; none: the row has passed. */
  failures: string[];
}

/** What a row runs in: everything it starts is ended in the reverse order, whatever happens. */
export class Context {
  status: () => string = () => '';
  #cleanups: (() => Promise<void> | void)[] = [];
  #ended: Promise<void> | null = null;

  constructor(readonly size: Size) {}

  /** Ends `thing` with the row. */
  own<T extends { dispose(): Promise<void> }>(thing: T): T {
    this.#cleanups.push(() => thing.dispose());
    return thing;
  }

  onEnd(cleanup: () => Promise<void> | void): void {
    this.#cleanups.push(cleanup);
  }

  say(text: string): void {
    process.stderr.write(`    ${text}\n`);
  }

  /** Ends everything once; whoever else calls it waits for that. */
  end(): Promise<void> {
    this.#ended ??= this.#end();
    return this.#ended;
  }

  async #end(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0).reverse()) {
      try {
        await cleanup();
      } catch (error) {
        this.say(`not ended cleanly: ${String(error)}`);
      }
    }
  }
}

export interface Row {
  /** `9`, or `9-always` for a further way to run it: `9` runs both. */
  readonly name: string;
  readonly fault: string;
  readonly criterion: string;
  /** What it may take beside the seconds of load. */
  readonly extraSeconds?: number;
  run(context: Context): Promise<Result>;
}
