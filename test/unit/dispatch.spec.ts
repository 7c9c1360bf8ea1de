import 'reflect-metadata';
import type {
  ArgumentsHost,
  CanActivate,
  ExceptionFilter,
  ExecutionContext,
  PipeTransform,
} from '@nestjs/common';
import { Catch, Injectable, Logger, UseFilters, UseGuards, UseInterceptors, UsePipes } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { Test } from '@nestjs/testing';
import { ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { IsString } from 'class-validator';
import { describe, expect, it } from 'vitest';
import { Connection } from '../../src/core/connection.js';
import { Telemetry } from '../../src/core/telemetry.js';
import { Dispatcher } from '../../src/gateway/dispatch.js';
import { ErrorFilter } from '../../src/gateway/error.filter.js';
import { InOrder, MessageRef, PLAIN_TEXT } from '../../src/gateway/message-decorators.js';
import { MessagePipe } from '../../src/gateway/message.pipe.js';
import { ProtocolError } from '../../src/protocol/errors.js';
import type { ConnectionOptions } from './fakes.js';
import { connect, Deferred, FakeTelemetry, settled } from './fakes.js';

const Marked = Reflector.createDecorator<string>();

class SayDto {
  @IsString() text: string;
}

@Injectable()
class Guard implements CanActivate {
  readonly asked: string[] = [];

  constructor(private readonly reflector: Reflector) {}

  canActivate(context: ExecutionContext): boolean {
    const ws = context.switchToWs();
    const { text } = ws.getData<{ text?: unknown }>();
    this.asked.push(
      `${this.reflector.get(Marked, context.getHandler()) ?? 'none'} ${ws.getClient<Connection>().userId}`,
    );
    if (text === 'boom') throw new ProtocolError('forbidden', 'The guard says why.');
    return text !== 'no';
  }
}

@WebSocketGateway()
@UseGuards(Guard)
@UsePipes(MessagePipe)
@UseFilters(ErrorFilter)
class Gateway {
  readonly ran: string[] = [];
  readonly slow = new Deferred<void>();
  readonly prefix = 'heard';

  @SubscribeMessage('say')
  @Marked('marked')
  say(@ConnectedSocket() connection: Connection, @MessageBody() message: SayDto): unknown {
    this.ran.push(`${this.prefix} ${connection.userId} ${message.text} ${message instanceof SayDto}`);
    return { event: 'ack', id: 7 };
  }

  @SubscribeMessage('swapped')
  swapped(
    @MessageBody() message: SayDto,
    @MessageRef() ref: unknown,
    @ConnectedSocket() connection: Connection,
  ): unknown {
    return { event: 'pong', heard: [message.text, ref, connection.id] };
  }

  @SubscribeMessage('later')
  async later(@MessageBody() message: SayDto): Promise<unknown> {
    await this.slow.promise;
    this.ran.push(message.text);
    return { event: 'pong', text: message.text };
  }

  @SubscribeMessage('auth')
  @InOrder()
  async auth(@MessageBody() message: SayDto): Promise<unknown> {
    this.ran.push('auth begins');
    await this.slow.promise;
    this.ran.push('auth ends');
    if (message.text === 'wrong') throw new ProtocolError('unauthorized');
    return { event: 'ack' };
  }

  @SubscribeMessage('fail')
  fail(): never {
    throw new TypeError('with a secret inside');
  }

  @SubscribeMessage('reject')
  async reject(): Promise<never> {
    throw new ProtocolError('not_in_room');
  }

  @SubscribeMessage('quiet')
  quiet(): void {
    this.ran.push('quiet');
  }

  @SubscribeMessage(PLAIN_TEXT)
  plain(@MessageBody() text: string): void {
    this.ran.push(`plain ${text}`);
  }

  notAHandler(): string {
    return 'never called';
  }
}

async function setUp<T extends object>(
  gateway: new () => T,
  more: (new (...args: never[]) => object)[] = [],
) {
  const telemetry = new FakeTelemetry();
  const module = await Test.createTestingModule({
    providers: [
      gateway,
      Guard,
      MessagePipe,
      ErrorFilter,
      Dispatcher,
      ...more,
      { provide: Telemetry, useValue: telemetry },
    ],
  }).compile();
  // What nobody expects is logged, and here it is expected.
  Logger.overrideLogger(false);
  return {
    dispatcher: module.get(Dispatcher),
    gateway: module.get(gateway),
    guard: module.get(Guard),
    telemetry,
  };
}

async function booted(options: ConnectionOptions = {}) {
  const world = await setUp(Gateway);
  world.dispatcher.register(world.gateway);
  const { connection, transport } = connect('alice', options);
  const send = (...messages: (object | string)[]): void => {
    for (const message of messages)
      world.dispatcher.dispatch(connection, typeof message === 'string' ? message : JSON.stringify(message));
  };
  return { ...world, connection, transport, send };
}

describe('the dispatcher', () => {
  it('knows the types that the gateway’s decorators name, and no others', async () => {
    const { transport, send } = await booted();
    const others = ['notAHandler', 'Say', 'say ', 'text'];
    const known = ['say', 'swapped', 'later', 'fail', 'reject', 'quiet', 'auth'];
    for (const type of [...others, ...known]) send({ type, ref: type, text: 'a' });
    await settled();
    const unknown = transport.events.filter(({ code }) => code === 'unknown_type').map(({ ref }) => ref);
    expect(unknown).toEqual(others);
  });

  it('calls the method on its gateway, with what its parameters ask for', async () => {
    const { gateway, transport, connection, send } = await booted();
    send({ type: 'say', text: 'hi' }, { type: 'swapped', text: 'ho', ref: 'r' });
    await settled();
    expect(gateway.ran).toEqual(['heard alice hi true']);
    expect(transport.events).toEqual([{ event: 'pong', ref: 'r', heard: ['ho', 'r', connection.id] }]);
  });

  it('asks the guard first, which sees the decorators of the method', async () => {
    const { guard, gateway, transport, send } = await booted();
    send({ type: 'say', text: 'no', ref: 1 }, { type: 'quiet', text: 'boom' }, { type: 'say', text: 7 });
    await settled();
    expect(guard.asked).toEqual(['marked alice', 'none alice', 'marked alice']);
    expect(gateway.ran).toEqual([]);
    expect(transport.events).toEqual([
      { event: 'error', ref: 1, code: 'forbidden', message: 'The token does not allow this.' },
      { event: 'error', code: 'forbidden', message: 'The guard says why.' },
      expect.objectContaining({
        code: 'invalid_message',
        details: [{ field: 'text', problem: 'must be a string' }],
      }),
    ]);
  });

  it('answers an ack only to those who gave a ref, and puts it after the event', async () => {
    const { transport, send } = await booted();
    send(
      { type: 'say', text: 'a' },
      { type: 'say', text: 'b', ref: 0 },
      { type: 'say', text: 'c', ref: 'r' },
    );
    await settled();
    expect(transport.texts).toEqual(['{"event":"ack","ref":0,"id":7}', '{"event":"ack","ref":"r","id":7}']);
  });

  it('answers another reply in any case, and nothing where the method returns nothing', async () => {
    const { transport, send } = await booted();
    send({ type: 'swapped', text: 'a' }, { type: 'quiet', ref: 1 });
    await settled();
    expect(transport.events.map(({ event }) => event)).toEqual(['pong']);
  });

  it.each([
    ['no JSON', 'hello', { code: 'invalid_json' }],
    ['no object', '[]', { code: 'invalid_message' }],
    ['no type', '{"ref":3}', { code: 'invalid_message', ref: 3 }],
    ['a type that nobody has', '{"type":"nope","ref":3}', { code: 'unknown_type', ref: 3 }],
    ['the name of a method that is no handler', '{"type":"notAHandler"}', { code: 'unknown_type' }],
    ['a name that every object has', '{"type":"constructor"}', { code: 'unknown_type' }],
    ['the prototype', '{"type":"__proto__"}', { code: 'unknown_type' }],
    ['the mark of plain text', JSON.stringify({ type: PLAIN_TEXT }), { code: 'unknown_type' }],
    ['a ref that is none', '{"type":"quiet","ref":1.5}', { code: 'invalid_message' }],
    ['a ref that is null', '{"type":"quiet","ref":null}', { code: 'invalid_message' }],
    ['a ref that is too long', `{"type":"quiet","ref":"${'x'.repeat(65)}"}`, { code: 'invalid_message' }],
  ])('answers one error to %s', async (_what, frame, error) => {
    const { transport, gateway, send } = await booted();
    send(frame);
    await settled();
    expect(transport.events).toEqual([expect.objectContaining({ event: 'error', ...error })]);
    expect(Object.hasOwn(transport.events[0] ?? {}, 'ref')).toBe('ref' in error);
    expect(gateway.ran).toEqual([]);
  });

  it('answers what a method throws with one error that tells nothing of the inside', async () => {
    const { transport, send, telemetry } = await booted();
    send({ type: 'fail', ref: 1 }, { type: 'reject', ref: 2 });
    await settled();
    expect(transport.events).toEqual([
      { event: 'error', ref: 1, code: 'internal', message: 'Something went wrong inside the gateway.' },
      {
        event: 'error',
        ref: 2,
        code: 'not_in_room',
        message: 'This connection is not a member of the room.',
      },
    ]);
    expect([telemetry.count('errorSent internal'), telemetry.count('errorSent not_in_room')]).toEqual([1, 1]);
  });

  it('counts what it got by the type it knows, and everything else under one name', async () => {
    const { send, telemetry } = await booted({ plainText: 'otherwise' });
    send({ type: 'quiet' }, { type: 'quiet' }, { type: 'made up' }, '{"type":"quiet","ref":[]}', 'text');
    await settled();
    expect(telemetry.counted.filter((name) => name.startsWith('messageReceived'))).toEqual([
      'messageReceived quiet',
      'messageReceived quiet',
      'messageReceived unknown',
      'messageReceived invalid',
      'messageReceived text',
    ]);
  });

  it.each([
    ['never', 'hello', []],
    ['otherwise', 'hello', ['plain hello']],
    ['otherwise', '[1]', ['plain [1]']],
    ['otherwise', '{"no":"type"}', ['plain {"no":"type"}']],
    ['otherwise', '{"type":7}', ['plain {"type":7}']],
    ['otherwise', '{"type":"quiet"}', ['quiet']],
    ['always', '{"type":"quiet"}', ['plain {"type":"quiet"}']],
  ] as const)('hands on plain text where the connection %s has it: %s', async (plainText, frame, ran) => {
    const { gateway, send } = await booted({ plainText });
    send(frame);
    await settled();
    expect(gateway.ran).toEqual(ran);
  });

  it('lets messages that take their time run side by side, and counts them as under way', async () => {
    const { connection, gateway, transport, send } = await booted();
    for (let count = 0; count < 1_000; count += 1) send({ type: 'later', text: `${count}` });
    expect(connection.isPaused).toBe(true);
    gateway.slow.resolve();
    await settled();
    expect(connection.isPaused).toBe(false);
    expect(transport.events.map(({ text }) => text)).toEqual(
      Array.from({ length: 1_000 }, (_, at) => `${at}`),
    );
  });
});

describe('a message that is taken in order', () => {
  it('holds back what comes later until it is done', async () => {
    const { gateway, send, connection } = await booted();
    send({ type: 'auth', text: 'a' }, { type: 'say', text: 'b' }, { type: 'quiet' });
    await settled();
    expect(gateway.ran).toEqual(['auth begins']);
    gateway.slow.resolve();
    await settled();
    expect(gateway.ran).toEqual(['auth begins', 'auth ends', 'heard alice b true', 'quiet']);
    expect(connection.inbox).toBeNull();
  });

  it('holds back the next one of its kind, and that one what comes after', async () => {
    const { gateway, send } = await booted();
    send({ type: 'auth', text: 'a' }, { type: 'auth', text: 'b' }, { type: 'quiet' });
    gateway.slow.resolve();
    await settled();
    expect(gateway.ran).toEqual(['auth begins', 'auth ends', 'auth begins', 'auth ends', 'quiet']);
  });

  it('lets go what waits when it fails', async () => {
    const { gateway, transport, send } = await booted();
    send({ type: 'auth', text: 'wrong', ref: 1 }, { type: 'quiet' }, 'not json');
    gateway.slow.resolve();
    await settled();
    expect(gateway.ran.at(-1)).toBe('quiet');
    expect(transport.events.map(({ code }) => code)).toEqual(['unauthorized', 'invalid_json']);
  });

  it('is the last one that a connection gets to see which is closed meanwhile', async () => {
    const { gateway, connection, send } = await booted();
    send({ type: 'auth', text: 'a' }, { type: 'quiet' });
    connection.close({ code: 1012, reason: 'restart' });
    gateway.slow.resolve();
    await settled();
    expect(gateway.ran).toEqual(['auth begins', 'auth ends']);
  });

  it('does not hold back another connection', async () => {
    const { dispatcher, gateway, send } = await booted();
    send({ type: 'auth', text: 'a' });
    dispatcher.dispatch(connect('bob').connection, '{"type":"quiet"}');
    expect(gateway.ran).toEqual(['auth begins', 'quiet']);
    gateway.slow.resolve();
    await settled();
  });

  it('leaves the count of what is under way at zero', async () => {
    const { gateway, connection, transport, send } = await booted();
    send({ type: 'auth', text: 'a' });
    for (let count = 0; count < 2_000; count += 1) send({ type: 'quiet' });
    expect(transport.pauses).toEqual([true]);
    gateway.slow.resolve();
    await settled();
    expect(transport.pauses).toEqual([true, false]);
    for (let count = 0; count < 999; count += 1) connection.begin();
    expect(transport.pauses).toEqual([true, false]);
    connection.begin();
    expect(transport.pauses).toEqual([true, false, true]);
  });
});

describe('a guard that has to ask somebody', () => {
  const answers = new Map<string, Deferred<boolean>>();

  @Injectable()
  class AskingGuard implements CanActivate {
    canActivate(context: ExecutionContext): boolean | Promise<boolean> {
      const { text } = context.switchToWs().getData<{ text: string }>();
      return answers.get(text)?.promise ?? true;
    }
  }

  @WebSocketGateway()
  @UseFilters(ErrorFilter)
  @UseGuards(AskingGuard, Guard)
  class Guarded {
    readonly ran: string[] = [];
    readonly slow = new Deferred<void>();

    @SubscribeMessage('say')
    say(@MessageBody() message: { text: string }): unknown {
      this.ran.push(message.text);
      return { event: 'ack' };
    }

    @SubscribeMessage('auth')
    @InOrder()
    async auth(): Promise<unknown> {
      this.ran.push('auth begins');
      await this.slow.promise;
      this.ran.push('auth ends');
      return { event: 'ack' };
    }
  }

  async function guarded(...waiting: string[]) {
    answers.clear();
    for (const text of waiting) answers.set(text, new Deferred());
    const world = await setUp(Guarded, [AskingGuard]);
    world.dispatcher.register(world.gateway);
    const { connection, transport } = connect('alice');
    const send = (...messages: object[]): void => {
      for (const message of messages) world.dispatcher.dispatch(connection, JSON.stringify(message));
    };
    return { ...world, connection, transport, send };
  }

  it('holds back what comes later, so that the order stays', async () => {
    const { gateway, send } = await guarded('a', 'c');
    send(
      { type: 'say', text: 'a' },
      { type: 'say', text: 'b' },
      { type: 'say', text: 'c' },
      { type: 'say', text: 'd' },
    );
    await settled();
    expect(gateway.ran).toEqual([]);
    answers.get('a')?.resolve(true);
    await settled();
    expect(gateway.ran).toEqual(['a', 'b']);
    answers.get('c')?.resolve(true);
    await settled();
    expect(gateway.ran).toEqual(['a', 'b', 'c', 'd']);
  });

  it('is followed by the guards after it', async () => {
    const { guard, gateway, send } = await guarded('a');
    send({ type: 'say', text: 'a' });
    expect(guard.asked).toEqual([]);
    answers.get('a')?.resolve(true);
    await settled();
    expect([guard.asked, gateway.ran]).toEqual([['none alice'], ['a']]);
  });

  it.each([
    ['no', (answer: Deferred<boolean>) => answer.resolve(false), 'forbidden'],
    ['a failure', (answer: Deferred<boolean>) => answer.reject(new Error('down')), 'internal'],
  ])('lets go what waits after %s', async (_what, answer, code) => {
    const { gateway, transport, send } = await guarded('a');
    send({ type: 'say', text: 'a', ref: 1 }, { type: 'say', text: 'b', ref: 2 });
    answer(answers.get('a') ?? new Deferred());
    await settled();
    expect(gateway.ran).toEqual(['b']);
    expect(transport.events.map(({ event, code: is, ref }) => [ref, is ?? event])).toEqual([
      [1, code],
      [2, 'ack'],
    ]);
  });

  it('of a message in order keeps the others waiting until that is done', async () => {
    const { gateway, connection, send } = await guarded('a');
    send({ type: 'auth', text: 'a' }, { type: 'say', text: 'b' });
    answers.get('a')?.resolve(true);
    await settled();
    send({ type: 'say', text: 'c' });
    expect(gateway.ran).toEqual(['auth begins']);
    gateway.slow.resolve();
    await settled();
    expect(gateway.ran).toEqual(['auth begins', 'auth ends', 'b', 'c']);
    expect(connection.inbox).toBeNull();
  });

  it('does nothing for a connection that is closed meanwhile', async () => {
    const { gateway, connection, send } = await guarded('a');
    send({ type: 'say', text: 'a' }, { type: 'say', text: 'b' });
    connection.close({ code: 1012, reason: 'restart' });
    answers.get('a')?.resolve(true);
    await settled();
    expect(gateway.ran).toEqual([]);
  });
});

describe('at boot the dispatcher refuses', () => {
  class Interceptor {
    intercept(): never {
      throw new Error('not run');
    }
  }

  @WebSocketGateway()
  @UseFilters(ErrorFilter)
  class InterceptedMethod {
    @SubscribeMessage('a')
    @UseInterceptors(Interceptor)
    a(): void {
      throw new Error('not run');
    }
  }

  @WebSocketGateway()
  @UseFilters(ErrorFilter)
  @UseInterceptors(Interceptor)
  class InterceptedClass {
    @SubscribeMessage('a')
    a(): void {
      throw new Error('not run');
    }
  }

  @WebSocketGateway()
  @UseFilters(ErrorFilter)
  class FieldOfTheBody {
    @SubscribeMessage('a')
    a(@MessageBody('content') content: unknown): void {
      throw new Error(`not run with ${String(content)}`);
    }
  }

  @WebSocketGateway()
  class Unfiltered {
    @SubscribeMessage('a')
    a(): void {
      throw new Error('not run');
    }
  }

  @Catch()
  class OtherFilter implements ExceptionFilter {
    catch(_exception: unknown, host: ArgumentsHost): void {
      host.switchToWs().getClient<Connection>().sendText('"filtered"');
    }
  }

  @WebSocketGateway()
  @UseFilters(ErrorFilter, OtherFilter)
  class TwiceFiltered {
    @SubscribeMessage('a')
    a(): void {
      throw new Error('not run');
    }
  }

  it.each([
    [
      'interceptors of a method',
      InterceptedMethod,
      'InterceptedMethod.a: interceptors are not run for messages',
    ],
    [
      'interceptors of the gateway',
      InterceptedClass,
      'InterceptedClass.a: interceptors are not run for messages',
    ],
    [
      'parameters it can’t fill',
      FieldOfTheBody,
      'FieldOfTheBody.a: parameter 0 is of a kind that is not supported',
    ],
    ['a gateway without a filter', Unfiltered, 'Unfiltered needs exactly one filter'],
    ['a gateway with two filters', TwiceFiltered, 'TwiceFiltered needs exactly one filter'],
  ])('%s', async (_what, type, message) => {
    const { dispatcher, gateway } = await setUp<object>(type, [Interceptor, OtherFilter]);
    expect(() => dispatcher.register(gateway)).toThrow(message);
  });

  it('nothing where filters, guards and pipes are given as objects', async () => {
    const upper: PipeTransform = {
      transform: (message: { text: string }) => ({ text: message.text.toUpperCase() }),
    };
    const guard: CanActivate = { canActivate: () => true };

    @WebSocketGateway()
    @UseFilters(new OtherFilter())
    class Plain {
      @SubscribeMessage('a')
      @UseGuards(guard)
      @UsePipes(upper)
      a(@MessageBody() message: SayDto): unknown {
        if (message.text === 'FAIL') throw new Error('filtered');
        return { event: 'pong', text: message.text };
      }
    }

    const { dispatcher, gateway } = await setUp<object>(Plain);
    dispatcher.register(gateway);
    const { connection, transport } = connect('alice');
    for (const text of ['hi', 'fail']) dispatcher.dispatch(connection, JSON.stringify({ type: 'a', text }));
    await settled();
    expect(transport.texts).toEqual(['{"event":"pong","text":"HI"}', '"filtered"']);
  });
});

describe('the ref of a frame that is not handled', () => {
  it.each([
    ['{"type":"a","ref":"r"}', 'r'],
    ['{"ref":7}', 7],
    ['not json', undefined],
    ['['.repeat(100), undefined],
    [`{"ref":7,"a":${'['.repeat(100)}${']'.repeat(100)}}`, 7],
    [`{"a":${'['.repeat(30_000)}${']'.repeat(30_000)},"ref":8}`, 8],
  ])('of %s is %s', async (frame, ref) => {
    const { dispatcher } = await booted();
    expect(dispatcher.refOfText(frame)).toBe(ref);
  });
});
