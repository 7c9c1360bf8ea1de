import { createParamDecorator } from '@nestjs/common';
import type { ExecutionContext } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { refOf } from './message-parser.js';

/** Stands for a frame that is plain text on `/ws/:userId`; no message type can be it. */
export const PLAIN_TEXT = '\u0000text';

/** Later messages of the connection wait until this one is done. */
export const InOrder = Reflector.createDecorator<boolean, boolean>({ transform: () => true });

/** The `ref` of the message, for a handler that sends its reply itself. */
export const MessageRef = createParamDecorator((_: unknown, context: ExecutionContext) =>
  refOf(context.switchToWs().getData()),
);
