import { spawn, type ChildProcess } from 'node:child_process';
import { tracked } from '../test/support/child.js';
import { pathOf } from './c-program.js';

/** What lies between two readings: seconds of wall clock and of CPU. */
export interface Span {
  readonly seconds: number;
  readonly sent: number;
  readonly delivered: number;
  readonly serverCpuSeconds: number;
  readonly redisCpuSeconds: number;
  readonly loadCpuSeconds: number;
}

/** What the load program prints. */
export interface Outcome {
  readonly connecting: Span;
  readonly measured?: Span;
  readonly missing?: number;
  readonly resumed?: number;
  readonly unrecovered?: number;
  readonly rssBeforeBytes: number;
  readonly rssAfterBytes: number;
  readonly latency: { readonly samples: number; readonly p50Us: number; readonly p99Us: number };
  readonly connected: number;
  readonly refused: number;
  readonly closed: number;
  readonly errors: number;
  readonly stalls: number;
  readonly otherFrames: number;
  readonly latestUs: number;
  readonly why: string;
}

export type LoadOptions = Readonly<Record<string, string | number>>;

/** Runs it to its end. `beforeStorm` is called when it waits to be let go, which only `--mode resume` does. */
export async function runLoad(
  options: LoadOptions,
  limitMs: number,
  beforeStorm: () => Promise<void> = async () => undefined,
): Promise<Outcome> {
  const argv = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const child = spawn(pathOf('load'), argv, { stdio: ['pipe', 'pipe', 'pipe'] });
  const output = collect(child, beforeStorm);
  const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
  const { code, signal } = await tracked(child);
  clearTimeout(timer);
  if (signal === 'SIGKILL') throw new Error(`the load program was not done within ${limitMs / 1000} s`);
  if (code !== 0) throw new Error(`the load program ended with ${code ?? signal}: ${output.stderr}`);
  return JSON.parse(output.stdout) as Outcome;
}

function collect(child: ChildProcess, beforeStorm: () => Promise<void>): { stdout: string; stderr: string } {
  const output = { stdout: '', stderr: '' };
  child.stdout?.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()));
  child.stderr?.on('data', (chunk: Buffer) => {
    output.stderr += chunk.toString();
    if (chunk.toString() !== 'ready\n') return;
    beforeStorm().then(
      () => child.stdin?.write('go\n'),
      (error: unknown) => {
        output.stderr += String(error);
        child.stdin?.end();
      },
    );
  });
  return output;
}
