import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { JwksKeys } from '../../src/auth/jwks-keys.js';
import { closeClients } from '../support/client.js';
import { eventually } from '../support/eventually.js';
import { Gateway } from '../support/gateway.js';
import { status } from '../support/http.js';
import { json, LocalServer, type Responder } from '../support/local-server.js';
import { fresh } from '../support/names.js';
import { forge, inSeconds } from '../support/tokens.js';

/** A key of the issuer: what it signs with, and what it publishes. */
interface IssuerKey {
  readonly id: string;
  readonly alg: 'RS256' | 'ES256';
  readonly privateKey: KeyObject;
  readonly publicPem: string;
  readonly jwk: object;
}

function issuerKey(alg: IssuerKey['alg']): IssuerKey {
  const { privateKey, publicKey } =
    alg === 'RS256'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const id = fresh(alg);
  return {
    id,
    alg,
    privateKey,
    publicPem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    jwk: { ...publicKey.export({ format: 'jwk' }), kid: id, alg, use: 'sig' },
  };
}

function signed({ id, alg, privateKey }: IssuerKey, user: string, header: object = {}): string {
  return forge({ alg, typ: 'JWT', kid: id, ...header }, { sub: user, exp: inSeconds(3600) }, privateKey);
}

const [rsa, ec, next, later] = [
  issuerKey('RS256'),
  issuerKey('ES256'),
  issuerKey('ES256'),
  issuerKey('RS256'),
];

