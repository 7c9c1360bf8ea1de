import { FIGURES } from './figures.js';
import type { Measurement } from './measurement.js';
import type { Scenario } from './scenarios.js';
import { digits } from './text.js';

/** Tells on stderr what is measured, how far it is, and when it will be done. */
export class Progress {
  readonly #beganMs = performance.now();
  #done = 0;
  #label = '';

  constructor(private readonly steps: number) {}

  get seconds(): number {
    return (performance.now() - this.#beganMs) / 1000;
  }

  begin(label: string): void {
    this.#label = label;
  }

  end(scenario: Scenario, { figures, faults }: Measurement): void {
    this.#done += 1;
    const shown = scenario.figures
      .filter((name) => figures[name] !== undefined)
      .map((name) => `${digits(figures[name] ?? NaN, FIGURES[name].digits)} ${FIGURES[name].title}`);
    const rest = (this.seconds / this.#done) * (this.steps - this.#done);
    const text = [...shown, ...faults.map((fault) => `! ${fault}`)].join(', ');
    process.stderr.write(
      `[${this.#done} of ${this.steps}, ${minutes(rest)} to go] ${this.#label}: ${text}\n`,
    );
  }
}

export function minutes(seconds: number): string {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}
