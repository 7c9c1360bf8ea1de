import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { tracked } from '../test/support/child.js';

const program = fileURLToPath(new URL('./crowd-process.ts', import.meta.url));
const loader = new URL('../scripts/typescript.mjs', import.meta.url).href;

export interface Opening {
  readonly url: string;
  readonly headers?: Record<string, string>;
  /** Sent with the upgrade accepted, before anything is read. */
  readonly says?: readonly string[];
  /** The connection is open once a frame that contains this has come. */
  readonly until: string;
}

export interface Closing {
  readonly index: number;
  /** 1006 where the stream ended without a close frame. */
  readonly code: number;
  /** On the clock of {@link monotonicMs}, when the close frame was read. */
  readonly atMs: number;
  readonly wallMs: number;
}

export type Order =
  | { readonly kind: 'open'; readonly openings: readonly Opening[] }
  | { readonly kind: 'closings'; readonly indices: readonly number[]; readonly timeoutMs: number }
  | { readonly kind: 'cut'; readonly indices: readonly number[] };

export type Report =
  | { readonly kind: 'opened'; readonly first: number; readonly failures: readonly string[] }
  | { readonly kind: 'closings'; readonly closings: readonly Closing[] }
  | { readonly kind: 'done' };

/** The clock that all processes of a machine share. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/**
 * Thousands of connections in a process of their own, over plain sockets: what they cost is not on the clock of the
 * row, and what the row does is not on theirs.
 */
export class Crowd {
  #orders = 0;
  #waiting = new Map<number, (report: Report) => void>();
  readonly #ended: Promise<unknown>;

  private constructor(private readonly child: ChildProcess) {
    this.#ended = tracked(child);
    child.on('message', ({ number, report }: { number: number; report: Report }) => {
      this.#waiting.get(number)?.(report);
      this.#waiting.delete(number);
    });
  }

  static start(): Crowd {
    return new Crowd(fork(program, { execArgv: ['--import', loader], stdio: 'inherit' }));
  }

  /** Opens all of them; their indices, once every one is open. */
  async open(openings: readonly Opening[]): Promise<number[]> {
    const report = await this.#carryOut({ kind: 'open', openings });
    if (report.kind !== 'opened') throw new Error(report.kind);
    const { first, failures } = report;
    if (failures.length > 0) throw new Error(`${failures.length} did not open: ${failures[0]}`);
    return openings.map((_opening, at) => first + at);
  }

  /** Those of `indices` that have been closed, at the latest after `timeoutMs`; sooner when it is all of them. */
  async closings(indices: readonly number[], timeoutMs = 0): Promise<readonly Closing[]> {
    const report = await this.#carryOut({ kind: 'closings', indices, timeoutMs });
    if (report.kind !== 'closings') throw new Error(report.kind);
    return report.closings;
  }

  /** Ends them without a close frame. */
  async cut(indices: readonly number[]): Promise<void> {
    await this.#carryOut({ kind: 'cut', indices });
  }

  async dispose(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#ended;
  }

  #carryOut(order: Order): Promise<Report> {
    const number = (this.#orders += 1);
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, resolve);
      this.child.send({ number, order }, (error) => {
        if (error !== null) reject(error);
      });
      void this.#ended.then(() => reject(new Error('the process of the crowd has ended')));
    });
  }
}
