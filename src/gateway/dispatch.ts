import type { CanActivate, ExceptionFilter, PipeTransform, Type } from '@nestjs/common';
import { Injectable } from '@nestjs/common';
import {
  EXCEPTION_FILTERS_METADATA,
  GUARDS_METADATA,
  INTERCEPTORS_METADATA,
  PIPES_METADATA,
  ROUTE_ARGS_METADATA,
} from '@nestjs/common/constants.js';
import { MetadataScanner, ModuleRef, Reflector } from '@nestjs/core';
import { ExecutionContextHost } from '@nestjs/core/internal';
import { MESSAGE_METADATA } from '@nestjs/websockets/internal';
import { monotonicMs } from '../core/clock.js';
import type { Connection } from '../core/connection.js';
import { Telemetry } from '../core/telemetry.js';
import { ProtocolError } from '../protocol/errors.js';
import { InOrder, PLAIN_TEXT } from './message-decorators.js';
import type { ClientMessage } from './message-parser.js';
import { isMessage, parseJson, parseMessage, refOf } from './message-parser.js';

type Input = (connection: Connection, message: unknown, context: ExecutionContextHost) => unknown;

/** One `@SubscribeMessage` method, with everything its decorators say resolved at boot. */
interface Route {
  type: string;
  inputs: readonly Input[];
  guards: readonly CanActivate[];
  handler: (...args: unknown[]) => unknown;
  gateway: Type<object>;
  inOrder: boolean;
}

/** Kinds of parameters in Nest's metadata of a message handler. */
const SOCKET_PARAMETER = '0';
const PAYLOAD_PARAMETER = '3';
const REPLY_NAME_START = '{"event":"'.length;

interface ParameterMetadata {
  index: number;
  pipes?: unknown[];
  data?: unknown;
  factory?: (data: unknown, context: ExecutionContextHost) => unknown;
}

/**
 * Routes messages to the gateway's `@SubscribeMessage` methods by a table made once, at boot, from its decorators:
 * guards, then the pipe, then the method, errors to the filter, as Nest does, but in the order of arrival and without a
 * dozen promises for each message. What a decorator asks for and the table can't do fails at boot, not silently.
 */
@Injectable()
export class Dispatcher {
  private readonly routes = new Map<string, Route>();
  private plainText: Route | undefined;
  private filter: ExceptionFilter | undefined;

  constructor(
    private readonly modules: ModuleRef,
    private readonly reflector: Reflector,
    private readonly telemetry: Telemetry,
  ) {}

  /** Reads the decorators of a gateway. Throws where it uses what this dispatcher does not run. */
  register(gateway: object): void {
    const type = gateway.constructor as Type<object>;
    const prototype: object = Object.getPrototypeOf(gateway);
    const [filter, ...moreFilters] = this.resolve<ExceptionFilter>(EXCEPTION_FILTERS_METADATA, type);
    if (filter === undefined || moreFilters.length > 0)
      throw new Error(`${type.name} needs exactly one filter`);
    this.filter = filter;
    for (const name of new MetadataScanner().getAllMethodNames(prototype)) {
      const method: unknown = Reflect.get(prototype, name);
      if (typeof method !== 'function') continue;
      const message: unknown = Reflect.getMetadata(MESSAGE_METADATA, method);
      if (typeof message !== 'string') continue;
      const route = this.routeOf(gateway, type, name, method, message);
      if (message === PLAIN_TEXT) this.plainText = route;
      else this.routes.set(message, route);
    }
  }

  /** Handles one text frame. Never throws: what goes wrong is answered. */
  dispatch(connection: Connection, text: string): void {
    if (connection.inbox !== null) {
      connection.enqueue(text);
      return;
    }
    let route: Route | undefined;
    let message: ClientMessage | string = text;
    try {
      if (connection.plainText === 'always' || (connection.plainText === 'otherwise' && isPlainText(text))) {
        route = this.plainText;
      } else {
        const parsed = parseMessage(text);
        message = parsed;
        if (Object.hasOwn(parsed, 'ref') && refOf(parsed) === undefined) {
          const problem = 'must be an integer or a string of at most 64 characters';
          throw new ProtocolError('invalid_message', undefined, { details: [{ field: 'ref', problem }] });
        }
        route = this.routes.get(parsed.type);
      }
      if (route === undefined) throw new ProtocolError('unknown_type');
    } catch (error) {
      this.telemetry.messageReceived(
        error instanceof ProtocolError && error.code === 'unknown_type' ? 'unknown' : 'invalid',
      );
      this.fail(connection, typeof message === 'string' ? { ref: this.refOfText(text) } : message, error);
      return;
    }
    this.telemetry.messageReceived(route.type);
    this.run(connection, route, message);
  }

