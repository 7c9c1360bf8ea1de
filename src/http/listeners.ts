import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { OnApplicationShutdown } from '@nestjs/common';
import { Injectable } from '@nestjs/common';
import { Settings } from '../config/settings.js';

type RequestListener = (request: IncomingMessage, response: ServerResponse) => void;

/** The internal port, where it is wanted: a second HTTP server before the same routes, with no upgrades. */
@Injectable()
export class Listeners implements OnApplicationShutdown {
  private internal: Server | null = null;

  constructor(private readonly settings: Settings) {}

  /** Listens on `INTERNAL_PORT`; answers the port, or null where there is none. */
  async listenInternally(route: RequestListener): Promise<number | null> {
    const { INTERNAL_PORT, HOST } = this.settings;
    if (INTERNAL_PORT === undefined) return null;
    const server = createServer(route);
    this.internal = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(INTERNAL_PORT, HOST, resolve);
    });
    const address: AddressInfo | string | null = server.address();
    return typeof address === 'object' && address !== null ? address.port : null;
  }

  /** Whether the request came in on the internal port. */
  isInternal(request: IncomingMessage): boolean {
    return this.internal !== null && 'server' in request.socket && request.socket.server === this.internal;
  }

  async onApplicationShutdown(): Promise<void> {
    const { internal } = this;
    if (internal === null) return;
    internal.closeAllConnections();
    await new Promise<void>((resolve) => {
      internal.close(() => resolve());
    });
  }
}
