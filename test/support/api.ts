/** What a call of the HTTP API answered; a body that is no JSON object is a failure. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Any HTTP server that answers in JSON: an instance in this process or one of its own. */
export interface HttpDoor {
  readonly url: string;
}

/** Calls `/api/v1` of an instance with one key. */
export class Api {
  constructor(
    private readonly door: () => HttpDoor,
    private readonly key = 'all-key',
  ) {}

  /** A `body` that is a string is sent as it is. */
  async call(
    method: string,
    path: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Answer> {
    const response = await fetch(`${this.door().url}/api/v1${path}`, {
      method,
      headers: {
        ...(this.key === '' ? {} : { authorization: `Bearer ${this.key}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    return { status: response.status, headers: response.headers, body: object(await response.text()) };
  }

  get(path: string): Promise<Answer> {
    return this.call('GET', path);
  }

  post(path: string, body: unknown = {}, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    return this.call('POST', path, body, headers);
  }

  /** The body of an answer that is 200, and a failure where it is not. */
  async ok(
    method: string,
    path: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Answer['body']> {
    const answer = await this.call(method, path, body, headers);
    if (answer.status === 200) return answer.body;
    throw new Error(`${method} ${path} answered ${answer.status}: ${JSON.stringify(answer.body)}`);
  }

  async publish(channel: string, fields: object = {}): Promise<Answer['body']> {
    return this.ok('POST', '/publish', { channel, content: null, ...fields });
  }
}

/** A field that is a list of objects. */
export function list(body: Answer['body'], field: string): Record<string, unknown>[] {
  const value = body[field];
  if (!Array.isArray(value)) throw new Error(`${field} is no list in ${JSON.stringify(body).slice(0, 300)}`);
  return value as Record<string, unknown>[];
}

function object(text: string): Record<string, unknown> {
  const value: unknown = JSON.parse(text);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new Error(`the API answered ${text.slice(0, 300)}, which is no JSON object`);
}