  /** The `ref` of a frame that is not going to be handled. */
  refOfText(text: string): ReturnType<typeof refOf> {
    return refOf(parseJson(text));
  }

  private run(connection: Connection, route: Route, message: ClientMessage | string): void {
    const context = new ExecutionContextHost([connection, message], route.gateway, route.handler);
    context.setType('ws');
    try {
      const verdict = this.admit(route, 0, context);
      if (verdict instanceof Promise || connection.verdicts !== null) {
        this.runInTurn(connection, route, message, context, verdict);
      } else if (verdict) this.handle(connection, route, message, context);
      else throw new ProtocolError('forbidden');
    } catch (error) {
      this.fail(connection, message, error);
    }
  }

  /** Asks the guards in order; synchronously as long as they answer so. */
  private admit(route: Route, from: number, context: ExecutionContextHost): boolean | Promise<boolean> {
    for (let at = from; at < route.guards.length; at += 1) {
      const verdict = route.guards[at]?.canActivate(context);
      if (verdict instanceof Promise) {
        return verdict.then((allowed) => allowed && this.admit(route, at + 1, context));
      }
      if (verdict !== true) return false;
    }
    return true;
  }

  /**
   * A guard of this message, or of one before it, has to ask somebody: guards ask at the same time, and the messages are
   * handled in the order in which they came.
   */
  private runInTurn(
    connection: Connection,
    route: Route,
    message: ClientMessage | string,
    context: ExecutionContextHost,
    verdict: boolean | Promise<boolean>,
  ): void {
    connection.begin();
    // Rights that this message changes are not asked for before it is done.
    if (route.inOrder) connection.inbox = [];
    const settled = Promise.resolve(verdict).then(
      (allowed) => (allowed ? null : new ProtocolError('forbidden')),
      (error: unknown) => error,
    );
    let isHeld = false;
    const turn: Promise<void> = Promise.all([settled, connection.verdicts])
      .then(([refusal]) => {
        if (refusal !== null) throw refusal;
        if (!connection.isGone) isHeld = this.handle(connection, route, message, context);
      })
      .catch((error: unknown) => this.fail(connection, message, error))
      .finally(() => {
        connection.end(monotonicMs());
        if (connection.verdicts === turn) connection.verdicts = null;
        if (route.inOrder && !isHeld) this.goOn(connection);
      });
    connection.verdicts = turn;
  }

  /** Calls the method; answers whether later messages have to wait for it. */
  private handle(
    connection: Connection,
    route: Route,
    message: ClientMessage | string,
    context: ExecutionContextHost,
  ): boolean {
    const result = route.handler(...route.inputs.map((input) => input(connection, message, context)));
    if (!(result instanceof Promise)) {
      this.reply(connection, message, result);
      return false;
    }
    connection.begin();
    if (route.inOrder) connection.inbox ??= [];
    result.then(
      (value: unknown) => {
        try {
          this.reply(connection, message, value);
        } catch (error) {
          this.fail(connection, message, error);
        }
        this.done(connection, route);
      },
      (error: unknown) => {
        this.fail(connection, message, error);
        this.done(connection, route);
      },
    );
    return route.inOrder;
  }

  private done(connection: Connection, route: Route): void {
    connection.end(monotonicMs());
    if (route.inOrder) this.goOn(connection);
  }

  /** What came while an in-order message was under way, until the next one of that kind. */
  private goOn(connection: Connection): void {
    const waiting = connection.inbox ?? [];
    connection.inbox = null;
    while (waiting.length > 0 && !connection.isGone) {
      // Held again by one of these: the rest keeps its place, before what comes later.
      if (connection.hold(waiting)) return;
      const text = waiting.shift();
      connection.end(monotonicMs());
      if (text !== undefined) this.dispatch(connection, text);
    }
  }

