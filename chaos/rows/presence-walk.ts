import { setTimeout as pause } from 'node:timers/promises';
import { Api, list } from '../../test/support/api.js';
import type { Client, Message } from '../../test/support/client.js';
import type { GatewayProcess } from '../../test/support/gateway-process.js';
import { stats } from '../../test/support/http.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { Fleet } from '../fleet.js';
import { PresenceModel, type Scope, type Tab } from '../presence-model.js';
import type { Row } from '../row.js';

const GRACE_MS = 1_000;
/** The lease, the pause between two looks at the leases, the grace, and 2 s. */
const BOUND_MS = 10_000 + 3_000 + GRACE_MS + 2_000;
const AWAY_MS = BOUND_MS + 2_000;
const ROOMS = 6;
const MAX_TABS = 3;
const KEY = 'all-key';

interface OpenTab extends Tab {
  readonly client: Client;
  readonly rooms: Set<string>;
  isGone: boolean;
}

/** Users who come and go at random, and instances that die: what is done is in the model before it can be seen. */
class Walk {
  readonly model = new PresenceModel();
  readonly closes = new Map<number, number>();
  steps = 0;
  kills = 0;
  readonly #tabs = new Set<OpenTab>();

  constructor(private readonly fleet: Fleet) {}

  async user(name: string, count: number, pauseMs: number): Promise<void> {
    for (let step = 0; step < count; step += 1) {
      await pause(Math.random() * pauseMs * 2);
      const tabs = [...this.#tabs].filter(({ user }) => user === name);
      this.steps += 1;
      try {
        await this.#step(name, tabs);
      } catch (error) {
        // An instance that died under a step has taken the tab with it.
        if (!/closed with|refused|ECONN|socket hang up/.test(String(error))) throw error;
      }
    }
  }

  /** kill -9; another one takes its place. */
  async kill(victim: GatewayProcess): Promise<void> {
    this.kills += 1;
    for (const tab of this.#tabs) if (tab.instance === victim.url) this.#end(tab);
    await victim.stop('SIGKILL');
    await this.fleet.addGateway();
  }

  async #step(name: string, tabs: readonly OpenTab[]): Promise<void> {
    const tab = tabs[Math.floor(Math.random() * tabs.length)];
    const dice = Math.random();
    if (tab === undefined || (dice < 0.2 && tabs.length < MAX_TABS)) return this.#open(name);
    tab.client.forget();
    if (dice < 0.35) {
      this.#end(tab);
      await (dice < 0.28 ? tab.client.close() : tab.client.cut());
    } else if (dice < 0.37) {
      for (const other of tabs) this.#end(other);
      await Promise.all(tabs.map((other) => other.client.cut()));
      await pause(AWAY_MS);
    } else {
      const room = `room-${Math.floor(Math.random() * ROOMS)}`;
      await (tab.rooms.has(room) ? this.#leave(tab, room) : this.#join(tab, room));
    }
  }

  async #open(name: string): Promise<void> {
    const running = this.fleet.gateways.filter((gateway) => gateway.isRunning);
    const gateway = running[Math.floor(Math.random() * running.length)];
    if (gateway === undefined) return;
    const client = await gateway.as(name);
    const tab: OpenTab = { user: name, instance: gateway.url, client, rooms: new Set(), isGone: false };
    // It may have died while the reply was on its way.
    if (client.closedWith !== undefined || !gateway.isRunning) return;
    this.#tabs.add(tab);
    this.model.enter('cluster', tab);
    void client.closed.then(({ code }) => {
      if (tab.isGone) return;
      this.#end(tab);
      this.closes.set(code, (this.closes.get(code) ?? 0) + 1);
    });
  }

  async #join(tab: OpenTab, room: string): Promise<void> {
    const { event } = await tab.client.request({ type: 'join_room', room });
    if (event !== 'joined_room') throw new Error(`join_room was answered by ${String(event)}`);
    tab.rooms.add(room);
    if (!tab.isGone) this.model.enter(`room:${room}`, tab);
  }

  async #leave(tab: OpenTab, room: string): Promise<void> {
    tab.rooms.delete(room);
    this.model.leave(`room:${room}`, tab);
    await tab.client.request({ type: 'leave_room', room });
  }

  #end(tab: OpenTab): void {
    tab.isGone = true;
    this.#tabs.delete(tab);
    this.model.end(tab);
  }
}

