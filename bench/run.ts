import { build } from './c-program.js';
import { describeMachine } from './machine.js';
import { measure, type Measurement } from './measurement.js';
import { readOptions, type Options } from './options.js';
import { Progress } from './progress.js';
import { writeReport } from './report.js';
import type { Point, Scenario } from './scenarios.js';
import type { Server } from './servers.js';

interface Step {
  readonly scenario: Scenario;
  readonly point: Point;
  readonly server: Server;
  readonly repetition: number;
}

/** Repetition 1 of every point on every server, then repetition 2: what drifts meets all of them. */
function plan({ repetitions, scenarios, servers, size }: Options): Step[] {
  const steps: Step[] = [];
  for (let repetition = 1; repetition <= repetitions; repetition += 1)
    for (const scenario of scenarios)
      for (const point of scenario.points(size))
        for (const server of servers)
          if (scenario.suits(server)) steps.push({ scenario, point, server, repetition });
  return steps;
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  build('load');
  for (const server of options.servers) server.prepare();
  const machine = describeMachine(options.node);
  const steps = plan(options);
  const progress = new Progress(steps.length);
  const measurements: Measurement[] = [];
  for (const { scenario, point, server, repetition } of steps) {
    progress.begin(`${repetition}/${options.repetitions} ${point.name} ${server.title}`);
    const measurement = await measure(server, point, repetition, options.node);
    progress.end(scenario, measurement);
    measurements.push(measurement);
  }
  const path = await writeReport({ options, machine, measurements, seconds: progress.seconds });
  process.stderr.write(`${path}\n`);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));
try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
process.exit();
