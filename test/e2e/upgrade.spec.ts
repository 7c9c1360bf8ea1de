import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { notice, type Client, type ConnectOptions } from '../support/client.js';
import { eventually } from '../support/eventually.js';
import { Gateway, serve } from '../support/gateway.js';
import { stats } from '../support/http.js';
import { fresh } from '../support/names.js';
import { encode } from '../support/raw-socket.js';
import { freePort } from '../support/redis-server.js';
import { ecKeys, forge, inSeconds, part, rsaKeys, secret, token } from '../support/tokens.js';

const hs256 = { alg: 'HS256', typ: 'JWT' };
const claims = { sub: 'alice', exp: inSeconds(3600) };
const bearer = (value: string): ConnectOptions => ({ headers: { authorization: `Bearer ${value}` } });

/** What a refused upgrade looks like. */
function refusal(status: number): object {
  return {
    status,
    headers: { 'content-type': expect.stringMatching(/^application\/json/) as string },
    body: { statusCode: status, error: expect.any(String) as string, message: expect.any(String) as string },
  };
}

/** Everything that comes back to these bytes until the end, head and body apart. */
async function answerTo({ url }: Gateway, request: string): Promise<string[]> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname, () => socket.write(request));
  const pieces: Buffer[] = [];
  for await (const piece of socket) pieces.push(piece as Buffer);
  return Buffer.concat(pieces).toString().split('\r\n\r\n');
}

