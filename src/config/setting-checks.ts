import { algorithmsOf } from './algorithms.js';

export function isHostPort(value: unknown): boolean {
  if (typeof value !== 'string') return false;
  const port = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})$/.exec(value)?.[1];
  return port !== undefined && Number(port) > 0 && Number(port) < 65_536;
}

export function isRedisUrl(value: unknown): boolean {
  return typeof value === 'string' && /^rediss?:\/\//.test(value) && URL.canParse(value);
}

export function isHttpUrl(value: unknown): boolean {
  return typeof value === 'string' && /^https?:\/\//.test(value) && URL.canParse(value);
}

export function isOrigin(value: unknown): boolean {
  return typeof value === 'string' && URL.canParse(value) && new URL(value).origin === value;
}

export function isChannelPattern(value: unknown): boolean {
  return typeof value === 'string' && /^(?:room:|user:|broadcast$|[a-z:]*\*)/.test(value);
}

export function isPublicKey(value: unknown): boolean {
  try {
    return !String(value).includes('PRIVATE KEY') && algorithmsOf(String(value)).length > 0;
  } catch {
    // Not a key at all is the same answer as a key of a kind that can't be used.
    return false;
  }
}

export function isWebhookSecret(value: unknown): boolean {
  if (typeof value !== 'string' || !value.startsWith('whsec_')) return typeof value === 'string';
  return Buffer.from(value.slice(6), 'base64').length >= 24;
}
