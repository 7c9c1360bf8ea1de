import { describe, expect, it } from 'vitest';
import { BrokerUnavailable } from '../../src/core/broker.js';
import type { Channel } from '../../src/core/channel.js';
import { Hub } from '../../src/core/hub.js';
import { Turn } from '../../src/core/turn.js';
import { CLOSE } from '../../src/protocol/close-codes.js';
import type { FakeTransport } from './fakes.js';
import { connect, Deferred, eventAt, FakeBroker, FakeTelemetry, settled } from './fakes.js';

const ROOM = 'room:a';

function setUp(broker = new FakeBroker(), turn = new Turn()) {
  const telemetry = new FakeTelemetry();
  const faults: unknown[] = [];
  const hub = new Hub(broker, telemetry, turn, (error) => faults.push(error));
  broker.start(hub);
  return { broker, telemetry, faults, hub };
}

/** A hub with one member in the room, and what that member reads. */
async function withMember(stored = 0) {
  const world = setUp();
  for (let count = 0; count < stored; count += 1) world.broker.append(ROOM);
  const channel = await world.hub.acquire(ROOM);
  return { ...world, channel, ...join(channel, 'alice') };
}

function join(channel: Channel, userId: string, id?: string) {
  const member = connect(userId, id === undefined ? {} : { id });
  channel.add(member.connection);
  return member;
}

const ids = (transport: FakeTransport): unknown[] => transport.events.map(({ id }) => id);

