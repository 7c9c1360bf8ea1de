import { Logger, Module } from '@nestjs/common';
import { Settings } from '../config/settings.js';
import { DirectWrites } from './direct-writes.js';
import { NativeWrites } from './native-writes.js';
import { SocketWrites } from './socket-writes.js';
import { prove } from './writes-proof.js';

/** From the cheapest: each needs more of what lies below Node's streams than the one after it. */
const WAYS = ['ring', 'batch', 'direct', 'stream'] as const satisfies readonly Settings['SOCKET_WRITES'][];

@Module({
  providers: [{ provide: SocketWrites, useFactory: socketWrites, inject: [Settings] }],
  exports: [SocketWrites],
})
export class SocketsModule {}

/** The way that is set, or else the next that holds here; null where sockets are written to as streams. */
export async function socketWrites({
  SOCKET_WRITES,
}: Pick<Settings, 'SOCKET_WRITES'>): Promise<SocketWrites | null> {
  const log = new Logger('Sockets');
  for (const way of WAYS.slice(WAYS.indexOf(SOCKET_WRITES))) {
    if (way === 'stream') break;
    try {
      const writes = way === 'direct' ? DirectWrites.open() : NativeWrites.open(way);
      await prove(writes);
      return writes;
    } catch (error) {
      log.warn(
        `SOCKET_WRITES=${way} can't be had: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }
  return null;
}
