import { createHmac, timingSafeEqual } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

/** One request, as a line of the file: what a backend would have in its database. */
export interface Receipt {
  readonly delivery: string;
  readonly isSigned: boolean;
  /** `stored`: kept and 204; `refused`: not kept and 500; `denied`: kept, and 500 all the same. */
  readonly verdict: 'stored' | 'refused' | 'denied';
  readonly events: readonly { id: string; type: string; data: { user_id?: string; room?: string } }[];
}

const TOLERANCE_S = 300;
/** Before storing, and between storing and answering: a kill may fall there. */
const PAUSE_MAX_MS = 20;

/** The algorithm of https://www.standardwebhooks.com, written from its specification. */
function isSigned(secret: string, headers: IncomingHttpHeaders, body: string): boolean {
  const [id, timestamp] = [headers['webhook-id'], headers['webhook-timestamp']];
  if (typeof id !== 'string' || typeof timestamp !== 'string' || !/^\d+$/.test(timestamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_S) return false;
  const expected = createHmac('sha256', secret).update(`${id}.${timestamp}.${body}`).digest();
  const [version, signature = ''] = String(headers['webhook-signature']).split(',');
  const given = Buffer.from(signature, 'base64');
  return version === 'v1' && given.length === expected.length && timingSafeEqual(given, expected);
}

function verdictOf(dice: number): Receipt['verdict'] {
  if (dice < 0.1) return 'refused';
  return dice < 0.15 ? 'denied' : 'stored';
}

const paused = (): Promise<void> => pause(Math.random() * PAUSE_MAX_MS);

const [port = '', secret = '', file = ''] = process.argv.slice(2);
createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => void receive(request.headers, Buffer.concat(chunks).toString(), response));
}).listen(Number(port), '127.0.0.1');

async function receive(headers: IncomingHttpHeaders, body: string, response: ServerResponse): Promise<void> {
  process.send?.('received');
  await paused();
  const verdict = verdictOf(Math.random());
  const { events } = JSON.parse(body) as Pick<Receipt, 'events'>;
  const delivery = String(headers['webhook-id']);
  const receipt: Receipt = { delivery, isSigned: isSigned(secret, headers, body), verdict, events };
  // In one step, and in the page cache when it returns: kill -9 takes nothing back.
  appendFileSync(file, `${JSON.stringify(receipt)}\n`);
  await paused();
  response.writeHead(verdict === 'stored' ? 204 : 500).end();
}
