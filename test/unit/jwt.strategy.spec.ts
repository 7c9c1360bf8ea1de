import { createHmac, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { AuthorizeHook } from '../../src/auth/authorize-hook.js';
import { JwtStrategy } from '../../src/auth/jwt.strategy.js';
import { RevocationsService } from '../../src/auth/revocations.service.js';
import { RightsService } from '../../src/auth/rights.service.js';
import type { Environment } from '../../src/config/setting.js';
import { readSettings } from '../../src/config/settings.js';
import type { Identity } from '../../src/core/identity.js';
import { MemoryRevocations } from '../../src/memory/memory-control.js';
import { ecKeys, forge, inSeconds, part, rsaKeys, secret, token } from '../support/tokens.js';

function strategy(
  environment: Environment = { JWT_SECRET: secret },
  revocations = new RevocationsService(new MemoryRevocations()),
): JwtStrategy {
  const settings = readSettings(environment);
  return new JwtStrategy(settings, revocations, new RightsService(new AuthorizeHook(settings), settings));
}

const hs256 = { alg: 'HS256', typ: 'JWT' };
const claims = (more: object = {}): object => ({ sub: 'alice', exp: inSeconds(3_600), ...more });
const without = (name: string): object =>
  Object.fromEntries(Object.entries(claims()).filter(([key]) => key !== name));

const rsa = rsaKeys();
const otherRsa = rsaKeys();
const ec = ecKeys();

/** The valid token, with one of its parts replaced. */
function replaced(at: 0 | 1 | 2, by: (part: string) => string): string {
  const parts = token('alice').split('.');
  parts[at] = by(parts[at] ?? '');
  return parts.join('.');
}

/** The same 32 bytes, with a bit of base64 that no byte needs. */
function otherSpelling(signature: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const last = alphabet.indexOf(signature.slice(-1));
  return signature.slice(0, -1) + (alphabet[last ^ 1] ?? '');
}

function bare(header: object, payload: object = claims()): string {
  return `${part(header)}.${part(payload)}.`;
}

/** A valid token of that length; base64 can't make every one, but it can make this. */
function ofLength(length: number): string {
  const rest = token('alice', { pad: '' }).length;
  const near = Math.floor(((length - rest) * 3) / 4);
  const found = [-2, -1, 0, 1, 2]
    .map((by) => token('alice', { pad: 'x'.repeat(near + by) }))
    .find((candidate) => candidate.length === length);
  if (found === undefined) throw new Error(`no token has ${length} characters`);
  return found;
}

const forged: [string, () => string][] = [
  ['nothing', () => ''],
  ['a dot', () => '.'],
  ['two dots', () => '..'],
  ['noise', () => 'not a token'],
  ['JSON', () => JSON.stringify(claims())],
  ['one part', () => token('alice').split('.')[1] ?? ''],
  ['two parts', () => token('alice').split('.').slice(0, 2).join('.')],
  ['four parts', () => `${token('alice')}.x`],
  ['no signature', () => replaced(2, () => '')],
  ['another signature', () => replaced(2, () => 'A'.repeat(43))],
  ['a cut signature', () => replaced(2, (signature) => signature.slice(0, -4))],
  ['a signature spelt in another way', () => replaced(2, otherSpelling)],
  ['a signature with padding', () => replaced(2, (signature) => `${signature}=`)],
  ['another payload', () => replaced(1, () => part(claims({ sub: 'root' })))],
  ['another header', () => replaced(0, () => part({ alg: 'HS256', typ: 'JWT', x: 1 }))],
  ['a space before it', () => ` ${token('alice')}`],
  ['a line feed after it', () => `${token('alice')}\n`],
  ['the word Bearer before it', () => `Bearer ${token('alice')}`],
  ['another secret', () => token('alice', {}, 'another secret of more than thirty-two bytes')],
  ['an empty secret', () => forge(hs256, claims(), '')],
  ['the secret with a line feed', () => token('alice', {}, `${secret}\n`)],
  ['alg none', () => bare({ alg: 'none' })],
  ['alg None', () => bare({ alg: 'None' })],
  ['alg NONE', () => bare({ alg: 'NONE', typ: 'JWT' })],
  ['alg nOnE, with a signature', () => forge({ alg: 'nOnE' }, claims())],
  ['no alg', () => forge({ typ: 'JWT' }, claims())],
  ['an empty alg', () => forge({ alg: '' }, claims())],
  ['alg as a list', () => forge({ alg: ['HS256'] }, claims())],
  ['alg null', () => forge({ alg: null }, claims())],
  ['alg hs256', () => forge({ alg: 'hs256' }, claims())],
  ['HS384, well signed', () => forge({ alg: 'HS384' }, claims(), secret, 'sha384')],
  ['HS512, well signed', () => forge({ alg: 'HS512' }, claims(), secret, 'sha512')],
  ['HS256 that is called HS512', () => forge({ alg: 'HS512' }, claims(), secret, 'sha256')],
  ['RS256 where there is a secret', () => forge({ alg: 'RS256' }, claims(), rsa.privateKey)],
  ['ES256 where there is a secret', () => forge({ alg: 'ES256' }, claims(), ec.privateKey)],
  ['crit', () => forge({ ...hs256, crit: ['exp'] }, claims())],
  ['crit that is empty', () => forge({ ...hs256, crit: [] }, claims())],
  ['crit that is null', () => forge({ ...hs256, crit: null }, claims())],
  ['crit with an extension of ours', () => forge({ ...hs256, crit: ['b64'], b64: false }, claims())],
  ['a header that is no object', () => forge('"HS256"', claims())],
  ['a header that is null', () => forge('null', claims())],
  ['a header that is a list', () => forge('[]', claims())],
  ['a header that is no JSON', () => forge('{alg:HS256}', claims())],
  [
    'a key of its own in the header',
    () => forge({ ...hs256, jwk: { kty: 'oct', k: part('mine') } }, claims(), 'mine'),
  ],
  ['a key address in the header', () => forge({ ...hs256, jku: 'https://evil.example' }, claims(), 'mine')],
  ['a kid that is a path', () => forge({ ...hs256, kid: '/dev/null' }, claims(), '')],
  ['a payload that is text', () => forge(hs256, '"alice"')],
  ['a payload that is null', () => forge(hs256, 'null')],
  ['a payload that is a list', () => forge(hs256, '["alice"]')],
  ['a payload that is no JSON', () => forge(hs256, 'sub=alice')],
  ['a payload that is empty', () => forge(hs256, '')],
  ['that has expired', () => token('alice', { exp: inSeconds(-1) })],
  ['that expires now', () => token('alice', { exp: inSeconds(0) })],
  ['that expired in 1970', () => forge(hs256, claims({ exp: 0 }))],
  ['that expires in text', () => forge(hs256, claims({ exp: String(inSeconds(3_600)) }))],
  ['that expires in null', () => forge(hs256, claims({ exp: null }))],
  ['that expires in a list', () => forge(hs256, claims({ exp: [inSeconds(3_600)] }))],
  ['that is not valid yet', () => forge(hs256, claims({ nbf: inSeconds(60) }))],
  ['that is valid from text', () => forge(hs256, claims({ nbf: '0' }))],
  ['without sub', () => forge(hs256, without('sub'))],
  ['with an empty sub', () => forge(hs256, claims({ sub: '' }))],
  ['with a sub that is a number', () => forge(hs256, claims({ sub: 7 }))],
  ['with a sub that is a list', () => forge(hs256, claims({ sub: ['alice'] }))],
  ['with a sub that is an object', () => forge(hs256, claims({ sub: { id: 'alice' } }))],
  ['with a sub of control characters', () => forge(hs256, claims({ sub: 'ali\u0000ce' }))],
  ['with a sub of 129 characters', () => forge(hs256, claims({ sub: 'x'.repeat(129) }))],
  ['with a sub that is half a pair', () => forge(hs256, '{"sub":"\\ud83d"}')],
  ['with an inherited sub', () => forge(hs256, '{"__proto__":{"sub":"alice"}}')],
  ['of 4097 characters', () => ofLength(4_097)],
  ['of many more', () => token('alice', { pad: 'x'.repeat(40_960) })],
  ['of a megabyte', () => 'a'.repeat(1_000_000)],
  ['of dots', () => '.'.repeat(4_000)],
];

describe('a token that is not valid', () => {
  it('comes in more than 40 ways', () => {
    expect(new Set(forged.map(([, make]) => make())).size).toBeGreaterThan(40);
  });

  it.each(forged)('is nobody’s: %s', async (_what, make) => {
    expect(await strategy().identify(make())).toBeNull();
  });

  it.each(forged)('is nobody’s in production either: %s', async (_what, make) => {
    expect(await strategy({ NODE_ENV: 'production', JWT_SECRET: secret }).identify(make())).toBeNull();
  });

  it.each(forged)('is nobody’s where there is a public key: %s', async (_what, make) => {
    expect(await strategy({ JWT_PUBLIC_KEY: otherRsa.publicPem }).identify(make())).toBeNull();
  });
});

describe('a token that is valid', () => {
  it('says who it is of, and when it ends', async () => {
    const exp = inSeconds(60);
    const identity = await strategy().identify(token('alice', { name: 'Alice', exp }));
    expect(identity).toMatchObject({ userId: 'alice', name: 'Alice', expiresAtMs: exp * 1_000 });
  });

  it.each([
    ['no typ', () => forge({ alg: 'HS256' }, claims())],
    ['a kid', () => forge({ ...hs256, kid: 'k1' }, claims())],
    ['an end with a fraction', () => forge(hs256, claims({ exp: inSeconds(60) + 0.5 }))],
    ['a beginning in the past', () => forge(hs256, claims({ nbf: inSeconds(-60) }))],
    [
      'claims that nobody asked for',
      () => forge(hs256, claims({ scope: 'x', __proto__: null, admin: true })),
    ],
    ['a sub beyond ASCII', () => forge(hs256, claims({ sub: '日本 語' }))],
    ['exactly 4096 characters', () => ofLength(4_096)],
  ])('may have %s', async (_what, make) => {
    expect(await strategy().identify(make())).not.toBeNull();
  });

  it.each([
    ['', undefined],
    ['x'.repeat(256), 'x'.repeat(256)],
    ['x'.repeat(257), undefined],
    [7, undefined],
    [null, undefined],
    [['Alice'], undefined],
  ])('gives the name %j as %j', async (name, given) => {
    expect((await strategy().identify(token('alice', { name })))?.name).toBe(given);
  });

  it('carries the rights in its claims', async () => {
    const identity = await strategy().identify(token('alice', { rooms: { join: ['a'] }, broadcast: false }));
    const allows: Identity['rights']['allows'] = (action, channel) =>
      identity?.rights.allows(action, channel) ?? false;
    expect([allows('join', 'room:a'), allows('join', 'room:b'), allows('publish', 'broadcast')]).toEqual([
      true,
      false,
      false,
    ]);
  });

  it('is nobody’s where there is no key', async () => {
    expect(await strategy({}).identify(token('alice'))).toBeNull();
  });
});

describe('the end of a token', () => {
  it('is needed only where it is demanded', async () => {
    const endless = token('alice', { exp: undefined });
    expect(await strategy().identify(endless)).toMatchObject({ expiresAtMs: Infinity });
    expect(await strategy({ JWT_SECRET: secret, JWT_REQUIRE_EXP: 'true' }).identify(endless)).toBeNull();
    expect(await strategy({ NODE_ENV: 'production', JWT_SECRET: secret }).identify(endless)).toBeNull();
  });

  it('is a time: what JSON can write and no clock can show is none', async () => {
    const endless = token('alice', { exp: 0 }).split('.')[0];
    const payload = Buffer.from('{"sub":"alice","exp":1e999}').toString('base64url');
    const signature = createHmac('sha256', secret).update(`${endless}.${payload}`).digest('base64url');
    expect(await strategy().identify(`${endless}.${payload}.${signature}`)).toBeNull();
  });

  it('is later by the tolerance for the clock, and so is its beginning earlier', async () => {
    const tolerant = strategy({ JWT_SECRET: secret, JWT_CLOCK_TOLERANCE_S: '30' });
    const exp = inSeconds(-20);
    expect(await tolerant.identify(token('alice', { exp }))).toMatchObject({
      expiresAtMs: (exp + 30) * 1_000,
    });
    expect(await tolerant.identify(token('alice', { exp: inSeconds(-31) }))).toBeNull();
    expect(await tolerant.identify(token('alice', { nbf: inSeconds(20) }))).not.toBeNull();
    expect(await tolerant.identify(token('alice', { nbf: inSeconds(40) }))).toBeNull();
  });
});

describe('a token that was revoked', () => {
  const iat = inSeconds(-60);
  const untilMs = Date.now() + 3_600_000;

  it.each([
    ['by its id', { jti: 't1', untilMs }, { jti: 't1' }, false],
    ['by another id', { jti: 't1', untilMs }, { jti: 't2' }, true],
    ['by an id that is no text', { jti: '7', untilMs }, { jti: 7 }, true],
    ['by an id, until it has passed', { jti: 't1', untilMs: Date.now() - 1 }, { jti: 't1' }, true],
    [
      'with all of its user that are older',
      { sub: 'alice', issuedBeforeS: iat + 1, untilMs },
      { iat },
      false,
    ],
    ['with all of its user, not the newer', { sub: 'alice', issuedBeforeS: iat, untilMs }, { iat }, true],
    [
      'with all of its user, if it hides its age',
      { sub: 'alice', issuedBeforeS: 1, untilMs },
      { iat: undefined },
      false,
    ],
    ['with all of another user', { sub: 'bob', issuedBeforeS: iat + 1, untilMs }, { iat }, true],
  ])('%s', async (_what, revocation, more, valid) => {
    const revocations = new RevocationsService(new MemoryRevocations());
    revocations.note(revocation);
    const presented = forge(hs256, claims({ iat, ...more }));
    expect((await strategy({ JWT_SECRET: secret }, revocations).identify(presented)) !== null).toBe(valid);
  });
});

describe('issuer and audience', () => {
  const bound = strategy({
    JWT_SECRET: secret,
    JWT_ISSUER: 'https://issuer.example/',
    JWT_AUDIENCE: 'fanfare',
  });
  const right = { iss: 'https://issuer.example/', aud: 'fanfare' };

  it.each([
    ['the right ones', right, true],
    ['one of several audiences', { ...right, aud: ['x', 'fanfare'] }, true],
    ['no issuer', { aud: 'fanfare' }, false],
    ['no audience', { iss: right.iss }, false],
    ['another issuer', { ...right, iss: 'https://issuer.example' }, false],
    ['another audience', { ...right, aud: 'fanfare2' }, false],
    ['an audience that contains it', { ...right, aud: ['xfanfarex'] }, false],
    ['an audience that is no text', { ...right, aud: { 0: 'fanfare' } }, false],
    ['no audience in the list', { ...right, aud: [] }, false],
  ])('are demanded where they are set: %s', async (_what, more, valid) => {
    expect((await bound.identify(forge(hs256, claims(more)))) !== null).toBe(valid);
  });

  it('do not matter where they are not set', async () => {
    expect(await strategy().identify(token('alice', { iss: 'anybody', aud: 'anything' }))).not.toBeNull();
  });
});

describe('the prefix of anonymous users', () => {
  it.each([
    ['anon:', 'anon:alice', false],
    ['anon:', 'anon:', false],
    ['anon:', 'anon', true],
    ['anon:', 'Anon:alice', true],
    ['', 'anon:alice', true],
  ])('%j: a token of %s is accepted: %s', async (ANONYMOUS_PREFIX, sub, valid) => {
    const identity = await strategy({ JWT_SECRET: secret, ANONYMOUS_PREFIX }).identify(token(sub));
    expect(identity !== null).toBe(valid);
  });
});

describe('a public key', () => {
  const withRsa = (more: Environment = {}) => strategy({ JWT_PUBLIC_KEY: rsa.publicPem, ...more });
  const withEc = () => strategy({ JWT_PUBLIC_KEY: ec.publicPem.replaceAll('\n', '\\n') });

  it('verifies what its private key has signed', async () => {
    expect(await withRsa().identify(forge({ alg: 'RS256' }, claims(), rsa.privateKey))).toMatchObject({
      userId: 'alice',
    });
    expect(await withEc().identify(forge({ alg: 'ES256' }, claims(), ec.privateKey))).toMatchObject({
      userId: 'alice',
    });
  });

  const der = createPublicKey(rsa.publicPem).export({ type: 'spki', format: 'der' });
  it.each<[string, () => string]>([
    ['HS256 with the key itself as the secret', () => forge(hs256, claims(), rsa.publicPem)],
    ['HS256 with the key without its last line feed', () => forge(hs256, claims(), rsa.publicPem.trimEnd())],
    [
      'HS256 with the bytes of the key',
      () => {
        const signed = `${part(hs256)}.${part(claims())}`;
        return `${signed}.${createHmac('sha256', der).update(signed).digest('base64url')}`;
      },
    ],
    [
      'HS512 with the key itself as the secret',
      () => forge({ alg: 'HS512' }, claims(), rsa.publicPem, 'sha512'),
    ],
    ['HS256 with an empty secret', () => forge(hs256, claims(), '')],
    ['none', () => bare({ alg: 'none' })],
    ['another key', () => forge({ alg: 'RS256' }, claims(), otherRsa.privateKey)],
    ['another kind of key', () => forge({ alg: 'ES256' }, claims(), ec.privateKey)],
    ['RS512 of the same key', () => forge({ alg: 'RS512' }, claims(), rsa.privateKey, 'sha512')],
    ['RS256 that is called PS256', () => forge({ alg: 'PS256' }, claims(), rsa.privateKey)],
    ['crit', () => forge({ alg: 'RS256', crit: ['exp'] }, claims(), rsa.privateKey)],
    ['an end in the past', () => forge({ alg: 'RS256' }, claims({ exp: inSeconds(-1) }), rsa.privateKey)],
  ])('is not fooled by %s', async (_what, make) => {
    expect(await withRsa().identify(make())).toBeNull();
  });

  it('of a curve is not fooled by a signature of nothing but zeros', async () => {
    const signed = `${part({ alg: 'ES256' })}.${part(claims())}`;
    for (const zeros of [Buffer.alloc(64), Buffer.from([0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00])])
      expect(await withEc().identify(`${signed}.${zeros.toString('base64url')}`)).toBeNull();
  });

  it('takes the algorithms that are named, and only them', async () => {
    const RS512 = forge({ alg: 'RS512' }, claims(), rsa.privateKey, 'sha512');
    const RS256 = forge({ alg: 'RS256' }, claims(), rsa.privateKey);
    const named = withRsa({ JWT_ALGORITHMS: 'RS512' });
    expect([await named.identify(RS512), await named.identify(RS256)]).toEqual([
      expect.objectContaining({ userId: 'alice' }),
      null,
    ]);
  });

  it.each([
    ['P-384', 'ES384', 'sha384'],
    ['P-521', 'ES512', 'sha512'],
  ] as const)('of %s takes %s', async (namedCurve, alg, digest) => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve });
    const JWT_PUBLIC_KEY = publicKey.export({ type: 'spki', format: 'pem' }).toString();
    const identity = await strategy({ JWT_PUBLIC_KEY }).identify(
      forge({ alg }, claims(), privateKey, digest),
    );
    expect(identity).toMatchObject({ userId: 'alice' });
  });
});
