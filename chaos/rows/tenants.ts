import { connect, text, type Client, type Message } from '../../test/support/client.js';
import type { GatewayProcess } from '../../test/support/gateway-process.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { secret, token } from '../../test/support/tokens.js';
import { ownDisguises, roomDisguises, userDisguises } from '../disguises.js';
import { Fleet } from '../fleet.js';
import type { Row } from '../row.js';

const TENANTS = ['acme', 'zeta'] as const;
type Tenant = (typeof TENANTS)[number];

const ROOMS = 4;
const CITIZENS = 20;
const ACTIONS = ['join_room', 'room_message', 'chat', 'presence', 'history', 'direct_message'] as const;
/** The one answer that a tenant gets to whatever is not its own. */
const FORBIDDEN = 'forbidden';
/** For names that no room or user can have. */
const MALFORMED = 'invalid_message';
const ROOM = /^[A-Za-z0-9._:@/-]{1,128}$/;
const USER = /^\P{Cc}{1,128}$/u;

interface Citizen {
  readonly tenant: Tenant;
  readonly client: Client;
}

function other(tenant: Tenant): Tenant {
  return tenant === 'acme' ? 'zeta' : 'acme';
}

function roomOf(tenant: Tenant, index: number): string {
  return `${tenant}:room-${index}`;
}

function rights(tenant: Tenant): object {
  const own = [`${tenant}:*`];
  return {
    rooms: { join: own, publish: own, presence: own, history: own },
    direct: [`${tenant}-*`],
    broadcast: false,
  };
}

/** Everybody of both tenants; what they read is looked at as it comes. */
class Town {
  readonly leaks: string[] = [];
  readonly answers = new Map<string, number>();
  deliveries = 0;
  attempts = 0;
  /** The forbidding answer, without its `ref`: all are to be the same. */
  readonly denials = new Set<string>();

  constructor(private readonly gateways: readonly GatewayProcess[]) {}

  async citizen(tenant: Tenant, index: number, claims: object = rights(tenant)): Promise<Client> {
    const user = `${tenant}-${index}`;
    const gateway = this.gateways[index % this.gateways.length];
    if (gateway === undefined) throw new Error('no gateway');
    const client = await connect(gateway.ws(), {
      headers: { authorization: `Bearer ${token(user, claims)}` },
    });
    client.watch((message) => this.#look(tenant, user, message));
    return client;
  }

  /** Counts as a leak whatever is not the one refusal, or `invalid_message` for a name that none can have. */
  async attempt(client: Client, message: object, expected = FORBIDDEN): Promise<void> {
    this.attempts += 1;
    const reply = await client.request(message, 15_000);
    const outcome = reply.event === 'error' ? text(reply, 'code') : (reply.event ?? '');
    this.answers.set(outcome, (this.answers.get(outcome) ?? 0) + 1);
    if (outcome === FORBIDDEN) this.denials.add(JSON.stringify({ ...reply, ref: undefined }));
    if (outcome !== expected)
      this.leaks.push(`${client.userId}: ${JSON.stringify(message)} was answered by ${outcome}`);
  }

  #look(tenant: Tenant, user: string, { ref: _ref, ...message }: Message): void {
    if (message.event === 'chat') this.deliveries += 1;
    // Only the ref may repeat what the client said.
    if (speaksOf(other(tenant), message))
      this.leaks.push(`${user} got ${JSON.stringify(message).slice(0, 200)}`);
  }
}

/** Whether any text in it names the tenant, a room or a user of it. */
function speaksOf(tenant: Tenant, value: unknown): boolean {
  if (typeof value === 'string')
    return value === tenant || value.startsWith(`${tenant}:`) || value.startsWith(`${tenant}-`);
  return (
    typeof value === 'object' && value !== null && Object.values(value).some((part) => speaksOf(tenant, part))
  );
}

/** Publishes in the rooms of both tenants, and directly, until so much was delivered. */
async function publish(town: Town, citizens: readonly Citizen[], wanted: number): Promise<void> {
  let n = 0;
  await Promise.all(
    citizens.map(async ({ client, tenant }, index) => {
      while (town.deliveries < wanted) {
        n += 1;
        const content = { tenant, n };
        const room = roomOf(tenant, n % ROOMS);
        const target_user = `${tenant}-${n % (citizens.length / 2)}`;
        const message =
          (n + index) % 20 === 0
            ? { type: 'direct_message', target_user, content }
            : { type: 'room_message', room, content };
        const { event } = await client.request(message, 15_000);
        if (event !== 'ack') town.leaks.push(`${client.userId} may not write to ${room}`);
        client.forget();
      }
    }),
  );
}

