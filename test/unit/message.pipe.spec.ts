import type { Type } from '@nestjs/common';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AuthDto } from '../../src/gateway/dto/auth.dto.js';
import { ChatDto, DirectMessageDto, RoomMessageDto } from '../../src/gateway/dto/publish.dto.js';
import {
  AckEventsDto,
  HistoryDto,
  JoinRoomDto,
  PresenceDto,
  RoomDto,
} from '../../src/gateway/dto/room.dto.js';
import { MessagePipe } from '../../src/gateway/message.pipe.js';
import { ProtocolError } from '../../src/protocol/errors.js';

const pipe = new MessagePipe();

/** A message as the parser hands it on: from JSON, so that every key in it is its own. */
function fromJson(text: string): Record<string, unknown> {
  return JSON.parse(text) as Record<string, unknown>;
}

function accepted(metatype: Type<object>, message: object): object | string {
  return pipe.transform(fromJson(JSON.stringify(message)), { metatype });
}

/** The details of the refusal; each as `field: problem`. */
function refused(metatype: Type<object>, message: object | string): string[] {
  try {
    const value = typeof message === 'string' ? fromJson(message) : fromJson(JSON.stringify(message));
    return [`accepted: ${JSON.stringify(pipe.transform(value, { metatype }))}`];
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    if (error.code !== 'invalid_message') throw error;
    return (error.extra.details ?? []).map(({ field, problem }) => `${field}: ${problem}`);
  }
}

const ROOM = 'must be 1 to 128 of A-Z a-z 0-9 . _ : @ / -';
const EVENT = 'must be 1 to 64 of A-Z a-z 0-9 . _ : - and not a name the gateway uses';
const USER = 'must be 1 to 128 characters, none of them a control character';
const ID = 'must be an integer from 0 to 9007199254740991';

describe('a message becomes its DTO', () => {
  it('of the class, with the fields it declares and no others', () => {
    const dto = accepted(ChatDto, {
      type: 'chat',
      ref: 1,
      content: 'hi',
      room: 'a',
      extra: true,
      from: 'mallory',
    });
    expect(dto).toBeInstanceOf(ChatDto);
    expect({ ...(dto as object) }).toEqual({
      content: 'hi',
      room: 'a',
      event: undefined,
      message_id: undefined,
    });
  });

  it('with the content that was sent, not a copy of it', () => {
    const content = { deep: [{ a: 1 }] };
    const dto = pipe.transform({ type: 'chat', content }, { metatype: ChatDto });
    expect(Reflect.get(dto as object, 'content')).toBe(content);
  });

  it.each([
    [ChatDto, { content: null }],
    [ChatDto, { content: 0 }],
    [ChatDto, { content: false, event: 'order.paid', message_id: 'm' }],
    [RoomMessageDto, { content: {}, room: 'a' }],
    [DirectMessageDto, { content: [], target_user: '日本 語' }],
    [RoomDto, { room: 'x'.repeat(128) }],
    [JoinRoomDto, { room: 'a' }],
    [JoinRoomDto, { room: 'a', last_event_id: 0, epoch: '' }],
    [JoinRoomDto, { room: 'a', last_event_id: Number.MAX_SAFE_INTEGER, epoch: 'x'.repeat(128) }],
    [JoinRoomDto, { room: 'a', last_event_id: 'acked' }],
    [JoinRoomDto, { room: 'a', last_event_id: null, epoch: null, rewind: 100 }],
    [PresenceDto, { room: 'a', limit: 1_000, cursor: Buffer.from('alice').toString('base64url') }],
    [HistoryDto, { room: 'a', before: 0, limit: 1 }],
    [HistoryDto, { room: 'a', before: null }],
    [AckEventsDto, { last_event_id: 0 }],
    [AckEventsDto, { last_event_id: 1, direct: true, epoch: null }],
    [AuthDto, { token: '' }],
  ])('where it is valid: %o %j', (metatype, message) => {
    expect({ ...(accepted(metatype, message) as object) }).toEqual(message);
  });

  it('unless it is plain text, or there is no class', () => {
    expect(pipe.transform('just text', { metatype: ChatDto })).toBe('just text');
    const message = { type: 'ping' };
    expect(pipe.transform(message, { metatype: undefined })).toBe(message);
  });
});

