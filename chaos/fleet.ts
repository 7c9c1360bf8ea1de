import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { eventually } from '../test/support/eventually.js';
import { GatewayProcess } from '../test/support/gateway-process.js';
import { metric, status } from '../test/support/http.js';
import { RedisServer } from '../test/support/redis-server.js';
import { ResumingClient, Tally, type Venue } from './client.js';
import { Ledger, type Attempt } from './ledger.js';
import type { Context, Result, Size } from './row.js';

const SETTLE_MS = 20_000;
const CONNECT_AT_A_TIME = 25;
/** Of what is published, the parts that go to everybody and to one user; the rest goes to rooms. */
const BROADCAST_SHARE = 0.02;
const DIRECT_SHARE = 0.08;
const MB = 1024 * 1024;

export interface FleetOptions {
  /** The settings that lead to Redis; a server of its own without. */
  readonly redis?: RedisServer;
  readonly settings?: Record<string, string>;
  readonly gateways?: number;
  readonly size?: Partial<Size>;
  /** What clients connect to in place of the instances, and the ports that these take, one after the other. */
  readonly front?: { readonly address: string; readonly ports: readonly number[] };
}

/** Gateways, clients and load of one row. */
export class Fleet implements Venue {
  readonly ledger = new Ledger();
  readonly tally = new Tally();
  readonly gateways: GatewayProcess[] = [];
  readonly clients: ResumingClient[] = [];
  readonly size: Size;
  /** The room or user that each publish goes to, in place of the mix. */
  target: (() => string) | null = null;
  publishers: ResumingClient[] | null = null;
  #rssBefore = new Map<number, number>();
  #rssPeak = new Map<number, number>();
  #load: Promise<void> | null = null;
  #isLoading = false;
  #started = 0;
  #sampler: NodeJS.Timeout | null = null;
  #began = performance.now();
  #settings: Record<string, string>;