/** Tries everything on every name of the other tenant, and on names that look like one, in random order. */
async function trespass(town: Town, { client, tenant }: Citizen): Promise<void> {
  const target = other(tenant);
  const rooms = [
    ...roomDisguises(target, tenant),
    ...Array.from({ length: ROOMS }, (_value, index) => roomOf(target, index)),
  ];
  const attempts = ACTIONS.flatMap((type): [message: object, isName: boolean][] =>
    type === 'direct_message'
      ? userDisguises(target, tenant).map((name) => [
          { type, target_user: name, content: 1 },
          USER.test(name),
        ])
      : rooms.map((room) => [{ type, room, content: 1, last_event_id: 0, limit: 10 }, ROOM.test(room)]),
  );
  for (const [message, isName] of attempts.sort(() => Math.random() - 0.5))
    await town.attempt(client, message, isName ? FORBIDDEN : MALFORMED);
}

/** Rights to a room are taken away by a new token: from then on there is nothing of it, live or by a resume. */
async function expel(town: Town, tenant: Tenant, index: number): Promise<string[]> {
  const room = roomOf(tenant, 1);
  const client = await town.citizen(tenant, index);
  const joined = await client.request({ type: 'join_room', room });
  const only = [roomOf(tenant, 0)];
  const claims = { rooms: { join: only, publish: only, presence: only, history: only }, broadcast: false };
  await client.request({ type: 'auth', token: token(client.userId, claims) });
  await client.fence();
  const failures: string[] = [];
  if (!client.all.some(({ event, room: left }) => event === 'left_room' && left === room))
    failures.push('a connection stays in a room that its token no longer gives');
  client.forget();
  const again = await town.citizen(tenant, index, claims);
  const position = { last_event_id: joined['last_event_id'], epoch: joined['epoch'] };
  for (const expelled of [client, again]) {
    for (const type of ACTIONS.slice(0, 5))
      await town.attempt(expelled, { type, room, content: 1, ...position });
    await town.attempt(expelled, { type: 'join_room', room, last_event_id: 'acked' });
    await town.attempt(expelled, { type: 'join_room', room, rewind: 100 });
  }
  await client.fence();
  for (const expelled of [client, again]) {
    if (expelled.all.some((message) => message['room'] === room))
      failures.push('events of a room after the right to it has gone');
    await expelled.close();
  }
  return failures;
}

export const tenants: Row = {
  name: '28',
  fault: 'two tenants on three instances, each trying all rooms and users of the other, and names like them',
  criterion:
    '0 leaked of >= 100,000 deliveries (quick: 10,000); every attempt refused, by one and the same answer',
  extraSeconds: 240,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const settings = { JWT_SECRET: secret, AUTH_MODE: 'required' };
    const fleet = await Fleet.start(context, { redis, size: { clients: 0 }, settings });
    const town = new Town(fleet.gateways);
    const wanted = context.size.isQuick ? 10_000 : 100_000;
    context.status = () =>
      `${town.deliveries} deliveries, ${town.attempts} attempts, ${town.leaks.length} leaks`;
    const citizens: Citizen[] = [];
    for (const tenant of TENANTS) {
      for (let index = 0; index < CITIZENS; index += 1) {
        const client = await town.citizen(tenant, index);
        citizens.push({ tenant, client });
        for (let room = 0; room < ROOMS; room += 1)
          await client.request({ type: 'join_room', room: roomOf(tenant, room) });
        // Rooms of its own that sound like another's.
        for (const room of ownDisguises(tenant, other(tenant)))
          await client.request({ type: 'join_room', room });
      }
    }
    const failures: string[] = [];
    const load = publish(town, citizens, wanted);
    const trespassers = await Promise.all(
      TENANTS.map(async (tenant) => ({ tenant, client: await town.citizen(tenant, CITIZENS) })),
    );
    for (let round = 0; round < (context.size.isQuick ? 1 : 5); round += 1) {
      await Promise.all(
        [...citizens.slice(0, 2), ...citizens.slice(-2), ...trespassers].map((citizen) =>
          trespass(town, citizen),
        ),
      );
      for (const tenant of TENANTS) failures.push(...(await expel(town, tenant, CITIZENS + 1 + round)));
    }
    await load;
    await Promise.all(citizens.map(({ client }) => client.fence()));
    if (town.leaks.length > 0) failures.push(`${town.leaks.length} leaks`);
    for (const leak of town.leaks.slice(0, 10)) context.say(leak);
    if (town.denials.size !== 1)
      failures.push(`${town.denials.size} different refusals: ${[...town.denials].join(' ')}`);
    if (town.deliveries < wanted) failures.push(`only ${town.deliveries} deliveries`);
    return {
      deliveries: town.deliveries,
      failures,
      notes: [
        `${town.attempts} attempts`,
        ...[...town.answers].map(([outcome, count]) => `${count} ${outcome}`),
      ],
    };
  },
};