describe('the hub delivers', () => {
  it('each event to all members, in order', async () => {
    const { broker, channel, transport } = await withMember();
    const other = join(channel, 'bob');
    for (let count = 0; count < 3; count += 1) broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual([1, 2, 3]);
    expect(other.transport.texts).toEqual(transport.texts);
  });

  it('the events of a turn as one piece, shared by all members', async () => {
    const { broker, channel, transport } = await withMember();
    const other = join(channel, 'bob');
    for (let count = 0; count < 3; count += 1) broker.announce(broker.append(ROOM));
    await settled();
    expect(transport.writes).toHaveLength(1);
    expect(other.transport.writes[0]).toBe(transport.writes[0]);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(transport.writes).toHaveLength(2);
  });

  it('to who comes and goes within a turn just what came while it was there', async () => {
    const { broker, channel, transport } = await withMember();
    broker.announce(broker.append(ROOM));
    const guest = join(channel, 'bob');
    broker.announce(broker.append(ROOM));
    channel.remove(guest.connection);
    guest.connection.send({ event: 'left_room', room: 'a' });
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual([1, 2, 3]);
    expect(guest.transport.events.map(({ event, id }) => id ?? event)).toEqual([2, 'left_room']);
  });

  it('what came before a connection is closed, in the same turn', async () => {
    const turn = new Turn();
    const { hub, broker } = setUp(new FakeBroker(), turn);
    const channel = await hub.acquire(ROOM);
    const { connection, transport } = connect('alice', { turn });
    channel.add(connection);
    broker.announce(broker.append(ROOM));
    connection.close({ code: 4003, reason: 'forbidden' });
    expect(ids(transport)).toEqual([1]);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual([1]);
  });

  it('what came before a connection is closed, and then its last message', async () => {
    const turn = new Turn();
    const { hub, broker } = setUp(new FakeBroker(), turn);
    const channel = await hub.acquire(ROOM);
    const { connection, transport } = connect('alice', { turn });
    channel.add(connection);
    broker.announce(broker.append(ROOM, 'user:bob'));
    connection.close(CLOSE.restart, { event: 'reconnect', reason: 'restart', after_ms: 0 });
    expect(transport.events.map(({ event, id }) => id ?? event)).toEqual([1, 'reconnect']);
  });

  it('what is not for one member in its place between what is for all', async () => {
    const { broker, channel, transport } = await withMember();
    const sender = join(channel, 'bob', 'c-bob');
    broker.announce(broker.append(ROOM));
    broker.announce(broker.append(ROOM, 'connection:c-bob'));
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual([1, 2, 3]);
    expect(ids(sender.transport)).toEqual([1, 3]);
  });

  it('what leaves some out as one piece to all others', async () => {
    const { broker, channel, transport } = await withMember();
    const senders = ['c-bob', 'c-carol'].map((id) => join(channel, id.slice(2), id));
    const other = join(channel, 'dave');
    for (const exclude of ['connection:c-bob', 'connection:c-carol', '', 'connection:c-bob']) {
      broker.announce(broker.append(ROOM, exclude));
    }
    await settled();
    expect(ids(transport)).toEqual([1, 2, 3, 4]);
    expect(transport.writes).toHaveLength(1);
    expect(other.transport.writes[0]).toBe(transport.writes[0]);
    expect(senders.map((sender) => ids(sender.transport))).toEqual([
      [2, 3],
      [1, 3, 4],
    ]);
  });

  it('all of the next piece to who was left out of the last', async () => {
    const { broker, channel } = await withMember();
    const sender = join(channel, 'bob', 'c-bob');
    broker.announce(broker.append(ROOM, 'connection:c-bob'));
    channel.remove(sender.connection);
    channel.add(sender.connection);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(sender.transport)).toEqual([2]);
  });

  it('a turn that brings much in pieces of some 64 KiB', async () => {
    const { broker, transport } = await withMember();
    for (let count = 0; count < 300; count += 1) {
      const event = broker.append(ROOM);
      event.body = Buffer.from(`{"event":"chat","content":"${'x'.repeat(1_000)}"`);
      broker.announce(event);
    }
    await settled();
    expect(ids(transport)).toEqual(Array.from({ length: 300 }, (_, at) => at + 1));
  });

  it('nothing of a channel that nobody here is in', async () => {
    const { broker, transport, telemetry } = await withMember();
    broker.announce(eventAt('room:b', 'life.1', 1));
    await settled();
    expect(transport.texts).toEqual([]);
    expect(telemetry.counted).toEqual([]);
  });

  it('an event that comes twice once', async () => {
    const { broker, transport } = await withMember();
    const [first, second] = [broker.append(ROOM), broker.append(ROOM)];
    for (const event of [first, second, first, second, second]) broker.announce(event);
    await settled();
    expect(ids(transport)).toEqual([1, 2]);
    expect(broker.asked).toEqual([]);
  });

  it('no event from before the members came', async () => {
    const { broker, transport } = await withMember(3);
    for (const event of broker.log) broker.announce(event);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual([4]);
  });

  it('what is not numbered at once, even while a hole is filled', async () => {
    const { broker, transport } = await withMember();
    broker.append(ROOM);
    broker.hold = new Deferred();
    broker.announce(broker.append(ROOM));
    broker.announce({
      channel: ROOM,
      position: null,
      exclude: '',
      body: Buffer.from('{"event":"user_joined"'),
    });
    await settled();
    expect(transport.events).toEqual([{ event: 'user_joined' }]);
    broker.hold.resolve();
    await settled();
    expect(ids(transport)).toEqual([undefined, 1, 2]);
  });

  it('an ephemeral channel without asking for a head', async () => {
    const { broker, hub } = setUp(new FakeBroker([ROOM]));
    broker.failures.head.push(new Error('nobody asks'));
    const channel = await hub.acquire(ROOM);
    const { transport } = join(channel, 'alice');
    expect(channel.position).toBeNull();
    hub.onEvent({ channel: ROOM, position: null, exclude: '', body: Buffer.from('{"event":"chat"') });
    hub.onHead(ROOM, { epoch: 'life.1', id: 5 });
    await settled();
    expect(transport.texts).toEqual(['{"event":"chat"}']);
    expect(broker.asked).toEqual([]);
  });

  it('the first event of a channel that was never written as no change of its epoch', async () => {
    const { broker, channel, transport } = await withMember();
    expect(channel.position).toEqual({ epoch: 'life.0', id: 0 });
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual([1]);
    expect(channel.position).toEqual({ epoch: 'life.1', id: 1 });
  });
});