  private constructor(
    private readonly context: Context,
    private readonly options: FleetOptions,
  ) {
    this.size = { ...context.size, ...options.size };
    this.#settings = {
      ...(options.redis === undefined ? {} : { REDIS_URL: options.redis.url }),
      RATE_LIMIT_PER_SECOND: '0',
      HISTORY_SIZE: '50000',
      ANNOUNCE_USERS: 'false',
      LOG_LEVEL: 'info',
      ...options.settings,
    };
  }

  /** Gateways that are ready, and every client in its room. */
  static async start(context: Context, options: FleetOptions): Promise<Fleet> {
    const fleet = new Fleet(context, options);
    context.own(fleet);
    await Promise.all(Array.from({ length: options.gateways ?? 3 }, () => fleet.addGateway()));
    context.status = () => fleet.status();
    const { clients, rooms } = fleet.size;
    for (let index = 0; index < clients; index += 1)
      fleet.clients.push(new ResumingClient(`u${index}`, `r${index % rooms}`, fleet));
    await fleet.connectAll(fleet.clients);
    for (const { pid } of fleet.gateways) fleet.#rssBefore.set(pid, rssOf(pid));
    fleet.#sampler = setInterval(() => fleet.#sampleRss(), 500);
    return fleet;
  }

  async connectAll(clients: readonly ResumingClient[]): Promise<void> {
    for (let start = 0; start < clients.length; start += CONNECT_AT_A_TIME)
      await Promise.all(clients.slice(start, start + CONNECT_AT_A_TIME).map((client) => client.start()));
  }

  async addGateway(): Promise<GatewayProcess> {
    const port = this.options.front?.ports[(this.#started += 1) - 1];
    const gateway = await GatewayProcess.start({
      ...this.#settings,
      ...(port === undefined ? {} : { PORT: String(port) }),
    });
    this.gateways.push(gateway);
    await isReady(gateway);
    return gateway;
  }

  /** Those a balancer would know; all where none runs. */
  addresses(): readonly string[] {
    if (this.options.front !== undefined) return [this.options.front.address];
    const running = this.gateways.filter((gateway) => gateway.isRunning);
    return (running.length > 0 ? running : this.gateways).map((gateway) => gateway.ws(''));
  }

  get joined(): number {
    return this.clients.filter((client) => client.isJoined).length;
  }

  /** Publishes at the rate from random clients until {@link stopLoad}. */
  startLoad(rate = this.size.rate): void {
    this.#isLoading = true;
    this.#load = this.#publish(rate);
  }

  /** Ends the load; then everybody comes back, repeats what was not acknowledged, and reads to the end. */
  async stopLoad(settleMs = SETTLE_MS): Promise<void> {
    this.#isLoading = false;
    await this.#load;
    const active = this.clients.filter((client) => !client.isStopped);
    try {
      await eventually(
        () => {
          const away = active.filter((client) => !client.isJoined).length;
          const unanswered = active.reduce((sum, client) => sum + client.unanswered, 0);
          const behind = this.ledger.behind();
          if (away + unanswered + behind > 0)
            throw new Error(
              `${away} clients away, ${unanswered} publishes without ack, ${behind} readers behind`,
            );
        },
        { timeoutMs: settleMs, everyMs: 250 },
      );
    } catch (error) {
      // The verdict shows what is missing; this only says what it waited for.
      this.context.say(
        `not settled after ${settleMs} ms: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
    await pause(500);
  }

  /** Load for the whole time, the fault after a third of it. */
  async through(fault: () => Promise<void>, settleMs = SETTLE_MS): Promise<void> {
    const totalMs = this.size.seconds * 1000;
    const began = performance.now();
    this.startLoad();
    await pause(totalMs / 3);
    await fault();
    await pause(Math.max(totalMs / 3, totalMs - (performance.now() - began)));
    await this.stopLoad(settleMs);
  }

  /** Resolves with the ms until what is published from now on is read on every running gateway. */
  deliveredEverywhere(timeoutMs = 30_000): Promise<number> {
    const from = performance.now();
    const missing = new Set(this.addresses());
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.tally.onRead = null;
        resolve(Infinity);
      }, timeoutMs);
      this.tally.onRead = (attempt: Attempt, address: string) => {
        if (attempt.startedMs < from) return;
        missing.delete(address);
        if (missing.size > 0) return;
        clearTimeout(timer);
        this.tally.onRead = null;
        resolve(performance.now() - from);
      };
    });
  }

  /** The sum of a metric over all running gateways. */
  async metric(name: string, labels: Record<string, string> = {}): Promise<number> {
    const texts = await Promise.all(
      this.gateways
        .filter((gateway) => gateway.isRunning)
        .map(async (gateway) =>
          (await fetch(`${gateway.url}/metrics`, { signal: AbortSignal.timeout(3_000) })).text(),
        ),
    );
    return texts.reduce((sum, text) => sum + metric(text, name, labels), 0);
  }

  /** The figures, with what every row asks: nothing lost, doubled, out of order or made up. */
  result(failures: string[] = [], notes: string[] = []): Result {
    const judgement = this.ledger.judge();
    for (const name of ['lost', 'doubled', 'misordered', 'ghosts'] as const) {
      if (judgement[name].length === 0) continue;
      failures.push(`${judgement[name].length} ${name}`);
      for (const example of judgement[name].slice(0, 3)) this.context.say(`${name}: ${example}`);
    }
    if (judgement.deliveries === 0) failures.push('nothing was delivered');
    const errors = [...this.ledger.errors].map(([code, count]) => `${count} ${code}`).join(', ');
    if (errors !== '') notes.push(errors);
    for (const [status, count] of this.tally.refusals) notes.push(`${count} upgrades refused with ${status}`);
    if (failures.length > 0 || this.tally.closes.size > 0) this.#sayWarnings();
    return { ...judgement, closes: this.tally.closes, rssGrowthMb: this.rssGrowthMb, failures, notes };
  }

  get rssGrowthMb(): number {
    this.#sampleRss();
    let growth = 0;
    for (const [pid, peak] of this.#rssPeak)
      growth = Math.max(growth, peak - (this.#rssBefore.get(pid) ?? peak));
    return growth / MB;
  }

  async dispose(): Promise<void> {
    this.#isLoading = false;
    if (this.#sampler !== null) clearInterval(this.#sampler);
    for (const client of this.clients) client.stop();
    await this.#load;
    await Promise.all(this.gateways.map((gateway) => gateway.dispose()));
  }

  status(): string {
    const { ledger, tally } = this;
    return [
      `${Math.round((performance.now() - this.#began) / 1000)} s`,
      `${this.joined}/${this.clients.length} joined`,
      `${ledger.attempts.length} published`,
      `${ledger.acknowledged} acknowledged`,
      `${ledger.deliveries} deliveries`,
      `${tally.resumes} resumes`,
      `${ledger.gaps} gaps`,
    ].join(', ');
  }

  async #publish(rate: number): Promise<void> {
    const began = performance.now();
    let sent = 0;
    while (this.#isLoading) {
      const due = ((performance.now() - began) / 1000) * rate;
      while (sent < due) {
        sent += 1;
        this.#publishOne();
      }
      await pause(Math.min(20, 1000 / rate));
    }
  }

  #publishOne(): void {
    const publishers = this.publishers ?? this.clients;
    for (let tries = 0; tries < 10; tries += 1) {
      const client = publishers[Math.floor(Math.random() * publishers.length)];
      if (client === undefined || !client.isJoined) continue;
      const channel = this.target?.() ?? this.#mix(client);
      const { attempt, content } = this.ledger.attempt(client.name, channel, this.size.bytes);
      client.publish(channel, attempt, content);
      return;
    }
  }

  #mix(client: ResumingClient): string {
    const dice = Math.random();
    if (dice < BROADCAST_SHARE) return 'broadcast';
    if (dice > BROADCAST_SHARE + DIRECT_SHARE) return `room:${client.room}`;
    return `user:u${Math.floor(Math.random() * this.size.clients)}`;
  }

  /** What the gateways warned of, each once, with how often. */
  #sayWarnings(): void {
    const warnings = new Map<string, number>();
    for (const { output } of this.gateways) {
      for (const [, text = ''] of output.matchAll(/(?:WARN|ERROR|FATAL): (.*)/g))
        warnings.set(text, (warnings.get(text) ?? 0) + 1);
    }
    for (const [text, count] of [...warnings].slice(0, 20)) this.context.say(`${count} x ${text}`);
  }

  #sampleRss(): void {
    for (const gateway of this.gateways) {
      if (!gateway.isRunning) continue;
      this.#rssPeak.set(gateway.pid, Math.max(this.#rssPeak.get(gateway.pid) ?? 0, rssOf(gateway.pid)));
    }
  }
}

export async function isReady(gateway: GatewayProcess, timeoutMs = 20_000): Promise<void> {
  await eventually(
    async () => {
      const answer = await status(`${gateway.url}/health/ready`);
      if (answer !== 200) throw new Error(`/health/ready answers ${answer}: ${gateway.output.slice(-2000)}`);
    },
    { timeoutMs, everyMs: 50 },
  );
}

/** Of Linux only; 0 elsewhere, and for a process that is gone. */
export function rssOf(pid: number): number {
  try {
    return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

export function closesBesides(fleet: Fleet, ...allowed: number[]): number {
  let count = 0;
  for (const [code, times] of fleet.tally.closes) if (!allowed.includes(code)) count += times;
  return count;
}
