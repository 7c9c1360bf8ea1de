import { describe, expect, it } from 'vitest';
import { Connection } from '../../src/core/connection.js';
import { frameText } from '../../src/core/frame.js';
import { Turn } from '../../src/core/turn.js';
import { CLOSE } from '../../src/protocol/close-codes.js';
import { connect, Deferred, FakeTransport, identityOf, settled } from './fakes.js';

describe('joins and leaves of one channel', () => {
  it('run at once where none is under way', () => {
    const { connection } = connect('alice');
    const ran: string[] = [];
    void connection.change('room:a', async () => ran.push('change'));
    expect(ran).toEqual(['change']);
    expect(connection.after('room:b', () => 'value')).toBe('value');
  });

  it('hold up nothing when they are done at once', () => {
    const { connection } = connect('alice');
    expect(connection.change('room:a', () => 'joined')).toBe('joined');
    expect(connection.change('room:a', () => 'left')).toBe('left');
    expect(connection.after('room:a', () => 'message')).toBe('message');
    expect(() =>
      connection.change('room:a', () => {
        throw new Error('too many rooms');
      }),
    ).toThrow('too many rooms');
    expect(connection.after('room:a', () => 'message')).toBe('message');
  });

  it('take effect in the order in which they were asked', async () => {
    const { connection } = connect('alice');
    const ran: string[] = [];
    const first = new Deferred<void>();
    const steps: unknown[] = [
      connection.change('room:a', async () => {
        ran.push('join begins');
        await first.promise;
        ran.push('join ends');
      }),
      connection.after('room:a', () => ran.push('message')),
      connection.change('room:a', async () => {
        ran.push('leave');
      }),
      connection.after('room:a', () => ran.push('late message')),
      connection.change('room:a', async () => {
        ran.push('join again');
      }),
    ];
    await settled();
    expect(ran).toEqual(['join begins']);
    first.resolve();
    await Promise.all(steps);
    expect(ran).toEqual(['join begins', 'join ends', 'message', 'leave', 'late message', 'join again']);
  });

  it('do not hold up messages of another channel', async () => {
    const { connection } = connect('alice');
    const slow = new Deferred<void>();
    const change = connection.change('room:a', () => slow.promise);
    expect(connection.after('room:b', () => 'now')).toBe('now');
    slow.resolve();
    await change;
  });

  it('that fail do so for the one who asked, and what waits goes on', async () => {
    const { connection } = connect('alice');
    const slow = new Deferred<void>();
    const failing = connection.change('room:a', () => slow.promise);
    const message = connection.after('room:a', () => 'message');
    const next = connection.change('room:a', async () => 'joined');
    slow.reject(new Error('no broker'));
    await expect(failing).rejects.toThrow('no broker');
    expect(await Promise.all([message, next])).toEqual(['message', 'joined']);
  });

  it('hand the failure of a waiting step to that step alone', async () => {
    const { connection } = connect('alice');
    const slow = new Deferred<void>();
    const change = connection.change('room:a', () => slow.promise);
    const message = connection.after('room:a', () => {
      throw new Error('not a member');
    });
    slow.resolve();
    await expect(message).rejects.toThrow('not a member');
    await expect(change).resolves.toBeUndefined();
  });

  it('leave later messages free again once they are done', async () => {
    const { connection } = connect('alice');
    await connection.change('room:a', async () => undefined);
    await settled();
    expect(connection.after('room:a', () => 'at once')).toBe('at once');
  });
});

