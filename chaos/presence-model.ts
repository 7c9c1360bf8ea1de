/** Where a user may be: the cluster, or a room. */
export type Scope = 'cluster' | `room:${string}`;

interface Stay {
  readonly fromMs: number;
  toMs: number;
  readonly tab: Tab;
}

interface Notice {
  readonly atMs: number;
  readonly isEnter: boolean;
}

export interface Tab {
  readonly user: string;
  readonly instance: string;
}

/** A leave that is told while a tab of the user was there for that long is false: no older one can be so late. */
const CERTAIN_MS = 2_000;

/** What clients did, by their own clock, and what an observer was told: are the two compatible? */
export class PresenceModel {
  #stays = new Map<string, Stay[]>();
  #notices = new Map<string, Notice[]>();

  /** A tab is in the scope for certain: it has the reply. */
  enter(scope: Scope, tab: Tab): void {
    listOf(this.#stays, keyOf(scope, tab.user)).push({ fromMs: performance.now(), toMs: Infinity, tab });
  }

  /** From now on it may be out. */
  leave(scope: Scope, tab: Tab): void {
    const stay = (this.#stays.get(keyOf(scope, tab.user)) ?? []).find(
      (candidate) => candidate.tab === tab && candidate.toMs === Infinity,
    );
    if (stay !== undefined) stay.toMs = performance.now();
  }

  /** The tab has gone, with all it was in. */
  end(tab: Tab): void {
    const nowMs = performance.now();
    for (const stays of this.#stays.values())
      for (const stay of stays) if (stay.tab === tab && stay.toMs === Infinity) stay.toMs = nowMs;
  }

  told(scope: Scope, user: string, isEnter: boolean): void {
    listOf(this.#notices, keyOf(scope, user)).push({ atMs: performance.now(), isEnter });
  }

  /** Users of a scope, with their open tabs. */
  present(scope: Scope): Map<string, number> {
    const present = new Map<string, number>();
    for (const [key, stays] of this.#stays) {
      const open = stays.filter(({ toMs }) => toMs === Infinity).length;
      if (open > 0 && key.startsWith(`${scope} `)) present.set(key.slice(scope.length + 1), open);
    }
    return present;
  }

  get notices(): number {
    return [...this.#notices.values()].reduce((sum, list) => sum + list.length, 0);
  }

  get absences(): number {
    return [...this.#stays.values()].reduce((sum, stays) => sum + absencesOf(stays).length, 0);
  }

  /** `boundMs`: a user who is away for longer has to be announced as gone within it. */
  faults(boundMs: number): string[] {
    const faults: string[] = [];
    for (const key of new Set([...this.#stays.keys(), ...this.#notices.keys()])) {
      const stays = this.#stays.get(key) ?? [];
      const notices = this.#notices.get(key) ?? [];
      faults.push(...orderFaults(key, notices), ...falseLeaves(key, stays, notices));
      faults.push(...untold(key, stays, notices, boundMs));
    }
    return faults;
  }
}

/** Each change once: comings and goings take turns, beginning with a coming. */
function orderFaults(key: string, notices: readonly Notice[]): string[] {
  return notices.flatMap(({ isEnter }, index) => {
    const expected = index % 2 === 0;
    return isEnter === expected
      ? []
      : [`${key}: notice ${index + 1} is ${isEnter ? 'a coming' : 'a going'} twice`];
  });
}

function falseLeaves(key: string, stays: readonly Stay[], notices: readonly Notice[]): string[] {
  return notices.flatMap(({ atMs, isEnter }) => {
    if (isEnter) return [];
    const witness = stays.find(({ fromMs, toMs }) => fromMs < atMs - CERTAIN_MS && toMs > atMs);
    return witness === undefined
      ? []
      : [`${key}: a going was told with a tab open for ${Math.round(atMs - witness.fromMs)} ms`];
  });
}

/** Absences that lasted and were not told, or comings that were not. */
function untold(key: string, stays: readonly Stay[], notices: readonly Notice[], boundMs: number): string[] {
  const faults: string[] = [];
  for (const { fromMs, toMs } of absencesOf(stays)) {
    if (toMs - fromMs < boundMs) continue;
    const goings = notices.filter(
      ({ atMs, isEnter }) => !isEnter && atMs >= fromMs && atMs <= fromMs + boundMs,
    ).length;
    if (goings !== 1)
      faults.push(`${key}: ${goings} goings told of an absence of ${Math.round(toMs - fromMs)} ms`);
  }
  const last = notices.at(-1);
  const isPresent = stays.some(({ toMs }) => toMs === Infinity);
  if ((last?.isEnter ?? false) !== isPresent)
    faults.push(`${key}: is ${isPresent ? 'there' : 'gone'}, and the last notice says otherwise`);
  return faults;
}

/** The times between and after stays in which no tab was there; the last one lasts until now. */
function absencesOf(stays: readonly Stay[]): { fromMs: number; toMs: number }[] {
  const absences: { fromMs: number; toMs: number }[] = [];
  let untilMs = -Infinity;
  for (const { fromMs, toMs } of [...stays].sort((a, b) => a.fromMs - b.fromMs)) {
    if (untilMs !== -Infinity && fromMs > untilMs) absences.push({ fromMs: untilMs, toMs: fromMs });
    untilMs = Math.max(untilMs, toMs);
  }
  if (Number.isFinite(untilMs)) absences.push({ fromMs: untilMs, toMs: performance.now() });
  return absences;
}

function keyOf(scope: Scope, user: string): string {
  return `${scope} ${user}`;
}

function listOf<T>(lists: Map<string, T[]>, key: string): T[] {
  let list = lists.get(key);
  if (list === undefined) lists.set(key, (list = []));
  return list;
}
