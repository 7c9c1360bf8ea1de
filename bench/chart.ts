import { digits } from './text.js';

/** A named line or bar; `isOurs` makes it stand out. */
export interface Bar {
  readonly label: string;
  readonly value: number;
  readonly isOurs: boolean;
  /** In place of the value, where there is none. */
  readonly note?: string;
}

export interface Series {
  readonly label: string;
  readonly isOurs: boolean;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

const WIDTH = 760;
const LINE_HUES = ['s0', 's1', 's2', 's3', 's4', 's5', 's6', 's7'];
/** Colours that can be told apart on white and on black. */
const STYLE = `
  .back { fill: #ffffff } text { fill: #1f2328; font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif }
  .title { font-size: 15px; font-weight: 600 } .soft { fill: #59636e } .axis { stroke: #818b98 } .grid { stroke: #d1d9e0 }
  .ours { fill: #0969da } .theirs { fill: #9aa4b0 } .strong { font-weight: 600 }
  polyline { fill: none; stroke-width: 2; stroke-linejoin: round } .wide { stroke-width: 3 }
  .s0 { stroke: #0969da } .s1 { stroke: #54aeff } .s2 { stroke: #cf222e } .s3 { stroke: #bf8700 }
  .s4 { stroke: #8250df } .s5 { stroke: #1a7f37 } .s6 { stroke: #bc4c00 } .s7 { stroke: #6e7781 }
  circle { fill: #ffffff; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    .back { fill: #0d1117 } text { fill: #e6edf3 } .soft { fill: #9198a1 } .axis { stroke: #656c76 } .grid { stroke: #2a313c }
    .ours { fill: #4493f8 } .theirs { fill: #656c76 } circle { fill: #0d1117 }
    .s0 { stroke: #4493f8 } .s1 { stroke: #a5d6ff } .s2 { stroke: #ff7b72 } .s3 { stroke: #e3b341 }
    .s4 { stroke: #bc8cff } .s5 { stroke: #3fb950 } .s6 { stroke: #f0883e } .s7 { stroke: #8d96a0 }
  }`;

/** Bars from left to right, one below the other, from 0, with their values. */
export function barChart(title: string, unit: string, places: number, bars: readonly Bar[]): string {
  const left = 240;
  const right = WIDTH - 90;
  const top = 66;
  const step = 32;
  const height = top + bars.length * step + 44;
  const bottom = top + bars.length * step;
  const ticks = roundSteps(Math.max(...bars.map(({ value }) => (Number.isFinite(value) ? value : 0)), 0));
  const most = ticks.at(-1) ?? 1;
  const across = (value: number): number => left + ((right - left) * value) / most;
  const grid = ticks.map(
    (tick) =>
      line(across(tick), top - 4, across(tick), bottom, tick === 0 ? 'axis' : 'grid') +
      text(across(tick), bottom + 18, short(tick), 'soft', 'middle'),
  );
  const rows = bars.map(({ label, value, isOurs, note }, index) => {
    const y = top + index * step;
    const has = Number.isFinite(value);
    const name = text(left - 12, y + 17, label, isOurs ? 'strong' : '', 'end');
    const bar = has
      ? `<rect x="${left}" y="${y + 3}" width="${round(Math.max(1, across(value) - left))}" height="20" rx="3" class="${isOurs ? 'ours' : 'theirs'}"/>`
      : '';
    const figure = has ? digits(value, places) : (note ?? 'none');
    return (
      name +
      bar +
      text((has ? across(value) : left) + 8, y + 17, figure, isOurs ? 'strong' : has ? '' : 'soft')
    );
  });
  return picture(title, unit, height, [...grid, ...rows].join('\n'));
}

/** Lines over an axis of powers of ten, or of whole numbers where all x are below ten; y from 0. */
export function lineChart(
  title: string,
  unit: string,
  places: number,
  axis: string,
  series: readonly Series[],
): string {
  const left = 70;
  const right = WIDTH - 30;
  const top = 66;
  const bottom = 356;
  const perRow = 3;
  const legendRows = Math.ceil(series.length / perRow);
  const height = bottom + 62 + legendRows * 22;
  const all = series.flatMap(({ points }) => points);
  const xs = [...new Set(all.map(({ x }) => x))].sort((a, b) => a - b);
  const scale = Math.max(...xs) < 10 ? (x: number): number => x : Math.log10;
  const [first, last] = [scale(xs[0] ?? 1), scale(xs.at(-1) ?? 1)];
  const across = (x: number): number =>
    last === first ? (left + right) / 2 : left + ((right - left) * (scale(x) - first)) / (last - first);
  const ticks = roundSteps(Math.max(...all.map(({ y }) => y), 0));
  const most = ticks.at(-1) ?? 1;
  const up = (y: number): number => bottom - ((bottom - top) * y) / most;
  const grid = [
    ...ticks.map(
      (tick) =>
        line(left, up(tick), right, up(tick), tick === 0 ? 'axis' : 'grid') +
        text(left - 8, up(tick) + 4, short(tick), 'soft', 'end'),
    ),
    ...xs.map((x) => text(across(x), bottom + 20, digits(x, 0), 'soft', 'middle')),
    text((left + right) / 2, bottom + 42, axis, 'soft', 'middle'),
  ];
  const lines = series.map(({ points, isOurs }, index) => {
    const hue = LINE_HUES[index % LINE_HUES.length] ?? 's0';
    const path = points.map(({ x, y }) => `${round(across(x))},${round(up(y))}`).join(' ');
    const dots = points.map(
      ({ x, y }) =>
        `<circle cx="${round(across(x))}" cy="${round(up(y))}" r="3.5" class="${hue}"><title>${digits(x, 0)}: ${digits(y, places)}</title></circle>`,
    );
    return `<polyline points="${path}" class="${hue}${isOurs ? ' wide' : ''}"/>${dots.join('')}`;
  });
  const legend = series.map(({ label, isOurs }, index) => {
    const x = left + (index % perRow) * 232;
    const y = bottom + 66 + Math.floor(index / perRow) * 22;
    const hue = LINE_HUES[index % LINE_HUES.length] ?? 's0';
    return (
      `<polyline points="${x},${y - 4} ${x + 22},${y - 4}" class="${hue}${isOurs ? ' wide' : ''}"/>` +
      text(x + 30, y, label, isOurs ? 'strong' : '')
    );
  });
  return picture(title, unit, height, [...grid, ...lines, ...legend].join('\n'));
}

function picture(title: string, unit: string, height: number, content: string): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">
<style>${STYLE}
</style>
<rect class="back" width="${WIDTH}" height="${height}" rx="6"/>
${text(20, 28, title, 'title')}
${text(20, 48, unit, 'soft')}
${content}
</svg>
`;
}

/** 0 and up to five more, at 1, 2, 2.5 or 5 times a power of ten; the last one is not below `most`. */
function roundSteps(most: number): number[] {
  if (!(most > 0)) return [0, 1];
  const rough = most / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= rough) ?? 10 * power;
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, index) => index * step);
}

function short(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toFixed(2))} M`;
  if (value >= 1e4) return `${Number((value / 1e3).toFixed(1))} k`;
  return String(Number(value.toPrecision(4)));
}

function text(x: number, y: number, content: string, kind: string, anchor = 'start'): string {
  return `<text x="${round(x)}" y="${round(y)}" class="${kind}" text-anchor="${anchor}">${escaped(content)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, kind: string): string {
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" class="${kind}"/>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escaped(content: string): string {
  return content
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
