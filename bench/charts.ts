import { barChart, lineChart } from './chart.js';
import { FIGURES, type FigureName } from './figures.js';
import type { Measurement } from './measurement.js';
import type { Scenario, Size } from './scenarios.js';
import type { Server } from './servers.js';
import { medianOf } from './targets.js';

export interface Chart {
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

/** The charts of a scenario: bars, or lines where it has an axis. */
export function chartsOf(
  scenario: Scenario,
  size: Size,
  servers: readonly Server[],
  measurements: readonly Measurement[],
): Chart[] {
  return scenario.charts.map((figure) => {
    const { title: unit, digits, better } = FIGURES[figure];
    const title = `${scenario.name}: ${scenario.title}`;
    const text = `${unit}, ${better} is better`;
    const svg =
      scenario.axis === undefined
        ? barChart(title, text, digits, bars(scenario, size, figure, servers, measurements))
        : lineChart(title, text, digits, scenario.axis, lines(scenario, size, figure, servers, measurements));
    return { file: `${scenario.name}-${figure}.svg`, title: `${title}: ${text}`, svg };
  });
}

function bars(
  scenario: Scenario,
  size: Size,
  figure: FigureName,
  servers: readonly Server[],
  measurements: readonly Measurement[],
) {
  const point = scenario.points(size)[0]?.name ?? '';
  return servers.map(({ name, title, isFanfare }) => ({
    label: title,
    isOurs: isFanfare,
    value: medianOf(point, name, figure, measurements),
    note: 'failed',
  }));
}

function lines(
  scenario: Scenario,
  size: Size,
  figure: FigureName,
  servers: readonly Server[],
  measurements: readonly Measurement[],
) {
  return servers.map(({ name, title, isFanfare }) => ({
    label: title,
    isOurs: isFanfare,
    points: scenario
      .points(size)
      .map((point) => ({ x: point.x ?? 0, y: medianOf(point.name, name, figure, measurements) }))
      .filter(({ y }) => Number.isFinite(y)),
  }));
}
