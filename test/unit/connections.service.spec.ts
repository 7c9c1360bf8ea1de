import { Logger } from '@nestjs/common';
import { beforeEach, describe, expect, it } from 'vitest';
import { Instance } from '../../src/config/instance.js';
import { readSettings } from '../../src/config/settings.js';
import { ConnectionsService } from '../../src/connections/connections.service.js';
import { BrokerUnavailable } from '../../src/core/broker.js';
import type { Connection } from '../../src/core/connection.js';
import { Turn } from '../../src/core/turn.js';
import { MemoryAckedPositions } from '../../src/memory/memory-acked-positions.js';
import { PresenceService } from '../../src/presence/presence.service.js';
import { CLOSE } from '../../src/protocol/close-codes.js';
import {
  connect,
  Deferred,
  FakeBroker,
  FakePresenceStore,
  FakeTelemetry,
  FakeTransport,
  identityOf,
  settled,
} from './fakes.js';

const NOWHERE = { broadcast: null, direct: null };
const AFTER_1 = { kind: 'resume', id: 1, epoch: undefined } as const;

interface Opened {
  connection: Connection;
  transport: FakeTransport;
}

let broker: FakeBroker;
let connections: ConnectionsService;

beforeEach(() => {
  Logger.overrideLogger(false);
  broker = new FakeBroker();
  const settings = readSettings({ PRESENCE_GRACE_MS: '0' });
  connections = new ConnectionsService(
    broker,
    new MemoryAckedPositions(broker),
    new PresenceService(new FakePresenceStore(), settings),
    new FakeTelemetry(),
    settings,
    new Instance(),
    new Turn(),
  );
});

/** A connection that was just accepted, given to the service. */
function open(userId: string, resume: Parameters<ConnectionsService['open']>[1] = NOWHERE): Opened {
  const opened = connect(userId);
  opened.connection.state = 'opening';
  connections.open(opened.connection, resume);
  return opened;
}

/** How many hold each channel of the instance. */
function holds(...names: string[]): (number | undefined)[] {
  return names.map((name) => connections.hub.get(name)?.holds);
}

describe('a connection', () => {
  it('holds the broadcast channel and its own until it is closed', async () => {
    const { connection } = open('alice');
    await settled();
    expect(connection.state).toBe('open');
    expect(holds('broadcast', 'user:alice')).toEqual([1, 1]);
    connections.closed(connection);
    expect(connections.hub.channelCount).toBe(0);
    expect(connections.count).toBe(0);
  });

  it('that gets only one of its two channels gives that back, and is told to try again', async () => {
    open('alice');
    await settled();
    broker.failures.subscribe.push(new BrokerUnavailable());
    const { connection, transport } = open('bob');
    await settled();
    expect(transport.closes).toEqual([CLOSE.tryAgain]);
    expect(holds('broadcast', 'user:alice', 'user:bob')).toEqual([1, 1, undefined]);
    connections.closed(connection);
    expect(holds('broadcast', 'user:alice', 'user:bob')).toEqual([1, 1, undefined]);
  });

  it('that can’t be opened for another reason is told that it is ours', async () => {
    broker.failures.subscribe.push(new TypeError('not expected'));
    const { transport } = open('alice');
    await settled();
    expect(transport.closes).toEqual([CLOSE.internal]);
    expect(connections.hub.channelCount).toBe(0);
  });

  it('whose replay can’t be read gives back what it holds of both', async () => {
    open('alice');
    await settled();
    broker.append('broadcast');
    broker.failures.history.push(new BrokerUnavailable());
    const { transport } = open('alice', { broadcast: AFTER_1, direct: null });
    await settled();
    expect(transport.closes).toEqual([CLOSE.tryAgain]);
    expect(holds('broadcast', 'user:alice')).toEqual([1, 1]);
  });

  it('that has gone before it was open holds nothing', async () => {
    broker.hold = new Deferred();
    const { connection, transport } = open('alice');
    await settled();
    connections.closed(connection);
    broker.hold.resolve();
    await settled();
    expect(connections.hub.channelCount).toBe(0);
    expect(transport.texts).toEqual([]);
  });

  it('whose token ends before it was open is closed, and holds nothing', async () => {
    broker.hold = new Deferred();
    const { connection, transport } = open('alice');
    await settled();
    connection.identity = identityOf('alice', { expiresAtMs: Date.now() - 1 });
    broker.hold.resolve();
    await settled();
    expect(transport.closes).toEqual([CLOSE.unauthorized]);
    expect(connections.hub.channelCount).toBe(0);
  });
});

describe('a room', () => {
  const reply = (): void => undefined;

  it('that is open here is entered at once', async () => {
    const [first, second] = [open('alice'), open('bob')];
    await settled();
    await connections.enterRoom(first.connection, 'a', null, reply);
    let replied = 0;
    expect(connections.enterRoom(second.connection, 'a', null, () => (replied += 1))).toBeUndefined();
    expect(replied).toBe(1);
    expect(holds('room:a')).toEqual([2]);
  });

  it('that can’t be opened is none of the connection’s, and nobody holds it', async () => {
    const { connection } = open('alice');
    await settled();
    broker.failures.subscribe.push(new BrokerUnavailable());
    const entered = connections.enterRoom(connection, 'a', null, reply);
    expect(connection.rooms.size).toBe(1);
    await expect(entered).rejects.toBeInstanceOf(BrokerUnavailable);
    expect(connection.rooms.size).toBe(0);
    expect(holds('room:a')).toEqual([undefined]);
  });

  it('that a member goes on in from another point is held once', async () => {
    const { connection } = open('alice');
    await settled();
    await connections.enterRoom(connection, 'a', null, reply);
    broker.append('room:a');
    broker.append('room:a');
    await connections.enterRoom(connection, 'a', AFTER_1, reply);
    await settled();
    expect(holds('room:a')).toEqual([1]);
    connections.leaveRoom(connection, 'a');
    expect(holds('room:a')).toEqual([undefined]);
  });

  it('whose member has gone while it was opened is given back', async () => {
    const { connection } = open('alice');
    await settled();
    broker.hold = new Deferred();
    const entered = connections.enterRoom(connection, 'a', null, reply);
    connections.closed(connection);
    broker.hold.resolve();
    await entered;
    expect(connections.hub.channelCount).toBe(0);
  });
});
