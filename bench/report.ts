import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { chartsOf, type Chart } from './charts.js';
import { FIGURES, type FigureName } from './figures.js';
import type { Machine } from './machine.js';
import type { Measurement } from './measurement.js';
import type { Options } from './options.js';
import { minutes } from './progress.js';
import type { Scenario } from './scenarios.js';
import type { Server } from './servers.js';
import { floorOf, isMet, medianOf, ratioOf, TARGETS, valuesOf } from './targets.js';
import { digits, table } from './text.js';

const FLOOR_NOTE = `The floor is the same multiple for a program in C that reads a message, sends it to each receiver and does nothing else:
by \`send()\`, or by io_uring where Fanfare writes with it. It is what the kernel alone takes. A target below it cannot be
met on this machine, in that way, by a server that sends each message as it comes.`;

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

/** What Fanfare wants to be, and whether it is. */
function front({ options, measurements }: Run): string {
  const title = (name: string): string =>
    options.servers.find((server) => server.name === name)?.title ?? name;
  const rows: string[][] = [];
  let hasFloor = false;
  for (const target of TARGETS) {
    const { what, variant, against, atLeast, atMost } = target;
    const ratio = ratioOf(target, measurements);
    if (!Number.isFinite(ratio)) continue;
    const floor = floorOf(target, measurements);
    hasFloor ||= Number.isFinite(floor);
    const bound = atLeast === undefined ? `at most ${String(atMost)}` : `at least ${String(atLeast)}`;
    const wanted = Number.isFinite(floor) ? `${bound}; the floor is ${digits(floor, 2)}` : bound;
    const rivals = against.length > 1 ? 'the best Node peer' : against.map(title).join();
    const verdict = isMet(target, ratio) ? 'met' : '**not met**';
    rows.push([what, title(variant), rivals === '' ? '–' : rivals, wanted, digits(ratio, 2), verdict]);
  }
  const heading = '# Fanfare beside others';
  if (rows.length === 0) return heading;
  const intro = `Fanfare's figure as a multiple of that of another server in the same run, or the figure itself. Medians of
${options.repetitions}. The others check no token (unless it says so), validate nothing and store nothing.`;
  const targets = table(['', 'Fanfare', 'against', 'wanted', 'measured', ''], rows);
  return [heading, intro, targets, ...(hasFloor ? [FLOOR_NOTE] : [])].join('\n\n');
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
  if (!Number.isFinite(value)) return hasFault(own) ? 'failed' : '–';
  return `${digits(value, FIGURES[figure].digits)}${hasFault(own) ? ' *' : ''}`;
}

function hasFault(measurements: readonly Measurement[]): boolean {
  return measurements.some((one) => one.faults.length > 0);
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
    ['C compiler', machine.compiler],
    ['peers', peers.join(', ')],
  ],
)}

The servers, Redis and the load program share the machine and speak over loopback. Differences below a tenth mean
nothing. \`bench/README.md\` says how each figure is made.`;
}
