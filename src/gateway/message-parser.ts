import { ProtocolError } from '../protocol/errors.js';
import type { Ref } from '../protocol/messages.js';
import { isRef } from '../protocol/names.js';

export type ClientMessage = Readonly<Record<string, unknown>>;

export const MAX_DEPTH = 64;
/** Only such numbers can be beyond what a double holds; everything else need not be looked at twice. */
const MAYBE_NOT_FINITE = /\d[eE]\+?\d{2}|\d{290}/;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** Whether arrays and objects nest deeper than allowed; a look at the text, before anything is parsed. */
export function isTooDeep(text: string): boolean {
  // As many levels need as many brackets, and looking for those is far cheaper than walking through the text.
  return count(text, '{') + count(text, '[') > MAX_DEPTH && nestsTooDeep(text);
}

/** Counts no further than needed. */
function count(text: string, bracket: string): number {
  let found = 0;
  for (let at = text.indexOf(bracket); at !== -1 && found <= MAX_DEPTH; at = text.indexOf(bracket, at + 1))
    found += 1;
  return found;
}

function nestsTooDeep(text: string): boolean {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (inString) {
      if (code === BACKSLASH) at += 1;
      else if (code === QUOTE) inString = false;
    } else if (code === QUOTE) {
      inString = true;
    } else if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      depth += 1;
      if (depth > MAX_DEPTH) return true;
    } else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
      depth -= 1;
    }
  }
  return false;
}

/** The JSON value of a frame, or undefined where it is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The caller has an answer for it; what is wrong with the text is the client's to know.
    return undefined;
  }
}

export function isMessage(value: unknown): value is ClientMessage & { type: string } {
  return isObject(value) && Object.hasOwn(value, 'type') && typeof value.type === 'string';
}

function isObject(value: unknown): value is ClientMessage {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The message of a frame. Throws `invalid_json` or `invalid_message`. */
export function parseMessage(text: string): ClientMessage & { type: string } {
  if (isTooDeep(text))
    throw new ProtocolError('invalid_message', `A message nests at most ${MAX_DEPTH} levels.`);
  const value = parseJson(text);
  if (value === undefined) throw new ProtocolError('invalid_json');
  if (!isObject(value)) throw new ProtocolError('invalid_message', 'A message is a JSON object.');
  return checkMessage(value, text);
}

function checkMessage(value: ClientMessage, text: string): ClientMessage & { type: string } {
  if (!isMessage(value)) {
    throw new ProtocolError('invalid_message', undefined, {
      details: [{ field: 'type', problem: 'must be a string' }],
    });
  }
  if (hasHugeNumber(text, value)) {
    throw new ProtocolError('invalid_message', 'A number is too large for an IEEE double.');
  }
  return value;
}

/** Whether a number in the text is beyond a double: it would be stored as null. */
export function hasHugeNumber(text: string, value: unknown): boolean {
  return MAYBE_NOT_FINITE.test(text) && !isFiniteAll(value);
}

/** The message's `ref` where it is a valid one. */
export function refOf(value: unknown): Ref | undefined {
  if (!isObject(value) || !Object.hasOwn(value, 'ref')) return undefined;
  return isRef(value.ref) ? value.ref : undefined;
}

function isFiniteAll(value: unknown): boolean {
  if (typeof value === 'number') return Number.isFinite(value);
  if (typeof value !== 'object' || value === null) return true;
  return Object.values(value).every(isFiniteAll);
}
