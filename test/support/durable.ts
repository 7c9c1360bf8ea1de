import { afterAll, afterEach, beforeAll } from 'vitest';
import { closeClients, number, text, type Client, type ConnectOptions, type Message } from './client.js';
import { eventually } from './eventually.js';
import { Gateway, type Environment } from './gateway.js';
import { status } from './http.js';
import { fresh } from './names.js';
import { RedisServer } from './redis-server.js';

export type BrokerKind = 'memory' | 'redis';
export type ChannelKind = 'room' | 'broadcast' | 'direct';

export const brokers: [string, BrokerKind][] = [
  ['the embedded broker', 'memory'],
  ['Redis', 'redis'],
];

/** Runs an instance in this process over either broker, ready before the first test. */
export function serveOver(broker: BrokerKind, environment: Environment = {}): () => Gateway {
  let gateway: Gateway | undefined;
  let redis: RedisServer | undefined;
  beforeAll(async () => {
    if (broker === 'redis') redis = await RedisServer.start();
    gateway = await Gateway.start({
      RATE_LIMIT_PER_SECOND: '0',
      ANNOUNCE_USERS: 'false',
      REDIS_URL: redis?.url,
      ...environment,
    });
    const { url } = gateway;
    await eventually(async () => {
      const answer = await status(`${url}/health/ready`);
      if (answer !== 200) throw new Error(`/health/ready answers ${answer}`);
    });
  });
  afterEach(closeClients);
  afterAll(async () => {
    await gateway?.close();
    await redis?.dispose();
  });
  return () => {
    if (gateway === undefined) throw new Error('the gateway has not started');
    return gateway;
  };
}

export interface Point {
  id?: number | 'acked' | undefined;
  epoch?: string | undefined;
  rewind?: number | undefined;
}

export interface Position {
  id: number;
  epoch: string;
}

export interface Resumed {
  readonly client: Client;
  readonly recovered: boolean;
  readonly position: Position;
  /** Of `joined_room`; `connected` has none. */
  readonly replayed: unknown;
}

/** What tells one channel's story: numbered events by their ids, and gaps. */
export type Told = number | { after: number; next: number; epoch: string } | 'reply';

/** Something that connects users: an instance in this process or one of its own. */
export interface Door {
  as(clientId: string, options?: ConnectOptions): Promise<Client>;
}

/** One channel of either kind, its writer, and the user who reads it with any number of connections. */
export class Scene {
  readonly room = fresh('room');
  readonly user = fresh('reader');

  private constructor(
    private readonly door: Door,
    readonly kind: ChannelKind,
    readonly writer: Client,
  ) {}

  static async open(door: Door, kind: ChannelKind): Promise<Scene> {
    const scene = new Scene(door, kind, await door.as(fresh('writer')));
    if (kind === 'room') await scene.writer.request({ type: 'join_room', room: scene.room });
    return scene;
  }

  /** Publishes, each acknowledged before the call resolves; the ids that they got. */
  async publish(count = 1, content: unknown = 'event'): Promise<number[]> {
    const ids: number[] = [];
    while (ids.length < count) {
      const batch = Array.from({ length: Math.min(20, count - ids.length) }, () =>
        this.writer.request({ ...this.address, content }),
      );
      for (const reply of await Promise.all(batch)) ids.push(number(reply, 'id'));
    }
    return ids;
  }

  get address(): Record<string, unknown> {
    const { kind, room, user } = this;
    if (kind === 'room') return { type: 'room_message', room };
    return kind === 'direct' ? { type: 'direct_message', target_user: user } : { type: 'chat' };
  }

  /** The fields that `ack_events` and `gap` name the channel with. */
  get fields(): Record<string, unknown> {
    const { kind, room } = this;
    if (kind === 'room') return { room };
    return kind === 'direct' ? { direct: true } : {};
  }

  /** A new connection of the reader, from where it wants to go on; without a point from now on. */
  async read(point: Point = {}, door: Door = this.door): Promise<Resumed> {
    if (this.kind !== 'room') {
      const [id, epoch] =
        this.kind === 'broadcast' ? ['lastEventId', 'epoch'] : ['lastDirectEventId', 'directEpoch'];
      const query = Object.entries({ [id]: point.id, [epoch]: point.epoch }).flatMap(([name, value]) =>
        value === undefined ? [] : [[name, String(value)]],
      );
      const client = await door.as(this.user, { query: Object.fromEntries(query) as Record<string, string> });
      return this.resumed(client, client.connected);
    }
    return this.join(await door.as(this.user), point);
  }

  async join(client: Client, { id, epoch, rewind }: Point = {}): Promise<Resumed> {
    const message = { type: 'join_room', room: this.room, last_event_id: id, epoch, rewind };
    return this.resumed(client, await client.request(message));
  }

  /** What the client was told about the channel since its latest reply, the reply included. */
  story(client: Client): Told[] {
    const told = client.all.flatMap((message): Told[] => {
      if (message.event === (this.kind === 'room' ? 'joined_room' : 'connected')) return ['reply'];
      if (!this.isHere(message)) return [];
      if (message.event === 'gap') {
        return [
          {
            after: number(message, 'after'),
            next: number(message, 'next'),
            epoch: text(message, 'epoch'),
          },
        ];
      }
      return message.event === 'chat' ? [number(message, 'id')] : [];
    });
    return told.slice(told.lastIndexOf('reply'));
  }

  /** The story once one more event, published now, has come: nothing that was before it can come any more. */
  async whole(client: Client): Promise<{ story: Told[]; marker: number }> {
    const [marker = 0] = await this.publish();
    await client.next((message) => this.isHere(message) && message['id'] === marker);
    return { story: this.story(client), marker };
  }

  isHere(message: Message): boolean {
    if (this.kind === 'room') return message['room'] === this.room;
    if ('room' in message) return false;
    return this.kind === 'direct' ? message['direct'] === true : message['direct'] === undefined;
  }

  private resumed(client: Client, reply: Message): Resumed {
    const [id, epoch] =
      this.kind === 'direct' ? ['last_direct_event_id', 'direct_epoch'] : ['last_event_id', 'epoch'];
    if (reply.event === 'error') throw new Error(`refused: ${JSON.stringify(reply)}`);
    return {
      client,
      recovered: reply['recovered'] === true,
      position: { id: number(reply, id), epoch: text(reply, epoch) },
      replayed: reply['replayed'],
    };
  }
}

/** The integers after `after` up to `last`. */
export function idsAfter(after: number, last: number): number[] {
  return Array.from({ length: last - after }, (_value, index) => after + 1 + index);
}
