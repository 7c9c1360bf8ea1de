import type { ChildProcess } from 'node:child_process';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

const running = new Set<ChildProcess>();

/** Ends what this worker started, and nothing else. */
function endAll(): void {
  for (const child of running) child.kill('SIGKILL');
}

// A worker that ends early, is told to end, or has lost its runner must not leave servers behind.
process.on('exit', endAll);
process.on('disconnect', endAll);
process.once('SIGTERM', () => {
  endAll();
  process.kill(process.pid, 'SIGTERM');
});

/** Remembers a child until it has exited, and tells when that is. */
export function tracked(child: ChildProcess): Promise<Exit> {
  running.add(child);
  return new Promise((resolve) => {
    child.once('close', (code, signal) => {
      running.delete(child);
      resolve({ code, signal });
    });
  });
}
