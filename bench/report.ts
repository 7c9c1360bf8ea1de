import { mkdir, writeFile } from 'node:fs/promises';
import type { Machine } from './machine.js';
import type { Measurement } from './measurement.js';
import type { Options } from './options.js';
export interface Run {
  options: Options;
  machine: Machine;
  measurements: Measurement[];
  seconds: number;
}
export async function writeReport(run: Run): Promise<string> {
  await mkdir(run.options.out, { recursive: true });
  await writeFile(`${run.options.out}/report.json`, JSON.stringify(run, null, 1));
  return run.options.out;
}