describe('a message is refused with the exact problem of each field', () => {
  it.each<[Type<object>, object, string[]]>([
    [ChatDto, {}, ['content: must be present']],
    [ChatDto, { content: 1, event: 'a b' }, [`event: ${EVENT}`]],
    [ChatDto, { content: 1, event: 'error' }, [`event: ${EVENT}`]],
    [ChatDto, { content: 1, event: 7 }, [`event: ${EVENT}`]],
    [ChatDto, { content: 1, message_id: '' }, ['message_id: must be a string of 1 to 64 characters']],
    [
      ChatDto,
      { content: 1, message_id: 'x'.repeat(65) },
      ['message_id: must be a string of 1 to 64 characters'],
    ],
    [ChatDto, { content: 1, message_id: 7 }, ['message_id: must be a string of 1 to 64 characters']],
    [ChatDto, { content: 1, room: '' }, [`room: ${ROOM}`]],
    [ChatDto, { content: 1, room: null }, [`room: ${ROOM}`]],
    [ChatDto, { content: 1, event: null }, [`event: ${EVENT}`]],
    [ChatDto, { content: 1, room: ['a'] }, [`room: ${ROOM}`]],
    [RoomMessageDto, { content: 1 }, [`room: ${ROOM}`]],
    [RoomMessageDto, { content: 1, room: null }, [`room: ${ROOM}`]],
    [DirectMessageDto, { content: 1 }, [`target_user: ${USER}`]],
    [DirectMessageDto, { content: 1, target_user: 'a\nb' }, [`target_user: ${USER}`]],
    [DirectMessageDto, { content: 1, target_user: { toString: 'a' } }, [`target_user: ${USER}`]],
    [RoomDto, {}, [`room: ${ROOM}`]],
    [JoinRoomDto, { room: 'a', last_event_id: -1 }, [`last_event_id: ${ID}, or "acked"`]],
    [JoinRoomDto, { room: 'a', last_event_id: '7' }, [`last_event_id: ${ID}, or "acked"`]],
    [JoinRoomDto, { room: 'a', last_event_id: 1.5 }, [`last_event_id: ${ID}, or "acked"`]],
    [JoinRoomDto, { room: 'a', last_event_id: 2 ** 53 }, [`last_event_id: ${ID}, or "acked"`]],
    [JoinRoomDto, { room: 'a', last_event_id: [7] }, [`last_event_id: ${ID}, or "acked"`]],
    [JoinRoomDto, { room: 'a', epoch: 7 }, ['epoch: must be a string of at most 128 characters']],
    [JoinRoomDto, { room: 'a', rewind: 0 }, ['rewind: must not be less than 1']],
    [JoinRoomDto, { room: 'a', rewind: 101 }, ['rewind: must not be greater than 100']],
    [JoinRoomDto, { room: 'a', rewind: 1.5 }, ['rewind: must be an integer number']],
    [
      JoinRoomDto,
      { room: 'a', rewind: 5, last_event_id: 0 },
      ['rewind: must not be given together with last_event_id'],
    ],
    [PresenceDto, { room: 'a', limit: 1_001 }, ['limit: must not be greater than 1000']],
    [PresenceDto, { room: 'a', limit: 1.5 }, ['limit: must be an integer number']],
    [PresenceDto, { room: 'a', cursor: 'x'.repeat(1_025) }, ['cursor: must be a cursor that an answer had']],
    [HistoryDto, { room: 'a', before: -1 }, [`before: ${ID}`]],
    [HistoryDto, { room: 'a', limit: 0 }, ['limit: must not be less than 1']],
    [AckEventsDto, {}, [`last_event_id: ${ID}`]],
    [AckEventsDto, { last_event_id: 'acked' }, [`last_event_id: ${ID}`]],
    [
      AckEventsDto,
      { last_event_id: 1, direct: true, room: 'a' },
      ['direct: must not be given together with room'],
    ],
    [AuthDto, {}, ['token: must be a string']],
    [AuthDto, { token: ['a'] }, ['token: must be a string']],
  ])('%o %j', (metatype, message, details) => {
    expect(refused(metatype, message)).toEqual(details);
  });

  it('under the one code and sentence there is', () => {
    const refusal = { code: 'invalid_message', message: 'The message is not valid.' };
    expect(() => pipe.transform({ type: 'a' }, { metatype: RoomDto })).toThrow(
      expect.objectContaining(refusal),
    );
  });

  it('one problem for each field that has any, whatever its type', () => {
    const details = refused(PresenceDto, { room: 7, limit: 'x', cursor: 7 });
    expect(details.map((detail) => detail.split(':')[0]).toSorted()).toEqual(['cursor', 'limit', 'room']);
  });

  it('without a word of what was sent', () => {
    const marked = 'MARK'.repeat(40);
    const details = refused(DirectMessageDto, {
      content: 1,
      target_user: marked,
      event: marked,
      message_id: marked,
    });
    expect(details).toHaveLength(3);
    expect(details.join()).not.toContain('MARK');
  });
});

