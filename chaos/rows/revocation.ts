import { setTimeout as pause } from 'node:timers/promises';
import { Api } from '../../test/support/api.js';
import { refused } from '../../test/support/client.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { inSeconds, secret, token } from '../../test/support/tokens.js';
import { Crowd, monotonicMs } from '../crowd.js';
import { Fleet, percentile } from '../fleet.js';
import type { Context, Row } from '../row.js';

const MAX_P99_MS = 250;
const MAX_REVOKED_MS = 2_000;
const EXPIRY_TOLERANCE_MS = 1_000;
const BYSTANDERS = 30;
const LEFT_OVER_MS = 10_000;
const KEY = 'all-key';
const SETTINGS = { API_KEYS: KEY, JWT_SECRET: secret };

/** Instances whose only connections are those of a process of its own. */
class Stage {
  readonly crowd: Crowd;

  private constructor(
    context: Context,
    readonly fleet: Fleet,
  ) {
    this.crowd = context.own(Crowd.start());
  }

  static async open(context: Context): Promise<Stage> {
    const redis = context.own(await RedisServer.start());
    return new Stage(
      context,
      await Fleet.start(context, { redis, size: { clients: 0 }, settings: SETTINGS }),
    );
  }

  api(index: number): Api {
    return new Api(() => this.#at(index), KEY);
  }

  /** Connections with these tokens, in turn on all instances. */
  async connect(tokens: readonly string[]): Promise<number[]> {
    return this.crowd.open(
      tokens.map((jwt, index) => ({
        url: this.#at(index).ws(),
        headers: { authorization: `Bearer ${jwt}` },
        until: '"event":"connected"',
      })),
    );
  }

  #at(index: number): Fleet['gateways'][number] {
    const gateway = this.fleet.gateways[index % this.fleet.gateways.length];
    if (gateway === undefined) throw new Error('no gateway');
    return gateway;
  }
}

interface Act {
  readonly what: string;
  readonly code: number;
  /** Of the connections to be closed, and of those of others or with newer tokens. */
  readonly tokens: readonly [doomed: string, spared: string];
  readonly act: (api: Api) => Promise<unknown>;
}

function acts(): Act[] {
  const issued = inSeconds(-60);
  const of = (sub: string, claims: object = {}): string => token(sub, { iat: issued, ...claims });
  return [
    {
      what: 'revoked by sub',
      code: 4001,
      tokens: [of('ana'), of('other')],
      act: (api) => api.ok('POST', '/tokens/revoke', { sub: 'ana' }),
    },
    {
      what: 'revoked by issued_before',
      code: 4001,
      tokens: [of('ben'), of('ben', { iat: inSeconds(-10) })],
      act: (api) => api.ok('POST', '/tokens/revoke', { sub: 'ben', issued_before: inSeconds(-30) }),
    },
    {
      what: 'revoked by jti',
      code: 4001,
      tokens: [of('cleo', { jti: 'lost' }), of('cleo', { jti: 'kept' })],
      act: (api) => api.ok('POST', '/tokens/revoke', { jti: 'lost' }),
    },
    {
      what: 'disconnected',
      code: 4503,
      tokens: [of('dan'), of('other')],
      act: (api) => api.ok('POST', '/users/dan/disconnect', { reason: 'bye' }),
    },
  ];
}

/**
 * The connections are plain sockets in a process of their own (`crowd-process.ts`) that notes the time of each close
 * frame and does nothing else: on a machine with few cores a thousand full clients would be most of what is measured.
 */