describe('the hub leaves out', () => {
  it('the excluded connection and no other of its user', async () => {
    const { broker, hub } = setUp();
    const channel = await hub.acquire('broadcast');
    const members = ['c1', 'c2', 'c11'].map((id) => join(channel, 'alice', id));
    broker.announce(broker.append('broadcast', 'connection:c1'));
    await settled();
    expect(members.map(({ transport }) => ids(transport))).toEqual([[], [1], [1]]);
  });

  it('every connection of the excluded user and nobody else', async () => {
    const { broker, hub } = setUp();
    const channel = await hub.acquire('broadcast');
    const users = ['ali', 'alice', 'alice', 'alice2', 'user:alice'];
    const members = users.map((userId) => join(channel, userId));
    broker.announce(broker.append('broadcast', 'user:alice'));
    await settled();
    expect(members.map(({ transport }) => ids(transport))).toEqual([[1], [], [], [1], [1]]);
  });

  it('the excluded one of an event that was fetched to fill a hole', async () => {
    const { broker, hub } = setUp();
    const channel = await hub.acquire('broadcast');
    const [sender, other] = [join(channel, 'alice', 'c1'), join(channel, 'bob', 'c2')];
    broker.append('broadcast', 'connection:c1');
    broker.announce(broker.append('broadcast', 'connection:c2'));
    await settled();
    expect([ids(sender.transport), ids(other.transport)]).toEqual([[2], [1]]);
  });

  it('nobody for an exclude of a kind it does not know', async () => {
    const { broker, transport } = await withMember();
    broker.announce(broker.append(ROOM, 'alice'));
    broker.announce(broker.append(ROOM, 'user:'));
    await settled();
    expect(ids(transport)).toEqual([1, 2]);
  });

  it('those it left out of what it counts as delivered', async () => {
    const { broker, channel, telemetry } = await withMember();
    join(channel, 'bob');
    broker.announce(broker.append(ROOM, 'user:bob'));
    broker.announce(broker.append(ROOM));
    expect(telemetry.counted).toEqual(['eventsDelivered 1', 'eventsDelivered 2']);
  });
});

