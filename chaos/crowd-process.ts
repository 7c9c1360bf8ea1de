import { connect, type Socket } from 'node:net';
import { encode, opcode, upgradeRequest } from '../test/support/raw-socket.js';
import type { Closing, Opening, Order, Report } from './crowd.js';

const OPEN_AT_A_TIME = 50;
const OPEN_TIMEOUT_MS = 20_000;

/** One connection that does no more than it must: no JSON is parsed, no frame is kept. */
class Lean {
  closing: Closing | null = null;
  readonly ready: Promise<string | null>;
  #bytes: Buffer = Buffer.alloc(0);
  #isUpgraded = false;
  #settle: (failure: string | null) => void = () => undefined;
  readonly #socket: Socket;

  constructor(
    readonly index: number,
    private readonly opening: Opening,
  ) {
    this.ready = new Promise((resolve) => (this.#settle = resolve));
    const target = new URL(opening.url);
    this.#socket = connect({ host: target.hostname, port: Number(target.port), noDelay: true });
    this.#socket.write(upgradeRequest(target, opening.headers ?? {}));
    this.#socket.on('data', (chunk) => this.#read(chunk));
    this.#socket.on('error', () => this.#socket.destroy());
    this.#socket.on('close', () => this.#end(1006));
    setTimeout(() => this.#settle('not ready in time'), OPEN_TIMEOUT_MS).unref();
  }

  say(text: string): void {
    if (this.closing === null) this.#socket.write(encode({ payload: text }));
  }

  cut(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    if (!this.#isUpgraded && !this.#readHead()) return;
    while (this.#readFrame());
  }

  #readHead(): boolean {
    const end = this.#bytes.indexOf('\r\n\r\n');
    if (end === -1) return false;
    const status = this.#bytes.toString('latin1', 9, 12);
    this.#bytes = this.#bytes.subarray(end + 4);
    if (status !== '101') {
      this.#settle(`refused with ${status}`);
      this.#socket.destroy();
      return false;
    }
    this.#isUpgraded = true;
    for (const text of this.opening.says ?? []) this.say(text);
    return true;
  }

  #readFrame(): boolean {
    const bytes = this.#bytes;
    if (bytes.length < 2) return false;
    let [at, size] = [2, bytes.readUInt8(1)];
    if (size === 126 && bytes.length >= 4) [at, size] = [4, bytes.readUInt16BE(2)];
    else if (size === 127 && bytes.length >= 10) [at, size] = [10, Number(bytes.readBigUInt64BE(2))];
    else if (size >= 126) return false;
    if (bytes.length < at + size) return false;
    this.#bytes = bytes.subarray(at + size);
    this.#onFrame(bytes.readUInt8(0) & 0x0f, bytes.subarray(at, at + size));
    return true;
  }

  #onFrame(kind: number, payload: Buffer): void {
    if (kind === opcode.close) {
      this.#end(payload.length >= 2 ? payload.readUInt16BE(0) : 1005);
      this.#socket.end(encode({ opcode: opcode.close, payload }));
    } else if (kind === opcode.ping) {
      this.#socket.write(encode({ opcode: opcode.pong, payload }));
    } else if (payload.includes(this.opening.until)) {
      this.#settle(null);
    }
  }

  #end(code: number): void {
    this.#settle(`closed with ${code}`);
    this.closing ??= {
      index: this.index,
      code,
      atMs: Number(process.hrtime.bigint()) / 1e6,
      wallMs: Date.now(),
    };
  }
}

const connections: Lean[] = [];

async function open(openings: readonly Opening[]): Promise<string[]> {
  const failures: string[] = [];
  for (let start = 0; start < openings.length; start += OPEN_AT_A_TIME) {
    const batch = openings.slice(start, start + OPEN_AT_A_TIME).map((opening) => {
      const connection = new Lean(connections.length, opening);
      connections.push(connection);
      return connection.ready;
    });
    for (const failure of await Promise.all(batch)) if (failure !== null) failures.push(failure);
  }
  return failures;
}

function closings(indices: readonly number[]): Closing[] {
  return indices.flatMap((index) => connections[index]?.closing ?? []);
}

async function untilClosed(indices: readonly number[], timeoutMs: number): Promise<Closing[]> {
  const deadline = performance.now() + timeoutMs;
  while (performance.now() < deadline && closings(indices).length < indices.length)
    await new Promise((resolve) => setTimeout(resolve, 20));
  return closings(indices);
}

async function carryOut(order: Order): Promise<Report> {
  switch (order.kind) {
    case 'open': {
      const first = connections.length;
      const failures = await open(order.openings);
      return { kind: 'opened', first, failures };
    }
    case 'closings':
      return { kind: 'closings', closings: await untilClosed(order.indices, order.timeoutMs) };
    case 'cut':
      for (const index of order.indices) connections[index]?.cut();
      return { kind: 'done' };
    default: {
      const exhaustive: never = order;
      throw new Error(`unknown order ${JSON.stringify(exhaustive)}`);
    }
  }
}

process.on('message', ({ number, order }: { number: number; order: Order }) => {
  carryOut(order).then(
    (report) => process.send?.({ number, report }),
    (error: unknown) => {
      process.stderr.write(`${String(error)}\n`);
      process.exit(1);
    },
  );
});
process.on('disconnect', () => process.exit());