export const revocation: Row = {
  name: 'revocation',
  fault: 'tokens of 1,000 connections on three instances revoked; the connections disconnected (quick: 200)',
  criterion: 'all closed with 4001, or 4503; p99 < 250 ms; no other closed; refused by a later instance',
  extraSeconds: 120,
  async run(context) {
    const stage = await Stage.open(context);
    const count = context.size.isQuick ? 200 : 1_000;
    const failures: string[] = [];
    const notes: string[] = [];
    const all = acts();
    for (const [index, { what, code, tokens, act }] of all.entries()) {
      const [doomed, spared] = tokens;
      const victims = await stage.connect(Array.from({ length: count }, () => doomed));
      const others = await stage.connect(Array.from({ length: BYSTANDERS }, () => spared));
      const api = stage.api(index);
      // The connection of the call itself is there before the clock starts.
      await api.ok('GET', '/instances');
      await pause(1_000);
      const began = monotonicMs();
      await act(api);
      const answeredMs = monotonicMs() - began;
      const closings = await stage.crowd.closings(victims, LEFT_OVER_MS);
      const times = closings.map(({ atMs }) => atMs - began);
      const [p50, p99, max] = [0.5, 0.99, 1].map((share) => percentile(times, share)) as [
        number,
        number,
        number,
      ];
      notes.push(
        `${what}: p50 ${p50.toFixed(0)}, p99 ${p99.toFixed(0)}, max ${max.toFixed(0)}, answered after ${answeredMs.toFixed(0)} ms`,
      );
      context.say(notes.at(-1) ?? '');
      if (closings.length < count) failures.push(`${what}: ${count - closings.length} left over`);
      const wrong = closings.filter((closing) => closing.code !== code).length;
      if (wrong > 0) failures.push(`${what}: ${wrong} closed with another code than ${code}`);
      if (p99 >= MAX_P99_MS) failures.push(`${what}: p99 ${p99.toFixed(0)} ms`);
      const closed = (await stage.crowd.closings(others)).length;
      if (closed > 0) failures.push(`${what}: ${closed} others closed`);
      await stage.crowd.cut(others);
    }
    const later = await stage.fleet.addGateway();
    const revoked = all.filter(({ code }) => code === 4001).map(({ tokens }) => tokens);
    for (const [doomed, spared] of revoked) {
      const { status } = await refused(later.ws(), { headers: { authorization: `Bearer ${doomed}` } });
      if (status !== 401) failures.push(`a later instance answers a revoked token with ${status}`);
      await (await later.bearing(spared)).cut();
    }
    return { failures, notes };
  },
};

export const expiry: Row = {
  name: '27',
  fault: 'tokens of 300 connections expire over 10 s; then those of 300 are revoked (quick: 90)',
  criterion: 'every one closed with 4001: at its exp, ± 1 s; revoked within 2 s',
  extraSeconds: 60,
  async run(context) {
    const stage = await Stage.open(context);
    const count = context.size.isQuick ? 90 : 300;
    const failures: string[] = [];
    const first = inSeconds(8);
    const expiries = Array.from({ length: count }, (_value, index) => first + (index % 10));
    const mortal = await stage.connect(expiries.map((exp, index) => token(`user-${index}`, { exp })));
    const ends = await stage.crowd.closings(mortal, 8_000 + 10_000 + 5_000);
    const offMs = ends.map(({ index, wallMs }) => wallMs - (expiries[index] ?? 0) * 1000);
    const [earliest, latest] = [Math.min(...offMs), Math.max(...offMs)];
    if (ends.length < count) failures.push(`${count - ends.length} outlived their token`);
    if (ends.some(({ code }) => code !== 4001)) failures.push('closed with another code than 4001');
    if (earliest < -EXPIRY_TOLERANCE_MS) failures.push(`closed ${-earliest} ms before exp`);
    if (latest > EXPIRY_TOLERANCE_MS) failures.push(`closed ${latest} ms after exp`);

    const users = Array.from({ length: count }, (_value, index) => `revoked-${index}`);
    const connections = await stage.connect(users.map((user) => token(user, { iat: inSeconds(-60) })));
    const asked: number[] = [];
    for (const [index, sub] of users.entries()) {
      asked.push(monotonicMs());
      await stage.api(index + 1).ok('POST', '/tokens/revoke', { sub });
    }
    const closings = await stage.crowd.closings(connections, LEFT_OVER_MS);
    const [base = 0] = connections;
    const tookMs = closings.map(({ index, atMs }) => atMs - (asked[index - base] ?? 0));
    const within = closings.filter(
      ({ code }, at) => code === 4001 && (tookMs[at] ?? Infinity) <= MAX_REVOKED_MS,
    ).length;
    if (within < count)
      failures.push(`${count - within} not closed with 4001 within 2 s of their revocation`);
    return {
      failures,
      notes: [
        `closed between ${earliest} and ${latest} ms after exp`,
        `each revoked by a call of its own: p99 ${percentile(tookMs, 0.99).toFixed(0)}, max ${percentile(tookMs, 1).toFixed(0)} ms`,
      ],
    };
  },
};