describe('JWT_JWKS_URI', () => {
  let issuer: LocalServer;
  let gateway: Gateway;
  let published: IssuerKey[] = [];
  let aheadMs = 0;
  const answer: Responder = (_request, _body, response) =>
    json(response, { keys: published.map(({ jwk }) => jwk) });
  const now = performance.now.bind(performance);

  /** Lets the cooldown pass: the gateway runs in this process, and so on this clock. */
  function passCooldown(): void {
    aheadMs += 11_000;
  }

  beforeAll(async () => {
    vi.spyOn(performance, 'now').mockImplementation(() => now() + aheadMs);
    published = [rsa, ec];
    issuer = await LocalServer.start(answer);
    gateway = await Gateway.start({
      JWT_JWKS_URI: `${issuer.url}/.well-known/jwks.json`,
      AUTH_MODE: 'required',
      HEARTBEAT_INTERVAL_MS: '1000000',
      LOG_LEVEL: 'fatal',
    });
  });

  beforeEach(() => {
    published = [rsa, ec];
    issuer.respond = answer;
  });

  afterEach(closeClients);

  afterAll(async () => {
    await gateway.close();
    await issuer.dispose();
    vi.restoreAllMocks();
  });

  const admitted = async (jwt: string): Promise<number> => {
    try {
      const client = await gateway.bearing(jwt);
      await client.close();
      return 101;
    } catch (error) {
      if (error instanceof Error && 'refusal' in error) {
        return (error.refusal as { status: number }).status;
      }
      throw error;
    }
  };

  it('the keys of the issuer verify RS256 and ES256', async () => {
    for (const key of [rsa, ec]) {
      const user = fresh('user');
      const client = await eventually(() => gateway.bearing(signed(key, user)));
      expect(client.userId).toBe(user);
    }
  });

  it('is read once, not for each token', async () => {
    expect(await admitted(signed(rsa, fresh('user')))).toBe(101);
    const before = issuer.requests;
    const users = Array.from({ length: 50 }, () => fresh('user'));
    const answers = await Promise.all(
      users.map((user, index) => admitted(signed(index % 2 === 0 ? rsa : ec, user))),
    );
    expect(new Set(answers)).toEqual(new Set([101]));
    expect(issuer.requests).toBe(before);
  });

  it('refuses what the keys did not sign that way', async () => {
    const user = fresh('user');
    const claims = { sub: user, exp: inSeconds(3600) };
    const head = { alg: 'RS256', kid: rsa.id };
    const stranger = issuerKey('RS256');
    const bad: [string, string][] = [
      ['HS256 with the public key', forge({ alg: 'HS256', kid: rsa.id }, claims, rsa.publicPem)],
      [
        'HS256 with the public key, trimmed',
        forge({ alg: 'HS256', kid: rsa.id }, claims, rsa.publicPem.trim()),
      ],
      [
        'HS256 with the key as published',
        forge({ alg: 'HS256', kid: rsa.id }, claims, JSON.stringify(rsa.jwk)),
      ],
      [
        'HS256 with the bytes of the key',
        forge(
          { alg: 'HS256', kid: ec.id },
          claims,
          createPublicKey(ec.publicPem).export({ type: 'spki', format: 'der' }).toString('latin1'),
        ),
      ],
      ['none', `${forge({ alg: 'none', kid: rsa.id }, claims, '').split('.').slice(0, 2).join('.')}.`],
      ['another key of the same id', signed({ ...stranger, id: rsa.id }, user)],
      ['the id of another key', signed(rsa, user, { kid: ec.id })],
      ['the algorithm of another key', signed(rsa, user, { alg: 'ES256' })],
      ['no key id where there are two keys', signed(rsa, user, { kid: undefined })],
      ['a key id that is no string', signed(rsa, user, { kid: 7 })],
      ['an empty key id', signed(rsa, user, { kid: '' })],
      ['__proto__ as key id', signed(rsa, user, { kid: '__proto__' })],
      ['a path as key id', signed(rsa, user, { kid: '../../etc/passwd' })],
      ['crit', signed(rsa, user, { crit: ['exp'] })],
      ['an exp that has passed', forge(head, { sub: user, exp: inSeconds(-1) }, rsa.privateKey)],
      ['an nbf to come', forge(head, { ...claims, nbf: inSeconds(60) }, rsa.privateKey)],
      ['no sub', forge(head, { exp: inSeconds(60) }, rsa.privateKey)],
      [
        'a key of its own',
        signed({ ...stranger, id: 'own' }, user, { jwk: stranger.jwk, jku: `${issuer.url}/evil` }),
      ],
    ];
    for (const [what, jwt] of bad) expect([what, await admitted(jwt)]).toEqual([what, 401]);
    expect(await admitted(signed(rsa, user))).toBe(101);
  });

  it('follows a rotation, and refuses nobody meanwhile', async () => {
    expect(await admitted(signed(rsa, fresh('user')))).toBe(101);
    passCooldown();
    // The new key is published beside the old ones, then signs, then the old ones go.
    published = [rsa, ec, next];
    const before = issuer.requests;
    const tokens = Array.from({ length: 30 }, (_value, index) =>
      signed([rsa, ec, next][index % 3] ?? rsa, fresh('user')),
    );
    const answers = await Promise.all(tokens.map(admitted));
    expect(answers.filter((code) => code !== 101)).toEqual([]);
    expect(issuer.requests - before).toBe(1);
    published = [next];
    expect(await admitted(signed(next, fresh('user')))).toBe(101);
  });

  it('a key that was taken out is refused once the set is read again', async () => {
    published = [rsa, ec];
    passCooldown();
    expect(await admitted(signed(later, fresh('user')))).toBe(401);
    published = [ec, later];
    passCooldown();
    expect(await admitted(signed(later, fresh('user')))).toBe(101);
    expect(await admitted(signed(rsa, fresh('user')))).toBe(401);
    expect(await admitted(signed(ec, fresh('user')))).toBe(101);
  });

  it('a thousand made-up key ids cost one more fetch at most, and no user notices', async () => {
    passCooldown();
    expect(await admitted(signed(rsa, fresh('user')))).toBe(101);
    passCooldown();
    const before = issuer.requests;
    for (let round = 0; round < 10; round += 1) {
      const made = Array.from({ length: 100 }, () =>
        gateway.refused('/ws', {
          headers: {
            authorization: `Bearer ${forge({ alg: 'HS256', kid: fresh('made-up') }, { sub: 'eve' })}`,
          },
        }),
      );
      expect(new Set((await Promise.all(made)).map((refusal) => refusal.status))).toEqual(new Set([401]));
      expect(await admitted(signed(ec, fresh('user')))).toBe(101);
    }
    expect(issuer.requests - before).toBeLessThanOrEqual(1);
  });

  it.each<[string, Responder]>([
    ['answers 500', (_request, _body, response) => json(response, { keys: [] }, 500)],
    ['answers no JSON', (_request, _body, response) => response.end('<html>')],
    ['answers an empty set', (_request, _body, response) => json(response, { keys: [] })],
    ['answers null', (_request, _body, response) => json(response, null)],
    ['answers keys nobody can read', (_request, _body, response) => json(response, { keys: [{ kty: 'x' }] })],
    ['cuts the connection', (_request, _body, response) => response.destroy()],
  ])('keeps the last good set while the issuer %s', async (_what, responder) => {
    passCooldown();
    expect(await admitted(signed(rsa, fresh('user'), { kid: fresh('unknown') }))).toBe(401);
    expect(await admitted(signed(rsa, fresh('user')))).toBe(101);
    issuer.respond = responder;
    passCooldown();
    const before = issuer.requests;
    expect(await admitted(signed(next, fresh('user'), { kid: fresh('unknown') }))).toBe(401);
    expect(issuer.requests).toBeGreaterThan(before);
    for (const key of [rsa, ec]) expect(await admitted(signed(key, fresh('user')))).toBe(101);
    // And takes up the new set when the issuer is back.
    issuer.respond = answer;
    published = [rsa, ec, next];
    passCooldown();
    expect(await admitted(signed(next, fresh('user')))).toBe(101);
  });

  it('an answer without end is cut off', async () => {
    passCooldown();
    expect(await admitted(signed(rsa, fresh('user')))).toBe(101);
    let poured = 0;
    const piece = Buffer.alloc(65_536, ' ');
    issuer.respond = (_request, _body, response) => {
      const pour = (): void => {
        while (!response.destroyed && response.write(piece)) poured += piece.length;
        poured += piece.length;
      };
      response.on('drain', pour);
      pour();
    };
    passCooldown();
    expect(await admitted(signed(next, fresh('user'), { kid: fresh('unknown') }))).toBe(401);
    // What the sockets between hold comes on top of what is read.
    expect(poured).toBeLessThan(32 * 1_048_576);
    for (const key of [rsa, ec]) expect(await admitted(signed(key, fresh('user')))).toBe(101);
  });

  it('while the issuer does not answer, its known keys verify at once and others are refused in time', async () => {
    passCooldown();
    expect(await admitted(signed(rsa, fresh('user')))).toBe(101);
    let isAsked: () => void = () => undefined;
    const asked = new Promise<void>((resolve) => (isAsked = resolve));
    issuer.respond = () => isAsked();
    passCooldown();
    let isRefused = false;
    const unknown = admitted(signed(next, fresh('user'), { kid: fresh('unknown') })).then((code) => {
      isRefused = true;
      return code;
    });
    await asked;
    for (const key of [rsa, ec, rsa]) expect(await admitted(signed(key, fresh('user')))).toBe(101);
    // They were not held up by the one that waits for the issuer.
    expect(isRefused).toBe(false);
    expect(await unknown).toBe(401);
  });

  it('one bad key in the set does not hide the good ones', async () => {
    const bad = { kty: 'RSA', kid: 'bad', use: 'sig', alg: 'RS256', n: '!', e: 'AQAB' };
    const fine = issuerKey('ES256');
    issuer.respond = (_request, _body, response) =>
      json(response, { keys: [bad, rsa.jwk, ec.jwk, fine.jwk] });
    passCooldown();
    expect(await admitted(signed(fine, fresh('user')))).toBe(101);
  });
});

