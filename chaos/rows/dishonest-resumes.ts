import { connect, refused, type Client, type Message } from '../../test/support/client.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { Fleet } from '../fleet.js';
import type { Row } from '../row.js';

const KEPT = 50;
const WRITTEN = 200;

interface Answer {
  readonly reply: Message;
  readonly gap: Message | undefined;
  readonly ids: number[];
}

export const dishonestResumes: Row = {
  name: '4',
  fault: 'resume beyond retention, of another epoch, of the future, malformed; trimmed log; FLUSHALL',
  criterion: 'recovered: false and a gap, or an error, never part of it; at most 1 read of the log each',
  extraSeconds: 30,
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, {
      redis,
      gateways: 1,
      settings: { HISTORY_SIZE: String(KEPT) },
      size: { clients: 2, rooms: 1 },
    });
    const [gateway] = fleet.gateways;
    if (gateway === undefined) throw new Error('no gateway');
    const failures: string[] = [];
    let checks = 0;
    const check = (what: string, holds: boolean, seen: unknown): void => {
      checks += 1;
      if (!holds) failures.push(`${what}: ${JSON.stringify(seen)}`);
    };

    const open = (query: Record<string, string> = {}): Promise<Client> =>
      connect(gateway.ws(), { query: { client_id: 'reader', ...query } });
    const writer = await open();
    const joined = await writer.request({ type: 'join_room', room: 'x' });
    for (let index = 0; index < WRITTEN; index += 1) {
      await writer.request({ type: 'room_message', room: 'x', content: index });
      await writer.request({ type: 'chat', content: index });
    }
    const fresh = await open();
    const epoch = String((await fresh.request({ type: 'join_room', room: 'x' }))['epoch']);
    const broadcastEpoch = String(fresh.connected['epoch']);
    const [log] = await redis.keys('*room:x:log');
    if (log === undefined) throw new Error('the room has no log');
    const monitor = await redis.commands.monitor();
    context.onEnd(() => monitor.disconnect());
    let reads = 0;
    monitor.on('monitor', (_time: string, args: string[], source: string) => {
      if (source !== 'lua' && args[0]?.toLowerCase() === 'evalsha' && args.includes(log)) reads += 1;
    });

    const resume = async (fields: object): Promise<Answer> => {
      const client = await open();
      const reply = await client.request({ type: 'join_room', room: 'x', ...fields });
      await client.fence();
      const ids = client.all
        .filter((message) => message.event === 'chat')
        .map((message) => Number(message['id']));
      const gap = client.all.find((message) => message.event === 'gap' && message['room'] === 'x');
      await client.close();
      return { reply, gap, ids };
    };
    const told = async (what: string, fields: object): Promise<void> => {
      reads = 0;
      const { reply, gap, ids } = await resume(fields);
      check(what, reply['recovered'] === false && gap !== undefined, { reply, gap });
      if (gap !== undefined)
        check(
          `${what}: only what follows the gap`,
          ids.every((id) => id >= Number(gap['next'])),
          { gap, ids },
        );
      check(`${what}: at most 1 read of the log`, reads <= 1, reads);
    };
    const recovers = async (what: string, fields: object, expected: number): Promise<void> => {
      const { reply, gap, ids } = await resume(fields);
      check(what, reply['recovered'] === true && gap === undefined && ids.length === expected, {
        reply,
        gap,
        ids,
      });
    };

    await recovers('within retention', { last_event_id: WRITTEN - 10, epoch }, 10);
    await recovers('at the edge of retention', { last_event_id: WRITTEN - KEPT, epoch }, KEPT);
    await recovers('at the head', { last_event_id: WRITTEN, epoch }, 0);
    await recovers(
      'the epoch of before the first event',
      { last_event_id: WRITTEN - 5, epoch: joined['epoch'] },
      5,
    );
    await told('one beyond retention', { last_event_id: WRITTEN - KEPT - 1, epoch });
    await told('from the beginning', { last_event_id: 0, epoch });
    await told('another epoch', { last_event_id: WRITTEN - 1, epoch: 'other.1' });
    await told('an empty epoch', { last_event_id: WRITTEN - 1, epoch: '' });
    await told('the future', { last_event_id: WRITTEN + 1, epoch });
    await told('the far future', { last_event_id: Number.MAX_SAFE_INTEGER, epoch });
    await told('the future without an epoch', { last_event_id: WRITTEN + 1 });
    for (const id of ['-', '$', '+', '', '199', '0-0', -1, 1.5, 1e300, 2 ** 53, true, [], {}]) {
      reads = 0;
      const { reply, ids } = await resume({ last_event_id: id, epoch });
      const isRefused = reply.event === 'error' && reply['code'] === 'invalid_message' && ids.length === 0;
      check(`malformed ${JSON.stringify(id)}`, isRefused && reads === 0, { reply, ids, reads });
    }
    for (const id of ['-', '$', '+', '1e3', '0-0', '-1', '1.5', '99999999999999999999', ' 1', '0x10']) {
      const { status } = await refused(gateway.ws(), { query: { client_id: 'reader', lastEventId: id } });
      check(`query ${id}`, status === 400, status);
    }
    const query = async (what: string, fields: Record<string, string>, recovered: boolean): Promise<void> => {
      const client = await open(fields);
      await client.fence();
      const gap = client.all.find((message) => message.event === 'gap' && message['room'] === undefined);
      check(
        what,
        client.connected['recovered'] === recovered && (gap === undefined) === recovered,
        client.all.slice(0, 2),
      );
      await client.close();
    };
    await query('query within retention', { lastEventId: String(WRITTEN - 5), epoch: broadcastEpoch }, true);
    await query('query beyond retention', { lastEventId: '3', epoch: broadcastEpoch }, false);
    await query('query of another epoch', { lastEventId: '199', epoch: 'nope.7' }, false);
    await query('query of the future', { lastEventId: '100000', epoch: broadcastEpoch }, false);

    await redis.commands.xtrim(log, 'MAXLEN', 10);
    await recovers('trimmed, within', { last_event_id: WRITTEN - 10, epoch }, 10);
    await told('trimmed, beyond', { last_event_id: WRITTEN - 11, epoch });
    await redis.commands.xdel(log, `${WRITTEN - 3}-0`);
    await told('a hole in the log', { last_event_id: WRITTEN - 6, epoch });
    await redis.commands.del(log);
    await told('no log', { last_event_id: WRITTEN - 1, epoch });
    await recovers('no log, at the head', { last_event_id: WRITTEN, epoch }, 0);
    await redis.commands.flushall();
    // The first to ask finds the numbering gone; the gateway settles it and goes on.
    const { reply } = await resume({ last_event_id: WRITTEN - 1, epoch });
    check('directly after FLUSHALL: an error or recovered: false', reply['recovered'] !== true, reply);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await told('after FLUSHALL', { last_event_id: WRITTEN - 1, epoch });
    for (const client of [writer, fresh]) {
      const gap = client.all.find((message) => message.event === 'gap' && message['room'] === 'x');
      check('members were told by a gap after FLUSHALL', gap !== undefined, client.all.slice(-3));
      await client.cut();
    }
    return { failures, notes: [`${checks} checks`] };
  },
};
