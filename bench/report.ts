import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { chartsOf, type Chart } from './charts.js';
import { FIGURES, type FigureName } from './figures.js';
import type { Machine } from './machine.js';
import type { Measurement } from './measurement.js';
import type { Options } from './options.js';
import { minutes } from './progress.js';
import type { Scenario } from './scenarios.js';
import { REFERENCE, type Server } from './servers.js';
import { isMet, medianOf, ratioOf, TARGETS, valuesOf } from './targets.js';
import { digits, table } from './text.js';

export interface Run {
  readonly options: Options;
  readonly machine: Machine;
  readonly measurements: readonly Measurement[];
  readonly seconds: number;
}

/** Writes report.md, report.json and the charts; answers the path of the first. */
export async function writeReport(run: Run): Promise<string> {
  const { options, machine, measurements, seconds } = run;
  await rm(join(options.out, 'charts'), { recursive: true, force: true });
  await mkdir(join(options.out, 'charts'), { recursive: true });
  const sections: string[] = [];
  for (const scenario of options.scenarios) {
    const servers = options.servers.filter((server) => scenario.suits(server));
    if (servers.length === 0) continue;
    const charts = chartsOf(scenario, options.size, servers, measurements);
    for (const { file, svg } of charts) await writeFile(join(options.out, 'charts', file), svg);
    sections.push(section(run, scenario, servers, charts));
  }
  const text = [front(run), ...sections, faults(run), description(run)].filter((part) => part !== '');
  const path = join(options.out, 'report.md');
  await writeFile(path, `${text.join('\n\n')}\n`);
  const { command, repetitions, size } = options;
  await writeFile(
    join(options.out, 'report.json'),
    `${JSON.stringify({ command, repetitions, size, seconds: Math.round(seconds), machine, measurements }, null, 2)}\n`,
  );
  return path;
}

/** Fanfare's ratios to the reference, and whether each is what it should be. */
function front({ options, measurements }: Run): string {
  const ours = options.servers.filter(({ isFanfare }) => isFanfare);
  const asked = TARGETS.filter(({ point }) => measurements.some((one) => one.point === point));
  const hasBoth = ours.length > 0 && options.servers.some(({ name }) => name === REFERENCE);
  const heading = '# Fanfare beside others\n';
  if (!hasBoth || asked.length === 0) return heading.trim();
  const rows = asked.map((target) => {
    const wanted =
      target.atLeast === undefined
        ? `at most ${digits(target.atMost ?? NaN, 2)}`
        : `at least ${digits(target.atLeast, 2)}`;
    const cells = ours.map(({ name }) => {
      const ratio = ratioOf(target, name, measurements);
      return Number.isFinite(ratio)
        ? `${digits(ratio, 2)} ${isMet(target, ratio) ? 'pass' : '**fail**'}`
        : 'not measured';
    });
    return [target.what, wanted, ...cells];
  });
  return `${heading}
Fanfare's figure as a multiple of that of Socket.IO with its redis-adapter, which checks no token, validates nothing
and stores nothing. Medians of ${options.repetitions}.

${table(['', 'target', ...ours.map(({ title }) => title)], rows)}`;
}

function section(run: Run, scenario: Scenario, servers: readonly Server[], charts: readonly Chart[]): string {
  const { options, measurements } = run;
  const points = scenario.points(options.size);
  const parts = [`## ${scenario.name}: ${scenario.title}`];
  if (scenario.axis === undefined) parts.push(byFigure(run, scenario, points[0]?.name ?? '', servers));
  else
    for (const figure of scenario.figures) {
      const rows = servers.map(({ name, title }) => [
        title,
        ...points.map((point) => cell(point.name, name, figure, measurements)),
      ]);
      parts.push(
        `${FIGURES[figure].title}, by ${scenario.axis}:`,
        table(['', ...points.map(({ x }) => digits(x ?? NaN, 0))], rows),
      );
    }
  for (const { file, title } of charts) parts.push(`![${title}](charts/${file})`);
  return parts.join('\n\n');
}

/** A row for each server. The last column shows how far the repetitions of the first figure lie apart. */
function byFigure(
  { options, measurements }: Run,
  scenario: Scenario,
  point: string,
  servers: readonly Server[],
): string {
  const first = scenario.figures[0];
  const hasSpread = options.repetitions > 1 && first !== undefined;
  const rows = servers.map(({ name, title }) => {
    const cells = scenario.figures.map((figure) => cell(point, name, figure, measurements));
    if (!hasSpread) return [title, ...cells];
    const values = valuesOf(point, name, first, measurements);
    const places = FIGURES[first].digits;
    const spread = `${digits(Math.min(...values), places)} to ${digits(Math.max(...values), places)}`;
    return [title, ...cells, values.length === 0 ? '–' : spread];
  });
  const headings = scenario.figures.map((figure) => FIGURES[figure].title);
  return table(['', ...headings, ...(hasSpread ? [`${FIGURES[first].title}, least to most`] : [])], rows);
}

function cell(
  point: string,
  server: string,
  figure: FigureName,
  measurements: readonly Measurement[],
): string {
  const own = measurements.filter((one) => one.point === point && one.server === server);
  const value = medianOf(point, server, figure, own);
  if (!Number.isFinite(value)) return own.some((one) => one.faults.length > 0) ? 'failed' : '–';
  return `${digits(value, FIGURES[figure].digits)}${own.some((one) => one.faults.length > 0) ? ' *' : ''}`;
}

function faults({ measurements }: Run): string {
  const lines = measurements
    .filter((one) => one.faults.length > 0)
    .map((one) => `- ${one.point}, ${one.server}, repetition ${one.repetition}: ${one.faults.join('; ')}`);
  const text =
    lines.length === 0
      ? 'Nothing: no server refused, lost or doubled anything, or ended.'
      : `Figures with a * are of measurements in which something did.\n\n${lines.join('\n')}`;
  return `## What went wrong\n\n${text}`;
}

function description({ options, machine, seconds }: Run): string {
  const peers = Object.entries(machine.peers).map(([name, version]) => `${name} ${version}`);
  const { size, repetitions } = options;
  return `## Made by

\`${options.command}\`

${table(
  ['', ''],
  [
    ['commit', machine.commit],
    ['date', machine.date],
    ['took', `${minutes(seconds)} minutes`],
    ['repetitions', `${repetitions}, interleaved: each point on every server, then all of it again`],
    ['each', `${size.warmupSeconds} s of warm-up, then ${size.seconds} s`],
    ['CPU', `${machine.cpu}, ${machine.cores} cores`],
    ['memory', `${machine.memoryGiB} GiB`],
    ['kernel', machine.kernel],
    ['Node of the servers', machine.node],
    ['Redis', machine.redis],
    ['compiler of the load program', machine.compiler],
    ['peers', peers.join(', ')],
  ],
)}

The servers, Redis and the load program share the machine and speak over loopback. Differences below a tenth mean
nothing. \`bench/README.md\` says how each figure is made.`;
}