describe('back-pressure', () => {
  it('stops reading at 1000 messages under way and goes on at 500', () => {
    const { connection, transport } = connect('alice');
    for (let count = 0; count < 999; count += 1) connection.begin();
    expect(transport.pauses).toEqual([]);
    connection.begin();
    expect([transport.pauses, connection.isPaused]).toEqual([[true], true]);
    for (let count = 0; count < 499; count += 1) connection.end(5);
    expect(transport.pauses).toEqual([true]);
    connection.end(7);
    expect([transport.pauses, connection.isPaused]).toEqual([[true, false], false]);
  });

  it('pauses once, however many more come', () => {
    const { connection, transport } = connect('alice');
    for (let count = 0; count < 3_000; count += 1) connection.begin();
    expect(transport.pauses).toEqual([true]);
  });

  it('counts the pause as no silence of the client', () => {
    const { connection } = connect('alice', { nowMs: 1 });
    for (let count = 0; count < 1_000; count += 1) connection.begin();
    for (let count = 0; count < 500; count += 1) connection.end(4_711);
    expect(connection.lastSeenMs).toBe(4_711);
  });

  it('counts messages that wait in order as under way', () => {
    const { connection, transport } = connect('alice');
    connection.inbox = [];
    for (let count = 0; count < 1_000; count += 1) connection.enqueue(`${count}`);
    expect(connection.inbox).toHaveLength(1_000);
    expect(transport.pauses).toEqual([true]);
  });

  it('does not end the pause of a connection that is not open yet', () => {
    const { connection, transport } = connect('alice');
    connection.state = 'opening';
    connection.pause(true);
    connection.begin();
    connection.end(1);
    expect(transport.pauses).toEqual([true]);
  });
});

describe('closing', () => {
  it('sends what waits, then the close frame, and nothing after it', async () => {
    const { connection, transport } = connect('alice');
    connection.sendText('last words');
    connection.close(CLOSE.restart);
    expect(transport.texts).toEqual(['last words']);
    expect(transport.closes).toEqual([{ code: 1012, reason: 'restart' }]);
    connection.sendText('too late');
    connection.send({ event: 'pong' });
    connection.push(frameText('too late'));
    await settled();
    expect(transport.texts).toEqual(['last words']);
  });

  it('happens once, with the first reason', () => {
    const { connection, transport } = connect('alice');
    connection.close(CLOSE.unauthorized);
    connection.close(CLOSE.restart);
    expect(transport.closes).toEqual([CLOSE.unauthorized]);
    expect([connection.closeCode, connection.state]).toEqual([4001, 'closing']);
  });

  it('does not happen to a connection that is closed', () => {
    const { connection, transport } = connect('alice');
    connection.state = 'closed';
    connection.close(CLOSE.restart);
    expect([transport.closes, connection.isGone]).toEqual([[], true]);
  });

  it('with 4008 is what a slow consumer gets, without what it left unread', async () => {
    const { connection, transport } = connect('alice', { slowConsumerBytes: 1_000 });
    transport.queuedBytes = 1_001;
    connection.sendText('unread');
    await settled();
    expect(transport.closes).toEqual([CLOSE.slowConsumer]);
    expect(transport.texts).toEqual([]);
  });

  it('by a cut drops what waits', async () => {
    const { connection, transport } = connect('alice');
    connection.sendText('unsent');
    connection.terminate();
    await settled();
    expect([transport.terminated, transport.texts]).toEqual([1, []]);
  });
});

describe('a connection', () => {
  it('is opening at first, and neither open nor gone', () => {
    const limits = { slowConsumerBytes: 1_000 };
    const identity = identityOf('alice', { name: 'Alice' });
    const transport = new FakeTransport();
    const connection = new Connection('c1', identity, '::1', 'never', transport, new Turn(), limits, 42);
    expect(connection).toMatchObject({ state: 'opening', userId: 'alice', lastSeenMs: 42, closeCode: 0 });
    expect([connection.isOpen, connection.isGone]).toEqual([false, false]);
  });

  it('says everything of one turn in one write', async () => {
    const { connection, transport } = connect('alice');
    connection.send({ event: 'pong', ref: 1 });
    connection.sendText('{"event":"ack"}');
    connection.push(frameText('{"event":"chat"}'));
    await settled();
    expect(transport.writes).toHaveLength(1);
    expect(transport.texts).toEqual(['{"event":"pong","ref":1}', '{"event":"ack"}', '{"event":"chat"}']);
  });
});