describe('a hole', () => {
  it('is filled once and in order, and what came meanwhile follows it', async () => {
    const { broker, transport, telemetry } = await withMember();
    broker.hold = new Deferred();
    for (let count = 0; count < 3; count += 1) broker.append(ROOM);
    for (let count = 0; count < 3; count += 1) broker.announce(broker.append(ROOM));
    await settled();
    expect(transport.texts).toEqual([]);
    broker.hold.resolve();
    await settled();
    expect(ids(transport)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(broker.asked).toMatchObject([{ channel: ROOM, after: { epoch: 'life.0', id: 0 } }]);
    expect(telemetry.count('holeFound filled')).toBe(1);
  });

  it('is filled page by page to the head', async () => {
    const { broker, transport, telemetry } = await withMember();
    for (let count = 0; count < 999; count += 1) broker.append(ROOM);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual(Array.from({ length: 1_000 }, (_, at) => at + 1));
    const limits = broker.asked.map(({ limit }) => limit);
    expect(broker.asked.map(({ after }) => after.id)).toEqual(limits.map((limit, page) => page * limit));
    expect(limits.length).toBe(Math.ceil(1_000 / (limits[0] ?? 0)));
    expect(telemetry.count('holeFound filled')).toBe(1);
  });

  it('that opens while another is filled is filled too', async () => {
    const { broker, transport } = await withMember();
    broker.hold = new Deferred();
    broker.append(ROOM);
    broker.announce(broker.append(ROOM));
    await settled();
    const head = broker.hold;
    broker.hold = null;
    const late = [broker.append(ROOM), broker.append(ROOM), broker.append(ROOM)].at(-1);
    if (late !== undefined) broker.announce(late);
    head.resolve();
    await settled();
    expect(ids(transport)).toEqual([1, 2, 3, 4, 5]);
  });

  it('whose events are gone is told by one gap, before what follows it', async () => {
    const { broker, channel, transport, telemetry } = await withMember(2);
    const other = join(channel, 'bob');
    for (let count = 0; count < 8; count += 1) broker.append(ROOM);
    broker.trimmedTo = 7;
    broker.announce(broker.append(ROOM));
    await settled();
    expect(transport.events.slice(0, 1)).toEqual([
      { event: 'gap', room: 'a', after: 2, next: 8, epoch: 'life.1' },
    ]);
    expect(ids(transport).slice(1)).toEqual([8, 9, 10, 11]);
    expect(other.transport.texts).toEqual(transport.texts);
    expect(telemetry.count('holeFound gap')).toBe(1);
  });

  it('of which nothing is kept at all is told by a gap up to the head', async () => {
    const { broker, transport } = await withMember(2);
    for (let count = 0; count < 3; count += 1) broker.append(ROOM);
    broker.trimmedTo = 5;
    broker.sink?.onHead(ROOM, broker.currentHead);
    await settled();
    expect(transport.events).toEqual([{ event: 'gap', room: 'a', after: 2, next: 6, epoch: 'life.1' }]);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport).at(-1)).toBe(6);
  });

  it.each([
    ['broadcast', {}],
    ['user:alice', { direct: true }],
    ['room:x:y', { room: 'x:y' }],
  ])('in %s is told with the fields of the channel', async (name, fields) => {
    const { broker, hub } = setUp();
    const { transport } = join(await hub.acquire(name), 'alice');
    for (let count = 0; count < 3; count += 1) broker.append(name);
    broker.trimmedTo = 3;
    hub.onHead(name, broker.currentHead);
    await settled();
    expect(transport.events).toEqual([{ event: 'gap', ...fields, after: 0, next: 4, epoch: 'life.1' }]);
  });

  it('behind a head that was compared is filled without an event to show it', async () => {
    const { broker, hub, transport } = await withMember(1);
    for (let count = 0; count < 2; count += 1) broker.append(ROOM);
    hub.onHead(ROOM, broker.currentHead);
    hub.onHead(ROOM, broker.currentHead);
    await settled();
    expect(ids(transport)).toEqual([2, 3]);
    hub.onHead(ROOM, broker.currentHead);
    await settled();
    expect(broker.asked).toHaveLength(1);
  });

  it('that could not be filled is found again by the next event', async () => {
    const { broker, transport, telemetry, faults } = await withMember();
    broker.append(ROOM);
    broker.failures.history.push(new BrokerUnavailable());
    broker.announce(broker.append(ROOM));
    await settled();
    expect(transport.texts).toEqual([]);
    expect(telemetry.count('holeFound failed')).toBe(1);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual([1, 2, 3]);
    expect(faults).toEqual([]);
  });

  it('that could not be filled is found again by the next comparison of heads', async () => {
    const { broker, hub, transport } = await withMember();
    broker.failures.history.push(new BrokerUnavailable(), new BrokerUnavailable());
    broker.announce(broker.append(ROOM));
    broker.append(ROOM);
    broker.announce(broker.append(ROOM));
    await settled();
    hub.onHead(ROOM, broker.currentHead);
    await settled();
    expect(ids(transport)).toEqual([1]);
    hub.onHead(ROOM, broker.currentHead);
    await settled();
    expect(ids(transport)).toEqual([1, 2, 3]);
  });

  it('that could not be filled half-way goes on from there', async () => {
    const { broker, transport } = await withMember();
    for (let count = 0; count < 300; count += 1) broker.append(ROOM);
    broker.hold = new Deferred();
    broker.announce(broker.append(ROOM));
    await settled();
    const first = broker.hold;
    broker.hold = new Deferred();
    first.resolve();
    await settled();
    broker.failures.history.push(new BrokerUnavailable());
    broker.hold.resolve();
    broker.hold = null;
    await settled();
    expect(ids(transport)).toHaveLength(broker.asked[0]?.limit ?? 0);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual(Array.from({ length: 302 }, (_, at) => at + 1));
  });

  it('that could not be filled for another reason than the broker is a fault, and is found again', async () => {
    const { broker, transport, faults } = await withMember();
    const fault = new TypeError('not expected');
    broker.failures.history.push(fault);
    broker.append(ROOM);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(faults).toEqual([fault]);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual([1, 2, 3]);
  });

  it('of a channel that everybody has left meanwhile is nobody’s any more', async () => {
    const { broker, hub, channel, transport, telemetry } = await withMember();
    broker.hold = new Deferred();
    broker.append(ROOM);
    broker.announce(broker.append(ROOM));
    await settled();
    hub.release(channel);
    broker.hold.resolve();
    await settled();
    expect(transport.texts).toEqual([]);
    expect(telemetry.counted).toEqual([]);
  });
});

