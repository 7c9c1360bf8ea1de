import { Transform } from 'class-transformer';
import { ValidateBy } from 'class-validator';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface ApiKey {
  key: string;
  scopes: ReadonlySet<string>;
}

const API_SCOPES = ['publish', 'read', 'control'];

export const text = (value: string): string => value;
export const list = (value: string): string[] =>
  value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
export const integer = (value: string): number => (/^\d{1,15}$/.test(value) ? Number(value) : Number.NaN);
export const flag = (value: string): boolean | string =>
  value === 'true' ? true : value === 'false' ? false : value;
export const hops = (value: string): number => (value === 'false' ? 0 : integer(value));

/** `key` or `key:scope+scope`, comma-separated; null where it is not that. */
export function apiKeys(value: string): ApiKey[] | null {
  const keys: ApiKey[] = [];
  for (const item of list(value)) {
    const [key = '', scopes, ...rest] = item.split(':');
    const names = scopes === undefined ? API_SCOPES : scopes.split('+');
    if (key === '' || rest.length > 0 || !names.every((name) => API_SCOPES.includes(name))) return null;
    if (keys.some((other) => other.key === key)) return null;
    keys.push({ key, scopes: new Set(names) });
  }
  return keys;
}

/** The names of all settings: they are those of the variables. */
export const SETTING_NAMES: string[] = [];

/** Reads the setting from its text; unset or empty it is `unset`, in production `unsetInProduction`. */
export function Setting<T>(
  parse: (value: string) => T,
  unset?: T,
  unsetInProduction: T | undefined = unset,
): PropertyDecorator {
  const transform = Transform(({ value, obj }: { value: unknown; obj: Environment }) => {
    if (typeof value === 'string' && value !== '') return parse(value);
    return obj.NODE_ENV === 'production' ? unsetInProduction : unset;
  });
  return (target, property) => {
    SETTING_NAMES.push(String(property));
    transform(target, property);
  };
}

/** A rule with the words that stand after the setting's name. */
export function Check(problem: string, holds: (value: unknown) => boolean, each = false): PropertyDecorator {
  return ValidateBy(
    { name: problem, validator: { validate: holds, defaultMessage: () => `$property ${problem}` } },
    { each },
  );
}
