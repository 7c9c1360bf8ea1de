import { dial, upgradeRequest } from '../../test/support/raw-socket.js';
import { RedisServer } from '../../test/support/redis-server.js';
import { secret, token } from '../../test/support/tokens.js';
import { Fleet } from '../fleet.js';
import type { Row } from '../row.js';

const ALLOWED = ['https://app.example', 'https://other.example:8443'];
const COOKIE = 'session';

/** Each is another Origin than those that are allowed. */
const WRONG = [
  '',
  'null',
  'undefined',
  '*',
  'https://evil.example',
  'https://app.example.evil',
  'https://app.example.',
  'https://app.examplE',
  'HTTPS://app.example',
  'https://app.example/',
  'https://app.example/path',
  'https://app.example:443',
  'https://app.example:8443',
  'https://evil-app.example',
  'https://sub.app.example',
  'https://app.example@evil.example',
  'https://evil.example/https://app.example',
  'https://evil.example?https://app.example',
  'https://evil.example#https://app.example',
  'https://app.example, https://evil.example',
  'https://evil.example https://app.example',
  'https://app.example%00.evil.example',
  'http://app.example',
  'wss://app.example',
  'https:app.example',
  '//app.example',
  'app.example',
  'file://',
  'data:text/html,x',
  'chrome-extension://app.example',
  'https://other.example',
  'https://other.example:8444',
  'https://other.example:08443',
];

export const origins: Row = {
  name: '30',
  fault: `an upgrade from ${WRONG.length} wrong Origins, each with a good token and cookie; a cookie without Origin`,
  criterion:
    'all refused by 403 before the upgrade is accepted, the cookie alone by 401; right ones accepted',
  async run(context) {
    const redis = context.own(await RedisServer.start());
    const settings = {
      JWT_SECRET: secret,
      AUTH_MODE: 'required',
      AUTH_COOKIE: COOKIE,
      ALLOWED_ORIGINS: ALLOWED.join(),
    };
    const fleet = await Fleet.start(context, { redis, size: { clients: 0 }, settings });
    const failures: string[] = [];
    const jwt = token('ana');
    const cookie = `${COOKIE}=${jwt}`;
    let tries = 0;
    const expect = async (status: string, headers: Record<string, string>): Promise<void> => {
      for (const gateway of fleet.gateways) {
        tries += 1;
        const answer = await answerTo(gateway.ws(), headers);
        if (answer !== status) failures.push(`${JSON.stringify(headers['Origin'])} is answered by ${answer}`);
      }
    };
    for (const origin of WRONG) {
      await expect('403', { Origin: origin, Cookie: cookie });
      await expect('403', { Origin: origin, Authorization: `Bearer ${jwt}` });
    }
    await expect('401', { Cookie: cookie });
    for (const origin of ALLOWED) await expect('101', { Origin: origin, Cookie: cookie });
    // A program is no browser: it sends no Origin, and its token is its own.
    await expect('101', { Authorization: `Bearer ${jwt}` });
    return { failures, notes: [`${tries} upgrades`] };
  },
};

/** The status of the first line that the gateway sends. */
async function answerTo(url: string, headers: Record<string, string>): Promise<string> {
  const target = new URL(url);
  const socket = await dial(target.hostname, Number(target.port));
  socket.write(upgradeRequest(target, headers));
  const first = new Promise<Buffer>((resolve) => socket.once('data', resolve));
  const line = (await first).toString('latin1', 0, 32);
  socket.destroy();
  return line.split(' ')[1] ?? line;
}
