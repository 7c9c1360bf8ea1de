import { Writable } from 'node:stream';
import type { LoggerService } from '@nestjs/common';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { PinoLogger, redact } from '../../src/config/pino.logger.js';
import { token } from '../support/tokens.js';

/** What was written, by pino itself or by pino-pretty, in place of standard output. */
const output = vi.hoisted(() => ({ text: '' }));

function sink(): Writable {
  return new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      output.text += chunk.toString('utf8');
      done();
    },
  });
}

vi.mock('pino', async (importOriginal) => {
  const original = await importOriginal<typeof import('pino')>();
  return {
    ...original,
    pino: (options: import('pino').LoggerOptions, stream?: import('pino').DestinationStream) =>
      original.pino(options, stream ?? sink()),
  };
});

vi.mock('pino-pretty', async (importOriginal) => {
  const original = await importOriginal<typeof import('pino-pretty')>();
  return {
    ...original,
    default: (options: import('pino-pretty').PrettyOptions) =>
      original.build({ ...options, destination: sink(), colorize: false }),
  };
});

function logger(settings: { LOG_LEVEL?: string; isProduction?: boolean } = {}): LoggerService {
  return new PinoLogger({ LOG_LEVEL: 'trace', isProduction: true, ...settings }, 'instance-1');
}

function lines(): Record<string, unknown>[] {
  return output.text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

afterEach(() => {
  output.text = '';
});

const jwt = token('alice');

describe('a secret in a log', () => {
  it.each([
    [`/ws?token=${jwt}`, '/ws?token=[redacted]'],
    [`/ws?token=${jwt}&client_id=a`, '/ws?token=[redacted]&client_id=a'],
    [`/ws?client_id=a&token=${jwt} HTTP/1.1`, '/ws?client_id=a&token=[redacted] HTTP/1.1'],
    [`/ws?TOKEN=${jwt}`, '/ws?TOKEN=[redacted]'],
    [`Authorization: Bearer ${jwt}`, 'Authorization: Bearer [redacted]'],
    [`{"authorization":"Bearer ${jwt}"}`, '{"authorization":"Bearer [redacted]"}'],
    [`authorization: bearer ${jwt}, x`, 'authorization: bearer [redacted], x'],
    [
      `Sec-WebSocket-Protocol: fanfare.v1, bearer.${jwt}`,
      'Sec-WebSocket-Protocol: fanfare.v1, bearer.[redacted]',
    ],
    [`['bearer.${jwt}', 'fanfare.v1']`, "['bearer.[redacted]', 'fanfare.v1']"],
    [`?token=a ?token=b Bearer c`, '?token=[redacted] ?token=[redacted] Bearer [redacted]'],
    [`a\n?token=${jwt}\nb`, 'a\n?token=[redacted]\nb'],
  ])('is not there: %s', (text, redacted) => {
    expect(redact(text)).toBe(redacted);
  });

  it.each(['a token is needed', 'the bearer of good news', 'tokens=3', '?tokenize=1', ''])(
    'is not seen where there is none: %j',
    (text) => {
      expect(redact(text).replace('bearer [redacted] good', 'bearer of good')).toBe(text);
    },
  );

  it('is not there whatever level, message, error and stack it comes in', () => {
    const log = logger();
    const error = new Error(`refused ?token=${jwt}`, { cause: `Bearer ${jwt}` });
    error.stack = `Error: refused ?token=${jwt}\n    at /ws?token=${jwt}`;
    log.log(`upgrade /ws?token=${jwt}`, 'Gateway');
    log.warn(`Bearer ${jwt}`);
    log.error(error, 'Gateway');
    log.error('failed', `Error\n    at Bearer ${jwt}`, 'Gateway');
    log.debug?.(`bearer.${jwt}`);
    log.verbose?.(`?token=${jwt}`);
    log.fatal?.(error);
    expect(lines()).toHaveLength(7);
    expect(output.text).not.toContain(jwt.slice(0, 20));
    expect(output.text.match(/\[redacted\]/g)?.length).toBeGreaterThan(7);
  });

  it('is not there in the readable lines either', () => {
    const log = logger({ isProduction: false });
    log.log(`upgrade /ws?token=${jwt}`, 'Gateway');
    log.error(new Error(`Bearer ${jwt}`), 'Gateway');
    expect(output.text).toContain('[Gateway] upgrade /ws?token=[redacted]');
    expect(output.text).not.toContain(jwt.slice(0, 20));
  });
});

describe('the log', () => {
  it('is one JSON object a line in production, with the instance and the context', () => {
    logger().log('two\nlines', 'Gateway');
    expect(output.text.trimEnd()).not.toContain('\n');
    expect(lines()).toEqual([
      expect.objectContaining({ level: 30, instance: 'instance-1', context: 'Gateway', msg: 'two\nlines' }),
    ]);
  });

  it('is a readable line in development', () => {
    logger({ isProduction: false }).log('hello', 'Gateway');
    expect(output.text).toMatch(/INFO.*\[Gateway\] hello/);
    expect(output.text).not.toContain('instance-1');
  });

  it.each([
    ['fatal', 60],
    ['error', 50],
    ['warn', 40],
    ['log', 30],
    ['debug', 20],
    ['verbose', 10],
  ] as const)('has a level for %s', (method, level) => {
    const log = logger();
    log[method]?.('message', 'Context');
    expect(lines()).toEqual([expect.objectContaining({ level, msg: 'message', context: 'Context' })]);
  });

  it('leaves out what is below its level', () => {
    const log = logger({ LOG_LEVEL: 'warn' });
    log.log('no');
    log.debug?.('no');
    log.warn('yes');
    expect(lines().map(({ msg }) => msg)).toEqual(['yes']);
    const silent = logger({ LOG_LEVEL: 'silent' });
    silent.error('no');
    silent.fatal?.('no');
    expect(lines()).toHaveLength(1);
  });

  it('keeps what Nest says of every route for those who debug', () => {
    logger({ LOG_LEVEL: 'info' }).log('Mapped {/stats, GET} route', 'RouterExplorer');
    expect(lines()).toEqual([]);
    logger({ LOG_LEVEL: 'debug' }).log('Mapped {/stats, GET} route', 'RouterExplorer');
    expect(lines()).toEqual([expect.objectContaining({ level: 20, context: 'RouterExplorer' })]);
  });

  it('has the stack of an error, and what its message says', () => {
    logger().error(new TypeError('oh no'), 'Gateway');
    const [line] = lines();
    expect(line).toMatchObject({ level: 50, msg: 'oh no', context: 'Gateway' });
    expect(line?.['stack']).toContain('TypeError: oh no\n    at ');
  });

  it('has the stack that Nest hands on beside the message', () => {
    logger().error('failed', 'Error: failed\n    at here', 'Gateway');
    expect(lines()).toEqual([
      expect.objectContaining({ msg: 'failed', stack: 'Error: failed\n    at here' }),
    ]);
  });

  it.each([
    [undefined, 'undefined'],
    [null, 'null'],
    [7, '7'],
    [Symbol('s'), 'Symbol(s)'],
  ])('can say anything: %o', (message, msg) => {
    logger().log(message);
    expect(lines()).toEqual([expect.objectContaining({ msg })]);
  });
});
