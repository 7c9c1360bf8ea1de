import type { Row } from '../row.js';
import { baseline } from './baseline.js';
import { bigRoom } from './big-room.js';
import { linkCut, seams } from './client-links.js';
import { dishonestResumes } from './dishonest-resumes.js';
import { cluster, failovers } from './failover.js';
import { foreignMessages } from './garbage.js';
import { allKilled, gatewayFrozen, gatewayKilled, rollingRestart } from './gateways.js';
import { handshakeStorm } from './handshakes.js';
import { idle } from './idle.js';
import {
  lostReply,
  outOfMemory,
  slowSubscriber,
  subscriberBlackHoled,
  subscriberDeaf,
} from './links-to-redis.js';
import { expiry, revocation } from './revocation.js';
import { origins } from './origins.js';
import { presenceWalk } from './presence-walk.js';
import { presenceKill } from './presence-kill.js';
import { redisEmptied, redisHung, redisKilled, redisKilledAlways, subscribersKilled } from './redis.js';
import { tenants } from './tenants.js';
import { webhook } from './webhook.js';
import { worker } from './worker.js';

/** Every row, in the order of the table. */
export const rows: readonly Row[] = [
  baseline,
  linkCut,
  seams,
  dishonestResumes,
  ...gatewayKilled,
  gatewayFrozen,
  ...rollingRestart,
  handshakeStorm,
  redisKilled,
  redisKilledAlways,
  redisEmptied,
  redisHung,
  subscriberBlackHoled,
  subscriberDeaf,
  ...failovers,
  lostReply,
  slowSubscriber,
  outOfMemory,
  subscribersKilled,
  cluster,
  allKilled,
  idle,
  bigRoom,
  presenceKill,
  presenceWalk,
  tenants,
  foreignMessages,
  origins,
  revocation,
  expiry,
  worker,
  webhook,
];
