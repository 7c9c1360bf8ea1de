import { setTimeout as pause } from 'node:timers/promises';
import { connect, type Client } from '../../test/support/client.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { closesBesides, Fleet } from '../fleet.js';
import type { Row } from '../row.js';

/** Between the end of listening and the end of the process. */
const PORT_CLOSES_MS = 250;

const MAX_OPEN = 2_000;

export const handshakeStorm: Row = {
  name: '8',
  fault: 'SIGTERM in a storm of handshakes and publishes',
  criterion:
    'every handshake is accepted and closed with 1012, refused with 503, or finds the port closed (reset in the last 250 ms where the kernel had it queued); nothing acknowledged is lost; exit 0',
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const fleet = await Fleet.start(context, {
      redis,
      size: { clients: Math.min(context.size.clients, 100) },
    });
    const [victim] = fleet.gateways;
    if (victim === undefined) throw new Error('no gateway');
    const outcomes = new Map<string, number>();
    const note = (outcome: string): void => void outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    const resetsAtMs: number[] = [];
    const stormers: Client[] = [];
    let isStorming = true;
    let serial = 0;
    fleet.startLoad();
    await pause(1_000);
    const storm = Promise.all(
      Array.from({ length: context.size.isQuick ? 5 : 20 }, async () => {
        while (isStorming) {
          serial += 1;
          try {
            const client = await connect(victim.ws(), {
              query: { client_id: `storm${serial}` },
              timeoutMs: 10_000,
            });
            stormers.push(client);
            note('connected');
            // All that are closed by the drain are asked to come back spread over 2 ms each.
            if (stormers.length > MAX_OPEN) await stormers.shift()?.close();
          } catch (error) {
            const text = error instanceof Error ? error.message : String(error);
            if (text.includes('ECONNRESET')) resetsAtMs.push(performance.now());
            note(
              /refused with \d+|ECONNREFUSED|ECONNRESET|socket hang up|closed with \d+/.exec(text)?.[0] ??
                text.slice(0, 80),
            );
            await pause(20);
          }
        }
      }),
    );
    await pause((fleet.size.seconds * 1000) / 3);
    const code = await victim.stop('SIGTERM', 30_000);
    const closedFromMs = performance.now() - PORT_CLOSES_MS;
    await pause(500);
    isStorming = false;
    await storm;
    const closes = new Map<number, number>();
    for (const client of stormers) {
      const { code: closeCode } = await client.closed;
      closes.set(closeCode, (closes.get(closeCode) ?? 0) + 1);
    }
    await fleet.stopLoad();
    const failures: string[] = [];
    const fine = ['connected', 'refused with 503', 'ECONNREFUSED', 'ECONNRESET', 'closed with 1012'];
    const early = resetsAtMs.filter((atMs) => atMs < closedFromMs).length;
    if (early > 0) failures.push(`${early} handshakes reset before the port closed`);
    for (const [outcome, count] of outcomes)
      if (!fine.includes(outcome)) failures.push(`${count} handshakes: ${outcome}`);
    for (const [closeCode, count] of closes)
      if (closeCode !== 1012) failures.push(`${count} of the storm closed with ${closeCode}`);
    if (code !== 0) failures.push(`exit code ${code}`);
    if (closesBesides(fleet, 1012) > 0) failures.push('closes other than 1012');
    return fleet.result(
      failures,
      [...outcomes].map(([outcome, count]) => `${count} ${outcome}`),
    );
  },
};
