import { FULL, QUICK, Context, type Result, type Row, type Size } from './row.js';
import { rows } from './rows/index.js';

const HEADINGS = [
  'row',
  'fault',
  'published',
  'acknowledged',
  'deliveries',
  'lost',
  'doubled',
  'misordered',
  'ghosts',
  'gaps told',
  'closes',
  'recovery',
  'RSS growth',
  'verdict',
];
const START_AND_SETTLE_SECONDS = 90;

/** The row under way, to be ended by a signal too. */
let running: Context | null = null;

interface Options {
  readonly rows: readonly Row[];
  readonly size: Size;
}

function readOptions(args: readonly string[]): Options {
  const names: string[] = [];
  let size = args.includes('--quick') ? QUICK : FULL;
  for (let index = 0; index < args.length; index += 1) {
    const arg = args[index] ?? '';
    if (arg === '--quick') continue;
    const figure = /^--(seconds|clients|rate|rooms)$/.exec(arg)?.[1];
    if (figure === undefined) {
      names.push(arg);
      continue;
    }
    const value = Number(args[(index += 1)]);
    if (!(value > 0)) throw new Error(`${arg} needs a number`);
    size = { ...size, [figure]: value };
  }
  const chosen = names.includes('all')
    ? rows
    : rows.filter(({ name }) => names.some((wanted) => name === wanted || name.startsWith(`${wanted}-`)));
  if (chosen.length === 0) {
    const known = rows.map(({ name, fault }) => `  ${name.padEnd(16)} ${fault}`).join('\n');
    throw new Error(
      `usage: npm run chaos -- <row...|all> [--quick] [--seconds N] [--clients N] [--rate N] [--rooms N]\n${known}`,
    );
  }
  return { rows: chosen, size };
}

async function runRow(row: Row, size: Size): Promise<Result> {
  const context = new Context(size);
  running = context;
  const limitMs = (size.seconds * 2 + (row.extraSeconds ?? 0) + START_AND_SETTLE_SECONDS) * 1000;
  const progress = setInterval(() => process.stderr.write(`  ${row.name}: ${context.status()}\n`), 1_000);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Result>((resolve) => {
    timer = setTimeout(
      () => resolve({ failures: [`not done within ${limitMs / 1000} s: ${context.status()}`] }),
      limitMs,
    );
  });
  // A fault of the runner itself fails the row, and the next one still runs.
  let onFault: (error: unknown) => void = () => undefined;
  const fault = new Promise<never>((_resolve, reject) => (onFault = reject));
  for (const event of ['uncaughtException', 'unhandledRejection']) process.on(event, onFault);
  try {
    return await Promise.race([row.run(context), late, fault]);
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    context.say(text);
    return { failures: [(text.split('\n')[0] ?? '').slice(0, 300)] };
  } finally {
    for (const event of ['uncaughtException', 'unhandledRejection']) process.off(event, onFault);
    clearTimeout(timer);
    clearInterval(progress);
    await context.end();
  }
}

function line(row: Row, result: Result): string {
  const closes = [...(result.closes ?? [])].map(([code, count]) => `${count}x${code}`).join(' ');
  const verdict = result.failures.length === 0 ? 'pass' : `FAIL: ${result.failures.join('; ')}`;
  const count = (list: readonly unknown[] | undefined): string =>
    list === undefined ? '-' : String(list.length);
  const notes =
    result.notes === undefined || result.notes.length === 0 ? '' : ` [${result.notes.join(', ')}]`;
  return cells([
    row.name,
    row.fault,
    String(result.published ?? '-'),
    String(result.acknowledged ?? '-'),
    String(result.deliveries ?? '-'),
    count(result.lost),
    count(result.doubled),
    count(result.misordered),
    count(result.ghosts),
    String(result.gaps ?? '-'),
    closes === '' ? '-' : closes,
    result.recoveryMs === undefined ? '-' : `${Math.round(result.recoveryMs)} ms`,
    result.rssGrowthMb === undefined ? '-' : `${result.rssGrowthMb.toFixed(1)} MB`,
    `${verdict} (${row.criterion})${notes}`,
  ]);
}

function cells(values: readonly string[]): string {
  return `| ${values.map((value) => value.replaceAll('|', '/').replaceAll('\n', ' ')).join(' | ')} |\n`;
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  const lines: string[] = [];
  for (const row of options.rows) {
    process.stderr.write(`${row.name}: ${row.fault}\n`);
    const result = await runRow(row, options.size);
    if (result.failures.length > 0) process.exitCode = 1;
    if (lines.length === 0) process.stdout.write(cells(HEADINGS) + cells(HEADINGS.map(() => '---')));
    lines.push(line(row, result));
    process.stdout.write(lines.at(-1) ?? '');
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    const leave = (): never => process.exit(130);
    (running?.end() ?? Promise.resolve()).then(leave, leave);
  });
}
try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
// Clients that were given up may still hold timers.
process.exit();