describe('another epoch', () => {
  it('is told by a gap before the next event', async () => {
    const { broker, transport, channel } = await withMember(3);
    broker.lose('other.4');
    broker.announce(broker.append(ROOM));
    await settled();
    expect(transport.events).toEqual([
      { event: 'gap', room: 'a', after: 3, next: 1, epoch: 'other.4' },
      { event: 'chat', content: 1, id: 1 },
    ]);
    expect(channel.position).toEqual({ epoch: 'other.4', id: 1 });
  });

  it('is told when the heads are compared, with nothing published yet', async () => {
    const { broker, hub, transport } = await withMember(3);
    broker.lose('other.4');
    hub.onHead(ROOM, broker.currentHead);
    await settled();
    expect(transport.events).toEqual([{ event: 'gap', room: 'a', after: 3, next: 1, epoch: 'other.0' }]);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport).slice(1)).toEqual([1]);
  });

  it('is told also where it has come to the same id', async () => {
    const { broker, hub, transport } = await withMember(3);
    broker.lose('other.4');
    for (let count = 0; count < 3; count += 1) broker.append(ROOM);
    hub.onHead(ROOM, broker.currentHead);
    await settled();
    expect(transport.events[0]).toEqual({ event: 'gap', room: 'a', after: 3, next: 1, epoch: 'other.4' });
    expect(ids(transport).slice(1)).toEqual([1, 2, 3]);
  });

  it('is told where the same id comes next, and that event is not taken for the next', async () => {
    const { broker, transport } = await withMember(3);
    broker.lose('other.4');
    for (let count = 0; count < 3; count += 1) broker.append(ROOM);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(transport.events.map(({ event, id }) => id ?? event)).toEqual(['gap', 1, 2, 3, 4]);
  });
});

describe('an event that no log will ever have', () => {
  it('is given up after one look: the last of a life that is over', async () => {
    const { broker, transport } = await withMember();
    broker.announce(broker.append(ROOM));
    broker.append(ROOM);
    const last = broker.append(ROOM);
    broker.lose('other.4');
    broker.announce(last);
    await settled();
    expect(broker.asked.length).toBeLessThan(4);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(transport.events.map(({ event, epoch, id }) => [event, epoch ?? id])).toEqual([
      ['chat', 1],
      ['gap', expect.stringMatching(/^other\./)],
      ['chat', 1],
    ]);
  });

  it('is given up after one look: one that is ahead of everything', async () => {
    const { broker, transport } = await withMember();
    broker.announce(broker.append(ROOM));
    broker.announce(eventAt(ROOM, 'life.1', 1_000_000));
    await settled();
    expect(broker.asked).toHaveLength(1);
    broker.announce(broker.append(ROOM));
    await settled();
    expect(ids(transport)).toEqual([1, 2]);
  });
});

describe('a replay', () => {
  it('that can’t go on for another reason than the broker ends the connection: it would miss events', async () => {
    const { broker, hub, channel, faults } = await withMember(300);
    const { connection, transport } = connect('bob');
    const entry = await hub.prepare(channel, connection, { kind: 'resume', id: 0, epoch: undefined });
    const fault = new TypeError('not expected');
    broker.failures.history.push(fault);
    entry.enter();
    await settled();
    expect(faults).toEqual([fault]);
    expect(transport.closes).toEqual([CLOSE.internal]);
  });
});