describe('an upgrade', () => {
  const gateway = serve({ JWT_SECRET: secret });

  it.each([
    '/',
    '/nope',
    '/ws/',
    '/ws/alice/',
    '/ws/secure/',
    '/ws/alice/bob',
    '/WS',
    '//ws',
    '/ws%2Falice',
    '/stats',
  ])('of the unknown path %s is answered 404', async (path) => {
    expect(await gateway().refused(path)).toMatchObject(refusal(404));
  });

  it('behind plain requests on the same connection is answered after them', async () => {
    const { hostname, port } = new URL(gateway().url);
    const socket = connect(Number(port), hostname, () =>
      socket.write(
        'GET /health/live HTTP/1.1\r\nHost: a\r\n\r\nGET /stats HTTP/1.1\r\nHost: a\r\n\r\n' +
          'GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
          'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
      ),
    );
    let text = '';
    socket.on('data', (piece: Buffer) => (text += piece.toString('latin1')));
    await eventually(() => {
      expect(text).toContain('"max_message_bytes"');
    });
    expect(text.match(/HTTP\/1.1 \d+|"status"|"local_connections"|"event":"connected"/g)).toEqual([
      'HTTP/1.1 200',
      '"status"',
      'HTTP/1.1 200',
      '"local_connections"',
      'HTTP/1.1 101',
      '"event":"connected"',
    ]);
    socket.destroy();
  });

  it.each([
    [405, 'by POST', 'POST', '', 'allow: get'],
    [405, 'by HEAD', 'HEAD', '', 'allow: get'],
    [426, 'of version 8', 'GET', 'Sec-WebSocket-Version: 8\r\n', 'sec-websocket-version: 13'],
    [431, 'with 9 kB of headers', 'GET', `X: ${'x'.repeat(9_000)}\r\n`, 'application/json'],
  ])('is answered %i %s', async (code, _what, method, header, tells) => {
    const version = header.startsWith('Sec-') ? '' : 'Sec-WebSocket-Version: 13\r\n';
    const [head = '', body = ''] = await answerTo(
      gateway(),
      `${method} /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n${version}${header}\r\n`,
    );
    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${code} `));
    expect(head.toLowerCase()).toContain(tells);
    const { statusCode } = (body === '' ? {} : JSON.parse(body)) as { statusCode?: unknown };
    expect(statusCode).toBe(method === 'HEAD' ? undefined : code);
  });

  it.each([
    ['an empty escape', '/ws/%zz'],
    ['half a UTF-8 sequence', '/ws/%E0%A4%A'],
    ['an encoded surrogate', '/ws/%ED%A0%80'],
    ['a NUL in the user id', '/ws/%00'],
    ['a line break in the user id', '/ws/a%0Ab'],
    ['DEL in the user id', '/ws/a%7F'],
    ['a C1 control character in the user id', '/ws/a%C2%85'],
    ['a user id of 129 characters', `/ws/${'a'.repeat(129)}`],
    ['a user id of 129 astral code points', `/ws/${encodeURIComponent('😀'.repeat(129))}`],
    ['a client_id of 129 code points', `/ws?client_id=${'a'.repeat(129)}`],
    ['a NUL in client_id', '/ws?client_id=a%00'],
    ['a control character in client_id', '/ws?client_id=a%1Fb'],
  ])('with %s is answered 400', async (_name, path) => {
    expect(await gateway().refused(path)).toMatchObject(refusal(400));
  });

  it.each([
    ['/ws/alice', 'alice'],
    ['/ws/al%20ice', 'al ice'],
    ['/ws/z%C3%B6e', 'zöe'],
    ['/ws/%2541', '%41'],
    ['/ws/a%2Fb', 'a/b'],
    ['/ws/__proto__', '__proto__'],
    ['/ws/constructor', 'constructor'],
    [`/ws/${'a'.repeat(128)}`, 'a'.repeat(128)],
    [`/ws/${encodeURIComponent('😀'.repeat(128))}`, '😀'.repeat(128)],
    ['/ws?client_id=bob', 'bob'],
    [`/ws?client_id=${encodeURIComponent('😀'.repeat(128))}`, '😀'.repeat(128)],
    ['/ws/alice?client_id=bob', 'alice'],
  ])('of %s makes the user %s', async (path, user) => {
    const client = await gateway().connect(path);
    expect(client.userId).toBe(user);
  });

  it('without a name makes a fresh user each time', async () => {
    const [first, second] = await Promise.all([gateway().connect(), gateway().connect()]);
    expect(first?.userId).not.toBe('');
    expect(first?.userId).not.toBe(second?.userId);
  });

  it('makes an own connection id for every connection of a user', async () => {
    const user = fresh('user');
    const tabs = await Promise.all([gateway().as(user), gateway().as(user), gateway().as(user)]);
    expect(new Set(tabs.map((tab) => tab.connectionId)).size).toBe(3);
    expect(tabs.map((tab) => tab.userId)).toEqual([user, user, user]);
  });

  it('answers frames that came together with the request, in order and after `connected`', async () => {
    const refs = [1, 2, 3, 4, 5];
    const raw = await gateway().raw('/ws', {
      early: Buffer.concat(refs.map((ref) => encode({ payload: JSON.stringify({ type: 'ping', ref }) }))),
    });
    await raw.next((frame) => frame.payload.toString().includes('"ref":5'));
    const events = raw.frames.map(
      (frame) => JSON.parse(frame.payload.toString()) as { event?: string; ref?: number },
    );
    expect(events[0]?.event).toBe('connected');
    expect(events.filter((event) => event.event === 'pong').map((event) => event.ref)).toEqual(refs);
    raw.destroy();
  });

  it('comes in one piece with `connected`', async () => {
    const raw = await gateway().raw('/ws');
    expect(raw.frames.map((frame) => frame.payload.toString())).toEqual([
      expect.stringContaining('"event":"connected"'),
    ]);
    raw.destroy();
  });

  it('is not compressed by default', async () => {
    const client = await gateway().connect('/ws', { deflate: true });
    expect(client.extensions).toBe('');
  });
});

describe('a token', () => {
  const gateway = serve({ JWT_SECRET: secret, AUTH_COOKIE: 'session' });

  const places: [string, (value: string) => ConnectOptions][] = [
    ['the Authorization header', (value) => ({ headers: { authorization: `Bearer ${value}` } })],
    ['the subprotocol', (value) => ({ protocols: ['fanfare.v1', `bearer.${value}`] })],
    [
      'the cookie',
      (value) => ({ headers: { cookie: `a=1; session=${value}; b=2`, origin: 'https://app.example' } }),
    ],
    ['the query', (value) => ({ query: { token: value } })],
  ];
  const pairs = places.flatMap(([first, early], index) =>
    places.slice(index + 1).map(([second, late]) => ({ first, early, second, late })),
  );
  const both = (one: ConnectOptions, other: ConnectOptions): ConnectOptions => ({
    ...one,
    ...other,
    headers: { ...one.headers, ...other.headers },
  });

  it.each(places)('is taken from %s', async (_place, options) => {
    const client = await gateway().connect('/ws', options(token('alice')));
    expect(client.userId).toBe('alice');
  });

  it.each(places)('that is bad in %s is refused', async (_place, options) => {
    expect(
      await gateway().refused(
        '/ws',
        options(token('alice', {}, 'another secret of thirty-two bytes or more')),
      ),
    ).toMatchObject(refusal(401));
  });

  it.each(places)('that is empty in %s counts as none', async (_place, options) => {
    const client = await gateway().connect('/ws', both(options(''), { query: { client_id: 'bob' } }));
    expect(client.userId).toBe('bob');
  });

  it.each(pairs)('in $first goes before one in $second', async ({ early, late }) => {
    const client = await gateway().connect('/ws', both(early(token('first')), late(token('second'))));
    expect(client.userId).toBe('first');
  });

  it.each(pairs)('that is bad in $first is refused, whatever stands in $second', async ({ early, late }) => {
    expect(await gateway().refused('/ws', both(early('bad'), late(token('second'))))).toMatchObject(
      refusal(401),
    );
  });

  it.each(pairs)('that is empty in $first leaves it to $second', async ({ early, late }) => {
    const client = await gateway().connect('/ws', both(early(''), late(token('second'))));
    expect(client.userId).toBe('second');
  });

  it('goes before client_id and carries the name', async () => {
    const client = await gateway().bearing(token('alice', { name: 'Alice A.' }), {
      query: { client_id: 'bob' },
    });
    expect(client.userId).toBe('alice');
    const room = fresh('room');
    await client.request({ type: 'join_room', room });
    const { members } = await client.request({ type: 'presence', room });
    expect(members).toEqual([expect.objectContaining({ user_id: 'alice', name: 'Alice A.' })]);
  });

  it('in the cookie counts as none where no Origin is present', async () => {
    const client = await gateway().connect('/ws', {
      headers: { cookie: `session=${token('alice')}` },
      query: { client_id: 'bob' },
    });
    expect(client.userId).toBe('bob');
  });

  it('in another cookie counts as none', async () => {
    const client = await gateway().connect('/ws', {
      headers: {
        cookie: `xsession=${token('alice')}; session2=${token('alice')}`,
        origin: 'https://app.example',
      },
      query: { client_id: 'bob' },
    });
    expect(client.userId).toBe('bob');
  });

  it('must be of the user in the path', async () => {
    const client = await gateway().bearing(token('alice'), {}, '/ws/alice');
    expect(client.userId).toBe('alice');
    const answer = await gateway().refused('/ws/bob', bearer(token('alice')));
    expect(answer).toMatchObject(refusal(403));
    expect(answer.headers['www-authenticate']).toBeUndefined();
  });

  it('is looked at after the path is percent-decoded', async () => {
    const client = await gateway().bearing(token('zöe /1'), {}, `/ws/${encodeURIComponent('zöe /1')}`);
    expect(client.userId).toBe('zöe /1');
  });
});

describe('the subprotocol', () => {
  const gateway = serve({ JWT_SECRET: secret });

  it.each([
    ['alone', ['fanfare.v1']],
    ['before the token', ['fanfare.v1', `bearer.${token('alice')}`]],
    ['after the token', [`bearer.${token('alice')}`, 'fanfare.v1']],
    ['among others', ['chat', 'fanfare.v1', `bearer.${token('alice')}`]],
  ])('fanfare.v1 %s is selected, and no token is echoed', async (_name, protocols) => {
    const client = await gateway().connect('/ws', { protocols });
    expect(client.protocol).toBe('fanfare.v1');
    const response = await client.upgraded;
    expect(JSON.stringify(response.headers)).not.toContain('bearer.');
  });

  it('bearer.<jwt> without fanfare.v1 is answered 400', async () => {
    expect(await gateway().refused('/ws', { protocols: [`bearer.${token('alice')}`] })).toMatchObject(
      refusal(400),
    );
  });

  it('is left out where the client offers none', async () => {
    const client = await gateway().connect();
    expect((await client.upgraded).headers['sec-websocket-protocol']).toBeUndefined();
  });
});

describe('an HS256 gateway', () => {
  const gateway = serve({ JWT_SECRET: secret });
  const rsa = rsaKeys();
  const jwk = { kty: 'oct', k: Buffer.from('the key of an attacker').toString('base64url') };
  const [header, payload, signature] = token('alice').split('.') as [string, string, string];

  it.each([
    ['a plain token', token('alice')],
    ['no exp', forge(hs256, { sub: 'alice' })],
    ['an nbf that has passed', token('alice', { nbf: inSeconds(-10) })],
    ['claims that it does not know', forge(hs256, { ...claims, roles: ['a'], constructor: { x: 1 } })],
    ['an unknown kid', forge({ ...hs256, kid: '../../etc/passwd' }, claims)],
    ['no typ', forge({ alg: 'HS256' }, claims)],
    ['an issuer and an audience that nobody asks for', token('alice', { iss: 'x', aud: ['y'] })],
  ])('accepts %s', async (_name, value) => {
    const client = await gateway().bearing(value);
    expect(client.userId).toBe('alice');
  });

  const bad: [string, string][] = [
    ['one word', 'garbage'],
    ['two parts', `${header}.${payload}`],
    ['four parts', `${header}.${payload}.${signature}.x`],
    ['five parts, as a JWE has', `${header}.${payload}.${signature}.x.y`],
    ['only dots', '..'],
    ['no signature', `${header}.${payload}.`],
    ['half a signature', `${header}.${payload}.${signature.slice(0, 20)}`],
    ['a longer signature', `${header}.${payload}.${signature}AAAA`],
    ['the signature of another payload', `${header}.${part({ sub: 'bob' })}.${signature}`],
    ['no header', `.${payload}.${signature}`],
    ['no payload', `${header}..${signature}`],
    ['a header that is no JSON', forge('{', claims)],
    ['a header that is an array', forge('[]', claims)],
    ['a header without alg', forge({ typ: 'JWT' }, claims)],
    ['an alg that is a number', forge({ alg: 256 }, claims)],
    ['an alg that is a list', forge({ alg: ['HS256'] }, claims)],
    ['an alg in lower case', forge({ alg: 'hs256' }, claims)],
    ['an alg of the prototype', forge({ alg: 'constructor' }, claims)],
    ['another secret', token('alice', {}, 'another secret of thirty-two bytes or more')],
    ['an empty secret', forge(hs256, claims, '')],
    ['alg none, unsigned', `${part({ alg: 'none' })}.${part(claims)}.`],
    ['alg none, signed', forge({ alg: 'none' }, claims)],
    ['alg None', `${part({ alg: 'None' })}.${part(claims)}.`],
    ['alg NONE', `${part({ alg: 'NONE' })}.${part(claims)}.`],
    ['alg HS384 with the same secret', forge({ alg: 'HS384' }, claims, secret, 'sha384')],
    ['alg HS512 with the same secret', forge({ alg: 'HS512' }, claims, secret, 'sha512')],
    ['alg RS256 by any key', forge({ alg: 'RS256' }, claims, rsa.privateKey)],
    ['alg RS256 signed with the secret', forge({ alg: 'RS256' }, claims)],
    ['a jwk of the attacker', forge({ ...hs256, jwk }, claims, 'the key of an attacker')],
    [
      'a jku of the attacker',
      forge({ ...hs256, jku: 'http://127.0.0.1:1/jwks' }, claims, 'the key of an attacker'),
    ],
    ['crit', forge({ ...hs256, crit: ['b64'], b64: true }, claims)],
    ['an unknown crit', forge({ ...hs256, crit: ['exp'] }, claims)],
    ['an exp that has passed', token('alice', { exp: inSeconds(-1) })],
    ['an exp long ago', token('alice', { exp: 1 })],
    ['an exp that is a string', forge(hs256, { ...claims, exp: String(inSeconds(3600)) })],
    ['an exp that is null', forge(hs256, { ...claims, exp: null })],
    ['an nbf to come', token('alice', { nbf: inSeconds(60) })],
    ['an nbf that is a string', forge(hs256, { ...claims, nbf: 'now' })],
    ['no sub', forge(hs256, { exp: inSeconds(3600) })],
    ['an empty sub', forge(hs256, { ...claims, sub: '' })],
    ['a sub that is a number', forge(hs256, { ...claims, sub: 7 })],
    ['a sub that is a list', forge(hs256, { ...claims, sub: ['alice'] })],
    ['a sub that is an object', forge(hs256, { ...claims, sub: { toString: 'alice' } })],
    ['a sub that is null', forge(hs256, { ...claims, sub: null })],
    ['a sub of 129 code points', forge(hs256, { ...claims, sub: '😀'.repeat(129) })],
    ['a sub with a control character', forge(hs256, { ...claims, sub: 'al\u0000ice' })],
    ['a payload that is no JSON', forge(hs256, 'alice')],
    ['a payload that is a string', forge(hs256, '"alice"')],
    ['a payload that is a list', forge(hs256, '[]')],
    ['a payload that is null', forge(hs256, 'null')],
    ['a token inside a token', token(token('alice')).replace(/\.[^.]*$/, '.')],
  ];

  it.each(bad)('refuses %s with 401 and without a reason', async (_name, value) => {
    const answer = await gateway().refused('/ws', bearer(value));
    expect(answer).toMatchObject(refusal(401));
    expect(answer.headers['www-authenticate']).toMatch(/^Bearer\b/);
    const other = await gateway().refused('/ws', bearer('garbage'));
    expect(answer.body).toEqual(other.body);
  });
});

describe.each([
  ['RS256', rsaKeys],
  ['ES256', ecKeys],
])('a gateway with a public key for %s', (alg, keys) => {
  const ours = keys();
  const other = keys();
  const gateway = serve({ JWT_PUBLIC_KEY: ours.publicPem });

  it('accepts a token of the private key', async () => {
    const client = await gateway().bearing(forge({ alg }, claims, ours.privateKey));
    expect(client.userId).toBe('alice');
  });

  it.each([
    ['a token of another private key', forge({ alg }, claims, other.privateKey)],
    ['the public key used as an HMAC secret', forge(hs256, claims, ours.publicPem)],
    ['the same without the last line break', forge(hs256, claims, ours.publicPem.trim())],
    ['alg none', `${part({ alg: 'none' })}.${part(claims)}.`],
    ['another hash', forge({ alg: alg.replace('256', '512') }, claims, other.privateKey, 'sha512')],
    ['an expired token', forge({ alg }, { ...claims, exp: inSeconds(-1) }, ours.privateKey)],
  ])('refuses %s', async (_name, value) => {
    expect(await gateway().refused('/ws', bearer(value))).toMatchObject(refusal(401));
  });
});

describe('JWT_ISSUER, JWT_AUDIENCE, JWT_REQUIRE_EXP and JWT_CLOCK_TOLERANCE_S', () => {
  const gateway = serve({
    JWT_SECRET: secret,
    JWT_ISSUER: 'https://issuer.example',
    JWT_AUDIENCE: 'fanfare',
    JWT_REQUIRE_EXP: 'true',
    JWT_CLOCK_TOLERANCE_S: '30',
  });
  const good = { ...claims, iss: 'https://issuer.example', aud: 'fanfare' };

  it.each([
    ['both', good],
    ['our audience among others', { ...good, aud: ['other', 'fanfare'] }],
    ['an exp within the tolerance', { ...good, exp: inSeconds(-5) }],
    ['an nbf within the tolerance', { ...good, nbf: inSeconds(15) }],
  ])('accept %s', async (_name, payload) => {
    const client = await gateway().bearing(forge(hs256, payload));
    expect(client.userId).toBe('alice');
  });

  it.each([
    ['another issuer', { ...good, iss: 'https://issuer.example.evil' }],
    ['no issuer', { ...good, iss: undefined }],
    ['another audience', { ...good, aud: 'fanfare2' }],
    ['no audience', { ...good, aud: undefined }],
    ['an empty list of audiences', { ...good, aud: [] }],
    ['no exp', { ...good, exp: undefined }],
    ['an exp beyond the tolerance', { ...good, exp: inSeconds(-60) }],
    ['an nbf beyond the tolerance', { ...good, nbf: inSeconds(120) }],
  ])('refuse %s', async (_name, payload) => {
    expect(await gateway().refused('/ws', bearer(forge(hs256, payload)))).toMatchObject(refusal(401));
  });
});

describe('JWT_ALGORITHMS', () => {
  const gateway = serve({ JWT_SECRET: secret, JWT_ALGORITHMS: 'HS384,HS512' });

  it('names the algorithms that are accepted, and no other is', async () => {
    const clients = [
      await gateway().bearing(forge({ alg: 'HS384' }, claims, secret, 'sha384')),
      await gateway().bearing(forge({ alg: 'HS512' }, claims, secret, 'sha512')),
    ];
    expect(clients.map((client) => client.userId)).toEqual(['alice', 'alice']);
    expect(await gateway().refused('/ws', bearer(token('alice')))).toMatchObject(refusal(401));
  });
});

describe('AUTH_MODE=required', () => {
  const gateway = serve({ JWT_SECRET: secret, AUTH_MODE: 'required', AUTH_COOKIE: 'session' });

  it.each(['/ws', '/ws?client_id=alice', '/ws/alice', '/ws/secure', '/ws?token='])(
    'answers 401 to %s without a token',
    async (path) => {
      const answer = await gateway().refused(path);
      expect(answer).toMatchObject(refusal(401));
      expect(answer.headers['www-authenticate']).toMatch(/^Bearer\b/);
    },
  );

  it('answers 401 to a cookie without an Origin', async () => {
    expect(
      await gateway().refused('/ws', { headers: { cookie: `session=${token('alice')}` } }),
    ).toMatchObject(refusal(401));
  });

  it('answers 401 to another scheme than Bearer', async () => {
    expect(await gateway().refused('/ws', { headers: { authorization: 'Basic YTpi' } })).toMatchObject(
      refusal(401),
    );
  });

  it('takes the scheme in any case', async () => {
    const client = await gateway().connect('/ws', { headers: { authorization: `bearer ${token('alice')}` } });
    expect(client.userId).toBe('alice');
  });

  it.each(['/ws', '/ws/alice', '/ws/secure'])('serves a token on %s', async (path) => {
    const client = await gateway().bearing(token('alice'), {}, path);
    expect(client.userId).toBe('alice');
  });
});

describe('AUTH_MODE=none', () => {
  const gateway = serve({ JWT_SECRET: secret, AUTH_MODE: 'none' });

  it('looks at no token, be it good or bad', async () => {
    const clients = await Promise.all([
      gateway().as('bob', bearer(token('alice'))),
      gateway().as('bob', bearer('garbage')),
      gateway().connect('/ws/bob', bearer(token('alice'))),
    ]);
    expect(clients.map((client) => client.userId)).toEqual(['bob', 'bob', 'bob']);
  });

  it('leaves /ws/secure as it is', async () => {
    expect(await gateway().refused('/ws/secure')).toMatchObject(refusal(401));
    expect(await gateway().refused('/ws/secure', bearer('garbage'))).toMatchObject(refusal(401));
    const client = await gateway().bearing(token('alice'), {}, '/ws/secure');
    expect(client.userId).toBe('alice');
  });
});

describe('/ws/secure with AUTH_MODE=optional', () => {
  const gateway = serve({ JWT_SECRET: secret, AUTH_MODE: 'optional' });

  it('demands a valid token and takes it from every place', async () => {
    expect(await gateway().refused('/ws/secure?client_id=alice')).toMatchObject(refusal(401));
    expect(await gateway().refused('/ws/secure?token=garbage')).toMatchObject(refusal(401));
    const client = await gateway().connect('/ws/secure', {
      query: { token: token('alice'), client_id: 'bob' },
    });
    expect(client.userId).toBe('alice');
  });

  it('is this endpoint for a user named secure, too', async () => {
    const client = await gateway().bearing(token('secure'), {}, '/ws/secure');
    expect(client.userId).toBe('secure');
    const other = await gateway().bearing(token('alice'), {}, '/ws/secure');
    expect(other.userId).toBe('alice');
  });
});

describe('without a key', () => {
  const gateway = serve();

  it('no token can be verified', async () => {
    expect(await gateway().refused('/ws', bearer(token('alice')))).toMatchObject(refusal(401));
    expect(await gateway().refused('/ws', bearer(`${part({ alg: 'none' })}.${part(claims)}.`))).toMatchObject(
      refusal(401),
    );
    expect(await gateway().refused('/ws/secure')).toMatchObject(refusal(401));
    expect(await gateway().refused('/ws/secure', bearer(forge(hs256, claims, '')))).toMatchObject(
      refusal(401),
    );
  });

  it('anonymous users are served', async () => {
    const client = await gateway().as('alice');
    expect(client.userId).toBe('alice');
  });
});

describe('AUTH_QUERY_TOKEN=false', () => {
  const gateway = serve({ JWT_SECRET: secret, AUTH_QUERY_TOKEN: 'false' });

  it('leaves the query token unread', async () => {
    const client = await gateway().as('bob', { query: { token: token('alice') } });
    expect(client.userId).toBe('bob');
    expect(await gateway().refused('/ws/secure', { query: { token: token('alice') } })).toMatchObject(
      refusal(401),
    );
  });
});

describe('AUTH_REJECT=close', () => {
  const gateway = serve({ JWT_SECRET: secret, AUTH_MODE: 'required', AUTH_REJECT: 'close' });

  /** What a client that sends a message at once learns. */
  async function outcome(client: Client): Promise<{ code: number; messages: unknown[] }> {
    client.send({ type: 'chat', content: 'nobody reads this', ref: 1 });
    const { code } = await client.closed;
    return { code, messages: client.all };
  }

  it.each([
    ['no token', '/ws', {}],
    ['a bad token', '/ws', bearer('garbage')],
    ['an expired token', '/ws', bearer(token('alice', { exp: inSeconds(-5) }))],
    ['no token on /ws/secure', '/ws/secure', {}],
    ['no token on /ws/:userId', '/ws/alice', {}],
  ])(
    'accepts an upgrade with %s and closes it with 4001, nothing said or read',
    async (_name, path, options) => {
      const witness = await gateway().bearing(token('witness'));
      expect(await outcome(await gateway().accepted(path, options))).toEqual({ code: 4001, messages: [] });
      await eventually(async () => {
        expect((await stats(gateway().url)).local_connections).toBe(1);
      });
      expect(await witness.settled('chat')).toEqual([]);
      expect(witness.unread(notice('user_connected', 'alice'))).toEqual([]);
    },
  );

  it('closes with 4503 where the token is not of the user in the path', async () => {
    const client = await gateway().accepted('/ws/bob', bearer(token('alice')));
    expect(await outcome(client)).toEqual({ code: 4503, messages: [] });
  });

  it('serves a good token, and refuses other faults before the upgrade', async () => {
    const client = await gateway().bearing(token('alice'));
    expect(client.userId).toBe('alice');
    expect(await gateway().refused('/nope', bearer(token('alice')))).toMatchObject(refusal(404));
    expect(await gateway().refused('/ws/%00', bearer(token('alice')))).toMatchObject(refusal(400));
  });
});

describe('ANONYMOUS_PREFIX', () => {
  const gateway = serve({ JWT_SECRET: secret, ANONYMOUS_PREFIX: 'guest~' });

  it('stands before the name of everybody without a token', async () => {
    const [named, inPath, unnamed] = await Promise.all([
      gateway().as('bob'),
      gateway().connect('/ws/bob'),
      gateway().connect(),
    ]);
    expect(named?.userId).toBe('guest~bob');
    expect(inPath?.userId).toBe('guest~bob');
    expect(unnamed?.userId).toMatch(/^guest~.+/);
  });

  it('cannot be claimed by a token', async () => {
    expect(await gateway().refused('/ws', bearer(token('guest~bob')))).toMatchObject(refusal(401));
    const client = await gateway().bearing(token('bob'));
    expect(client.userId).toBe('bob');
  });
});

describe('ALLOWED_ORIGINS', () => {
  const gateway = serve({
    JWT_SECRET: secret,
    AUTH_COOKIE: 'session',
    ALLOWED_ORIGINS: 'https://app.example,https://other.example:8443',
  });

  it.each([
    'https://app.example.evil',
    'https://evil-app.example',
    'https://app.example:444',
    'http://app.example',
    'https://other.example',
    'https://evil.example/https://app.example',
    'https://app.example@evil.example',
    'https://sub.app.example',
    'null',
    '*',
    'file://',
  ])('refuses the Origin %s with 403, even with a good token', async (origin) => {
    const answer = await gateway().refused('/ws', {
      headers: { origin, authorization: `Bearer ${token('alice')}`, cookie: `session=${token('alice')}` },
    });
    expect(answer).toMatchObject(refusal(403));
  });

  it.each(['https://app.example', 'https://other.example:8443'])(
    'serves the Origin %s and its cookie',
    async (origin) => {
      const client = await gateway().connect('/ws', {
        headers: { origin, cookie: `session=${token('alice')}` },
      });
      expect(client.userId).toBe('alice');
    },
  );

  it('serves programs, which send no Origin', async () => {
    const client = await gateway().bearing(token('alice'));
    expect(client.userId).toBe('alice');
  });
});

describe('in production', () => {
  const gateway = serve({ NODE_ENV: 'production', JWT_SECRET: secret, DRAIN_DELAY_MS: '0' });

  it('a token is required, and it needs an exp', async () => {
    expect(await gateway().refused('/ws?client_id=alice')).toMatchObject(refusal(401));
    expect(await gateway().refused('/ws', bearer(forge(hs256, { sub: 'alice' })))).toMatchObject(
      refusal(401),
    );
    const client = await gateway().bearing(token('alice'));
    expect(client.userId).toBe('alice');
  });

  it('only the own host is an allowed Origin', async () => {
    const origin = gateway().url;
    const client = await gateway().bearing(token('alice'), { headers: { origin } });
    expect(client.userId).toBe('alice');
    for (const other of ['https://evil.example', 'http://127.0.0.1:1', 'null']) {
      const answer = await gateway().refused('/ws', {
        headers: { origin: other, authorization: `Bearer ${token('alice')}` },
      });
      expect(answer).toMatchObject(refusal(403));
    }
  });
});

describe('in production with AUTH_MODE=optional', () => {
  const gateway = serve({
    NODE_ENV: 'production',
    JWT_SECRET: secret,
    AUTH_MODE: 'optional',
    DRAIN_DELAY_MS: '0',
  });

  it('anonymous users are told apart by anon:', async () => {
    const client = await gateway().as('bob');
    expect(client.userId).toBe('anon:bob');
    expect(await gateway().refused('/ws', bearer(token('anon:bob')))).toMatchObject(refusal(401));
  });
});

describe('a full gateway', () => {
  const gateway = serve({ MAX_CONNECTIONS: '1' });

  it('answers 503 with Retry-After until somebody leaves', async () => {
    const first = await gateway().connect();
    const answer = await gateway().refused();
    expect(answer).toMatchObject(refusal(503));
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    await first.close();
    const second = await eventually(() => gateway().connect());
    expect(second.connected.event).toBe('connected');
  });
});

describe('a user with too many connections', () => {
  const gateway = serve({ MAX_CONNECTIONS_PER_USER: '1' });

  it('is answered 429, others are served', async () => {
    await gateway().as('alice');
    expect(await gateway().refused('/ws?client_id=alice')).toMatchObject(refusal(429));
    const other = await gateway().as('bob');
    expect(other.userId).toBe('bob');
  });
});

describe('a gateway whose Redis is out of reach', () => {
  it('answers 503 with Retry-After', async () => {
    const gateway = await Gateway.start({
      REDIS_URL: `redis://127.0.0.1:${await freePort()}`,
      LOG_LEVEL: 'fatal',
    });
    try {
      const answer = await gateway.refused();
      expect(answer).toMatchObject(refusal(503));
      expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    } finally {
      await gateway.close();
    }
  });
});