export const presenceWalk: Row = {
  name: '38',
  fault: '10,000 random steps of users and their tabs, instances killed by kill -9 among them (quick: 1,500)',
  criterion:
    'after the lease presence is that of the model; nothing negative; no false going, each real one once',
  extraSeconds: 200,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, {
      redis,
      size: { clients: 0 },
      settings: { ANNOUNCE_USERS: 'true', PRESENCE_GRACE_MS: String(GRACE_MS), API_KEYS: KEY },
    });
    const [first] = fleet.gateways;
    if (first === undefined) throw new Error('no gateway');
    const walk = new Walk(fleet);
    const { model } = walk;
    // On the instance that is never killed, and so never misses a notice.
    const observer = await first.as('observer');
    observer.watch((message) => note(model, message));
    for (let index = 0; index < ROOMS; index += 1)
      await observer.request({ type: 'join_room', room: `room-${index}` });
    const { isQuick } = context.size;
    const [users, steps, kills, pauseMs] = isQuick ? [30, 1_500, 2, 300] : [60, 10_200, 8, 500];
    context.status = () => `${walk.steps} steps, ${model.notices} notices, ${walk.kills} kills`;
    const negatives: string[] = [];
    const watching = watch(redis, negatives);
    const walks = Promise.all(
      Array.from({ length: users }, (_value, index) => walk.user(`user-${index}`, steps / users, pauseMs)),
    );
    for (let kill = 1; kill <= kills; kill += 1) {
      while (walk.steps < (steps * kill) / (kills + 1)) await pause(20);
      const mortal = fleet.gateways.filter((gateway) => gateway.isRunning && gateway !== first);
      const victim = mortal[Math.floor(Math.random() * mortal.length)];
      if (victim !== undefined) await walk.kill(victim);
    }
    await walks;
    await pause(BOUND_MS + 1_000);
    await observer.fence();
    watching.stop();

    const faults = model.faults(BOUND_MS);
    const failures = [...negatives.slice(0, 3), ...faults.slice(0, 3)];
    if (faults.length > 3) failures.push(`and ${faults.length - 3} more`);
    for (const fault of faults) context.say(fault);
    failures.push(...(await differences(fleet, model)).slice(0, 3));
    if (walk.closes.size > 0) failures.push(`closes ${[...walk.closes].join()}`);
    return {
      failures,
      notes: [
        `${walk.steps} steps, ${walk.kills} kills`,
        `${model.notices} notices, ${model.absences} absences`,
        `${watching.looks} looks at the counters`,
      ],
    };
  },
};

function note(model: PresenceModel, message: Message): void {
  const kind = /^user_(connected|disconnected|joined|left)$/.exec(String(message.event))?.[1];
  const user = String(message['user_id']);
  if (kind === undefined || user === 'observer') return;
  const room = message['room'];
  const scope: Scope = typeof room === 'string' ? `room:${room}` : 'cluster';
  model.told(scope, user, kind === 'connected' || kind === 'joined');
}

/** Looks at every counter of presence twice a second. */
function watch(redis: RedisServer, negatives: string[]): { stop(): void; looks: number } {
  const look = async (): Promise<void> => {
    for (const key of await redis.keys('*:presence:*')) {
      const counts = key.endsWith(':connections')
        ? { connections: (await redis.commands.get(key)) ?? '0' }
        : /:(counts|live|holds)$/.test(key)
          ? await redis.commands.hgetall(key)
          : {};
      for (const [field, count] of Object.entries(counts))
        if (!(Number(count) >= 0)) negatives.push(`${key} has ${field} ${count}`);
    }
    watching.looks += 1;
  };
  const timer = setInterval(() => {
    look().catch((error: unknown) => negatives.push(String(error)));
  }, 500);
  const watching = { looks: 0, stop: () => clearInterval(timer) };
  return watching;
}

async function differences(fleet: Fleet, model: PresenceModel): Promise<string[]> {
  const failures: string[] = [];
  for (const gateway of fleet.gateways.filter(({ isRunning }) => isRunning)) {
    const api = new Api(() => gateway, KEY);
    for (let index = 0; index < ROOMS; index += 1) {
      const room = `room-${index}`;
      const expected = model.present(`room:${room}`).set('observer', 1);
      const presence = await api.ok('GET', `/rooms/${room}/presence?limit=1000`);
      const found = new Map(
        list(presence, 'members').map((one) => [String(one['user_id']), Number(one['connections'])]),
      );
      if (presence['count'] !== expected.size || !isSame(found, expected))
        failures.push(`${room} has ${text(found)} instead of ${text(expected)}`);
    }
    const expected = model.present('cluster').set('observer', 1);
    const connections = [...expected.values()].reduce((sum, count) => sum + count, 0);
    const { cluster } = await stats(gateway.url);
    if (cluster?.users !== expected.size || cluster.connections !== connections)
      failures.push(
        `the cluster has ${cluster?.users} users, ${cluster?.connections} connections instead of ${expected.size}, ${connections}`,
      );
  }
  return failures;
}

function isSame(found: ReadonlyMap<string, number>, expected: ReadonlyMap<string, number>): boolean {
  return found.size === expected.size && [...found].every(([user, count]) => expected.get(user) === count);
}

function text(members: ReadonlyMap<string, number>): string {
  return [...members.keys()]
    .sort()
    .map((user) => `${user}:${members.get(user)}`)
    .join(' ');
}