describe('a channel of the hub', () => {
  it('is subscribed for the first holder and unsubscribed after the last one', async () => {
    const { broker, hub } = setUp();
    const held = await Promise.all([hub.acquire(ROOM), hub.acquire(ROOM), hub.acquire(ROOM)]);
    expect(new Set(held).size).toBe(1);
    expect(broker.subscribed).toEqual([ROOM]);
    for (const channel of held) {
      expect(broker.unsubscribed).toEqual([]);
      hub.release(channel);
    }
    expect(broker.unsubscribed).toEqual([ROOM]);
    expect(hub.channelCount).toBe(0);
    expect(hub.get(ROOM)).toBeUndefined();
  });

  it('is another one for those who come after the last has gone', async () => {
    const { broker, hub } = setUp();
    const first = await hub.acquire(ROOM);
    hub.release(first);
    broker.append(ROOM);
    const second = await hub.acquire(ROOM);
    expect(second).not.toBe(first);
    expect(second.position).toEqual({ epoch: 'life.1', id: 1 });
    expect(broker.subscribed).toEqual([ROOM, ROOM]);
  });

  it('is live for the second holder when it is for the first', async () => {
    const { broker, hub } = setUp();
    broker.hold = new Deferred();
    const opened: string[] = [];
    const both = ['first', 'second'].map(async (name) => {
      await hub.acquire(ROOM);
      opened.push(name);
    });
    await settled();
    expect(opened).toEqual([]);
    broker.hold.resolve();
    await Promise.all(both);
    expect(opened).toEqual(['first', 'second']);
  });

  it('keeps live events back while it is opened, and none of them is lost or doubled', async () => {
    const { broker, hub } = setUp();
    for (let count = 0; count < 5; count += 1) broker.append(ROOM);
    broker.hold = new Deferred();
    const opening = hub.acquire(ROOM);
    const early = connect('alice');
    await settled();
    hub.get(ROOM)?.add(early.connection);
    // 4 and 5 are under the head that was read, 6 and 7 come after it was read.
    for (const event of broker.log.slice(3)) broker.announce(event);
    for (let count = 0; count < 2; count += 1) broker.announce(broker.append(ROOM));
    await settled();
    expect(early.transport.texts).toEqual([]);
    broker.hold.resolve();
    await opening;
    await settled();
    expect(ids(early.transport)).toEqual([6, 7]);
    expect(broker.asked).toEqual([]);
  });

  it('rejects for everyone who waits when it can’t be subscribed, and leaves nothing behind', async () => {
    const { broker, hub } = setUp();
    broker.failures.subscribe.push(new BrokerUnavailable());
    const results = await Promise.allSettled([hub.acquire(ROOM), hub.acquire(ROOM)]);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(hub.channelCount).toBe(0);
    await expect(hub.acquire(ROOM)).resolves.toMatchObject({ name: ROOM, holds: 1 });
  });

  it('gives the subscription back when its head can’t be read', async () => {
    const { broker, hub } = setUp();
    broker.failures.head.push(new BrokerUnavailable());
    await expect(hub.acquire(ROOM)).rejects.toBeInstanceOf(BrokerUnavailable);
    expect([broker.subscribed, broker.unsubscribed]).toEqual([[ROOM], [ROOM]]);
    expect(hub.channelCount).toBe(0);
  });

  it('counts as a room where it is one and somebody is in it', async () => {
    const { hub } = setUp();
    join(await hub.acquire('broadcast'), 'alice');
    join(await hub.acquire('user:room:x'), 'alice');
    expect([hub.roomCount, hub.channelCount]).toEqual([0, 2]);
    const channel = await hub.acquire(ROOM);
    join(channel, 'alice');
    expect([hub.roomCount, hub.channelCount]).toEqual([1, 3]);
    hub.release(channel);
    expect([hub.roomCount, hub.channelCount]).toEqual([0, 2]);
  });
});