describe('an issuer that is away when the instance starts', () => {
  let issuer: LocalServer;
  let gateway: Gateway;
  let isAway = true;

  beforeAll(async () => {
    issuer = await LocalServer.start((_request, _body, response) => {
      if (isAway) json(response, {}, 503);
      else json(response, { keys: [rsa.jwk] });
    });
    gateway = await Gateway.start({ JWT_JWKS_URI: issuer.url, AUTH_MODE: 'required', LOG_LEVEL: 'fatal' });
  });

  afterEach(closeClients);

  afterAll(async () => {
    await gateway.close();
    await issuer.dispose();
  });

  it('does not stop it; its tokens are taken once the issuer is back', { timeout: 40_000 }, async () => {
    expect(await status(`${gateway.url}/health/live`)).toBe(200);
    const jwt = signed(rsa, fresh('user'));
    const headers = { authorization: `Bearer ${jwt}` };
    expect([401, 503]).toContain((await gateway.refused('/ws', { headers })).status);
    isAway = false;
    const client = await eventually(() => gateway.bearing(jwt), { timeoutMs: 30_000, everyMs: 250 });
    expect(client.connected['user_id']).toBe(client.userId);
  });
});

describe('the cooldown of made-up key ids', () => {
  it('asks once in ten seconds, and again after them', async () => {
    const issuer = await LocalServer.start((_request, _body, response) =>
      json(response, { keys: [rsa.jwk] }),
    );
    try {
      let nowMs = 0;
      const keys = new JwksKeys(issuer.url, () => nowMs);
      expect(await keys.find(rsa.id)).not.toBeNull();
      for (let at = 0; at <= 60_000; at += 100) {
        nowMs = at;
        expect(await keys.find(fresh('made-up'))).toBeNull();
      }
      expect(issuer.requests).toBeGreaterThanOrEqual(5);
      expect(issuer.requests).toBeLessThanOrEqual(7);
    } finally {
      await issuer.dispose();
    }
  });
});