  /** An `ack` is only for those who asked for it by a `ref`; other replies are always sent. */
  private reply(connection: Connection, message: ClientMessage | string, value: unknown): void {
    if (!isReply(value)) return;
    const ref = refOf(message);
    if (ref === undefined && value.event === 'ack') return;
    const text = JSON.stringify(value);
    // The event's name comes first in every reply; the ref follows it.
    const nameEnd = REPLY_NAME_START + value.event.length + 1;
    connection.sendText(
      ref === undefined
        ? text
        : `${text.slice(0, nameEnd)},"ref":${JSON.stringify(ref)}${text.slice(nameEnd)}`,
    );
  }

  private fail(connection: Connection, message: ClientMessage | string, error: unknown): void {
    this.filter?.catch(error, new ExecutionContextHost([connection, message]));
  }

  private routeOf(gateway: object, type: Type<object>, name: string, method: object, message: string): Route {
    const handler = Reflect.get(gateway, name) as Route['handler'];
    for (const decorated of [type, method]) {
      if (Reflect.hasMetadata(INTERCEPTORS_METADATA, decorated)) {
        throw new Error(`${type.name}.${name}: interceptors are not run for messages`);
      }
    }
    if (Reflect.hasMetadata(EXCEPTION_FILTERS_METADATA, method)) {
      throw new Error(`${type.name}.${name}: filters belong to the class`);
    }
    const pipes = [
      ...this.resolve<PipeTransform>(PIPES_METADATA, type),
      ...this.resolve<PipeTransform>(PIPES_METADATA, method),
    ];
    const types = Reflect.getMetadata('design:paramtypes', gateway, name) as Type<object>[] | undefined;
    const parameters = Object.entries(
      (Reflect.getMetadata(ROUTE_ARGS_METADATA, type, name) ?? {}) as Record<string, ParameterMetadata>,
    ).sort(([, a], [, b]) => a.index - b.index);
    return {
      type: message === PLAIN_TEXT ? 'text' : message,
      inputs: parameters.map(([key, parameter]) =>
        inputOf(`${type.name}.${name}`, key, parameter, types?.[parameter.index], pipes),
      ),
      guards: [
        ...this.resolve<CanActivate>(GUARDS_METADATA, type),
        ...this.resolve<CanActivate>(GUARDS_METADATA, method),
      ],
      handler: bind(handler, gateway),
      gateway: type,
      inOrder: this.reflector.get(InOrder, handler) ?? false,
    };
  }

  private resolve<T extends object>(metadata: string, decorated: object): T[] {
    const given: unknown = Reflect.getMetadata(metadata, decorated) ?? [];
    if (!Array.isArray(given)) return [];
    return given.map((item: T | Type<T>) =>
      typeof item === 'function' ? this.modules.get(item, { strict: false }) : item,
    );
  }
}

/** Binds and keeps the metadata reachable: guards ask for the handler's decorators. */
function bind(handler: Route['handler'], gateway: object): Route['handler'] {
  const bound: Route['handler'] = handler.bind(gateway);
  for (const key of Reflect.getMetadataKeys(handler)) {
    Reflect.defineMetadata(key, Reflect.getMetadata(key, handler), bound);
  }
  return bound;
}

function inputOf(
  where: string,
  key: string,
  { data, factory, index, pipes: own = [] }: ParameterMetadata,
  metatype: Type<object> | undefined,
  pipes: readonly PipeTransform[],
): Input {
  if (factory !== undefined) return (_connection, _message, context) => factory(data, context);
  const [kind] = key.split(':');
  if (kind === SOCKET_PARAMETER) return (connection) => connection;
  if (kind !== PAYLOAD_PARAMETER || data !== undefined || own.length > 0)
    throw new Error(`${where}: parameter ${index} is of a kind that is not supported`);
  const argument = { type: 'body' as const, metatype };
  return (_connection, message) =>
    pipes.reduce((value: unknown, pipe) => pipe.transform(value, argument), message);
}

function isPlainText(text: string): boolean {
  return !isMessage(parseJson(text));
}

function isReply(value: unknown): value is { event: string } {
  return typeof value === 'object' && value !== null && 'event' in value;
}
