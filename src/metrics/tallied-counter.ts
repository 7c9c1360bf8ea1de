import type { CounterConfiguration, LabelValues } from 'prom-client';
import { Counter } from 'prom-client';

interface Tally<Label extends string> {
  labels: LabelValues<Label>;
  count: number;
}

/** A counter for what happens with every message: prom-client hashes the labels at every step, this only when it is read. */
export class TalliedCounter<Label extends string> {
  private readonly tallies = new Map<string, Tally<Label>>();

  constructor(configuration: CounterConfiguration<Label>) {
    const counter: Counter<Label> = new Counter({ ...configuration, collect: () => this.handOver(counter) });
  }

  /** `name` stands for the labels, which are looked at once. */
  add(name: string, labels: LabelValues<Label>, count = 1): void {
    const known = this.tallies.get(name);
    if (known === undefined) this.tallies.set(name, { labels, count });
    else known.count += count;
  }

  private handOver(counter: Counter<Label>): void {
    for (const tally of this.tallies.values()) {
      counter.inc(tally.labels, tally.count);
      tally.count = 0;
    }
  }
}