describe('keys that mean something to JavaScript', () => {
  it('are fields like any other, and not the ones of the class', () => {
    const inherited = '{"__proto__":{"room":"a","content":1,"target_user":"b","token":"t"}}';
    expect(refused(RoomDto, inherited)).toEqual([`room: ${ROOM}`]);
    expect(refused(AuthDto, inherited)).toEqual(['token: must be a string']);
    expect(refused(DirectMessageDto, inherited).toSorted()).toEqual([
      'content: must be present',
      `target_user: ${USER}`,
    ]);
  });

  it('count only where the message itself has them', () => {
    const message = Object.create({ room: 'a', token: 't' }) as Record<string, unknown>;
    for (const metatype of [RoomDto, AuthDto])
      expect(() => pipe.transform(message, { metatype })).toThrow(ProtocolError);
  });

  it('can’t change what the DTO is, nor skip its validation', () => {
    const dto = pipe.transform(
      fromJson('{"type":"chat","content":1,"__proto__":{"isAdmin":true},"constructor":{"name":"Object"}}'),
      { metatype: ChatDto },
    );
    expect(Object.getPrototypeOf(dto)).toBe(ChatDto.prototype);
    expect([Reflect.get(dto as object, 'isAdmin'), (dto as object).constructor]).toEqual([
      undefined,
      ChatDto,
    ]);
    for (const key of ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'valueOf'])
      expect(refused(RoomDto, `{"room":"a b","${key}":{"room":"a"}}`)).toEqual([`room: ${ROOM}`]);
  });

  it('come through in the content as they were, and nothing else changes', () => {
    const before = Object.getOwnPropertyNames(Object.prototype);
    const text = '{"content":{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}}';
    const dto = pipe.transform(fromJson(text), { metatype: ChatDto });
    expect(JSON.stringify(Reflect.get(dto as object, 'content'))).toBe(text.slice(11, -1));
    expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(before);
    expect(Reflect.get({}, 'polluted')).toBeUndefined();
  });

  it('never make anything but a DTO or a refusal of a message', () => {
    const field = fc.constantFrom(
      'room',
      'content',
      'event',
      'message_id',
      'limit',
      'cursor',
      '__proto__',
      'constructor',
      'toString',
      'last_event_id',
    );
    const message = fc
      .array(fc.tuple(field, fc.jsonValue({ maxDepth: 1 })))
      .map((fields) => `{${fields.map(([key, value]) => `"${key}":${JSON.stringify(value)}`).join()}}`);
    const metatypes = [
      ChatDto,
      RoomMessageDto,
      DirectMessageDto,
      JoinRoomDto,
      PresenceDto,
      HistoryDto,
      AckEventsDto,
    ];
    fc.assert(
      fc.property(message, fc.constantFrom(...metatypes), (text, metatype) => {
        const outcome = refused(metatype, text);
        expect(outcome.length).toBeGreaterThan(0);
        expect(outcome.every((line) => /^(?:accepted: \{|[a-z_]+: must )/.test(line))).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });
});
