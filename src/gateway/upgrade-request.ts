import type { IncomingMessage } from 'node:http';
import { isUserId, MAX_EPOCH_LENGTH } from '../protocol/names.js';
import type { ResumePoint, ResumeRequest } from '../connections/connections.service.js';
import { UpgradeRefused } from './upgrade-refused.js';

export const SUBPROTOCOL = 'fanfare.v1';
const MAIN_PATH = '/ws';
const BEARER = 'bearer.';
/** RFC 9110 section 5.6.2. */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const WEBSOCKET_KEY = /^[+/0-9A-Za-z]{22}==$/;

const PARAMETERS = [
  'token',
  'client_id',
  'lastEventId',
  'epoch',
  'lastDirectEventId',
  'directEpoch',
  'frames',
] as const;
export type Query = Partial<Record<(typeof PARAMETERS)[number], string>>;
const NO_QUERY: Query = Object.freeze({});

export type UpgradeRoute =
  | { kind: 'main'; query: Query }
  | { kind: 'secure'; query: Query }
  | { kind: 'user'; userId: string; query: Query };

/** The endpoint and query of an upgrade, checked. Throws {@link UpgradeRefused}. */
export function readRoute(request: IncomingMessage): UpgradeRoute {
  const target = request.url ?? '/';
  const mark = target.indexOf('?');
  const path = mark === -1 ? target : target.slice(0, mark);
  const encoded = path.startsWith(`${MAIN_PATH}/`) ? path.slice(MAIN_PATH.length + 1) : null;
  if (encoded === null ? path !== MAIN_PATH : encoded === '' || encoded.includes('/')) {
    throw new UpgradeRefused(404, 'There is no WebSocket endpoint here.');
  }
  checkHandshake(request);
  const query = mark === -1 ? NO_QUERY : readQuery(target.slice(mark + 1));
  if (encoded === null) return { kind: 'main', query };
  const userId = decode(encoded);
  if (userId === 'secure') return { kind: 'secure', query };
  if (!isUserId(userId)) throw new UpgradeRefused(400, 'The user id in the path is not valid.');
  return { kind: 'user', userId, query };
}

function checkHandshake({ method, headers }: IncomingMessage): void {
  if (method !== 'GET') throw new UpgradeRefused(405, 'A WebSocket handshake is a GET.');
  if (headers.upgrade?.toLowerCase() !== 'websocket')
    throw new UpgradeRefused(400, 'The only upgrade here is to websocket.');
  if (headers['sec-websocket-version'] !== '13')
    throw new UpgradeRefused(426, 'The WebSocket version is 13.');
  if (!WEBSOCKET_KEY.test(headers['sec-websocket-key'] ?? ''))
    throw new UpgradeRefused(400, 'Sec-WebSocket-Key is not valid.');
}

function readQuery(text: string): Query {
  const query: Query = {};
  for (const pair of text.split('&')) {
    const equals = pair.indexOf('=');
    const name = decode((equals === -1 ? pair : pair.slice(0, equals)).replaceAll('+', ' '));
    const known = PARAMETERS.find((parameter) => parameter === name);
    if (known === undefined) continue;
    if (query[known] !== undefined) throw new UpgradeRefused(400, `${known} is given twice.`);
    query[known] = decode(equals === -1 ? '' : pair.slice(equals + 1).replaceAll('+', ' '));
  }
  if (query.frames !== undefined && query.frames !== 'text')
    throw new UpgradeRefused(400, 'frames can only be text.');
  for (const name of ['lastEventId', 'lastDirectEventId'] as const) checkEventId(name, query[name]);
  for (const name of ['epoch', 'directEpoch'] as const) {
    if ((query[name] ?? '').length > MAX_EPOCH_LENGTH) throw new UpgradeRefused(400, `${name} is not valid.`);
  }
  return query;
}

function checkEventId(name: string, value: string | undefined): void {
  if (value === undefined || value === 'acked') return;
  if (!/^\d{1,16}$/.test(value) || !Number.isSafeInteger(Number(value)))
    throw new UpgradeRefused(400, `${name} is not valid.`);
}

/** What the query asks to go on from. */
export function resumeRequest(query: Query): ResumeRequest {
  return {
    broadcast: resumePoint(query.lastEventId, query.epoch),
    direct: resumePoint(query.lastDirectEventId, query.directEpoch),
  };
}

function resumePoint(id: string | undefined, epoch: string | undefined): ResumePoint | null {
  if (id === undefined) return null;
  return id === 'acked' ? { kind: 'acked' } : { kind: 'resume', id: Number(id), epoch };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // Not UTF-8 once decoded: nobody's id, token or number.
    throw new UpgradeRefused(400, 'The percent-encoding is not valid.');
  }
}

/** The token among the subprotocols; the server selects `fanfare.v1` and never echoes the other. */
export function readSubprotocols({ headers }: IncomingMessage): { token: string | null } {
  const header = headers['sec-websocket-protocol'];
  if (header === undefined) return { token: null };
  const offered = header.split(',').map((protocol) => protocol.trim());
  if (!offered.every((protocol) => TOKEN.test(protocol)) || new Set(offered).size !== offered.length) {
    throw new UpgradeRefused(400, 'Sec-WebSocket-Protocol is not valid.');
  }
  const bearers = offered.filter((protocol) => protocol.startsWith(BEARER));
  if (bearers.length === 0) return { token: null };
  if (bearers.length > 1 || !offered.includes(SUBPROTOCOL)) {
    throw new UpgradeRefused(400, `A bearer subprotocol needs ${SUBPROTOCOL} beside it.`);
  }
  const token = bearers[0]?.slice(BEARER.length) ?? '';
  return { token: token === '' ? null : token };
}

export function cookie({ headers }: IncomingMessage, name: string): string {
  for (const pair of (headers.cookie ?? '').split(';')) {
    const equals = pair.indexOf('=');
    if (equals !== -1 && pair.slice(0, equals).trim() === name)
      return pair
        .slice(equals + 1)
        .trim()
        .replace(/^"(.*)"$/, '$1');
  }
  return '';
}

/** Whether a page of this origin was served by the host that is asked, default ports included. */
export function isOwnOrigin(origin: string, { headers }: IncomingMessage): boolean {
  if (!URL.canParse(origin)) return false;
  const { protocol, host, origin: normal } = new URL(origin);
  if (normal !== origin || (protocol !== 'http:' && protocol !== 'https:')) return false;
  const own = `${protocol}//${headers.host ?? ''}`;
  return URL.canParse(own) && new URL(own).host === host;
}

/** The client's address: the socket's, or what the outermost of the trusted proxies saw. */
export function clientAddress({ headers, socket }: IncomingMessage, trustedHops: number): string {
  const peer = socket.remoteAddress ?? '';
  const forwarded = headers['x-forwarded-for'];
  const given = (Array.isArray(forwarded) ? forwarded.join(',') : (forwarded ?? '')).split(',');
  const hops = [...given.map((address) => address.trim()).filter((address) => address !== ''), peer];
  const address = hops[Math.max(0, hops.length - 1 - trustedHops)] ?? peer;
  return address.replace(/^::ffff:/, '');
}
