import { isUtf8 } from 'node:buffer';
import { BadRequestException } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { ApiGuard } from './api/api.guard.js';
import { AppModule } from './app.module.js';
import { Instance } from './config/instance.js';
import { PinoLogger } from './config/pino.logger.js';
import type { Environment } from './config/setting.js';
import { readSettings, Settings } from './config/settings.js';
import { ConnectionsService } from './connections/connections.service.js';
import { GatewayAdapter } from './gateway/gateway.adapter.js';
import { hasHugeNumber, isTooDeep, parseJson } from './gateway/message-parser.js';
import { HttpErrorFilter } from './http/http-errors.js';
import { Listeners } from './http/listeners.js';
import { MetricsService } from './metrics/metrics.service.js';

/** A request head that is not complete after this is cut; looked at every so often. */
const HEADERS_TIMEOUT_MS = 8_000;
const HEADERS_CHECK_MS = 1_000;
const MAX_HEADER_BYTES = 8_192;
/** A user id of 128 code points of 4 bytes, percent-encoded. */
const MAX_PARAM_LENGTH = 1_536;
/** A batch of publications. */
const MAX_BODY_BYTES = 8 * 1024 * 1024;

/** The application of an environment, wired and not listening yet. Throws `SettingsError`. Shared by main.ts and the tests. */
export async function createApplication(environment: Environment): Promise<NestFastifyApplication> {
  const settings = readSettings(environment);
  const http = {
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: HEADERS_TIMEOUT_MS,
    connectionsCheckingInterval: HEADERS_CHECK_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
  };
  const app = await NestFactory.create<NestFastifyApplication>(
    AppModule.with(settings),
    new FastifyAdapter({
      http,
      routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
      forceCloseConnections: true,
    }),
    { bufferLogs: true, abortOnError: false },
  );
  app.useBodyParser('application/json', { bodyLimit: MAX_BODY_BYTES }, readBody);
  app.useGlobalFilters(new HttpErrorFilter());
  const api = app.get(ApiGuard);
  // Before the body is read: a stranger's costs nothing.
  app
    .getHttpAdapter()
    .getInstance()
    .addHook('onRequest', async (request) => {
      if (request.url.startsWith('/api/')) api.checkDoor(request);
    });
  app.useLogger(new PinoLogger(settings, app.get(Instance).name));
  app.useWebSocketAdapter(new GatewayAdapter(app));
  const { hub } = app.get(ConnectionsService);
  app.get(MetricsService).watchRooms(() => hub.roomCount);
  return app;
}

export interface Addresses {
  url: string;
  internalUrl: string | null;
}

/** Listens as the settings say; answers where, with the ports that were really taken. */
export async function listenAll(app: NestFastifyApplication): Promise<Addresses> {
  const { HOST, PORT } = app.get(Settings);
  await app.listen(PORT, HOST);
  const address = app.getHttpServer().address();
  const port = typeof address === 'object' && address !== null ? address.port : PORT;
  const fastify = app.getHttpAdapter().getInstance();
  const internalPort = await app
    .get(Listeners)
    .listenInternally((request, response) => fastify.routing(request, response));
  const host = HOST === '0.0.0.0' || HOST === '::' ? 'localhost' : HOST.includes(':') ? `[${HOST}]` : HOST;
  return {
    url: `http://${host}:${port}`,
    internalUrl: internalPort === null ? null : `http://${host}:${internalPort}`,
  };
}

/** Listens and answers the public address alone. */
export async function listen(app: NestFastifyApplication): Promise<string> {
  return (await listenAll(app)).url;
}

/** A JSON body, by the same rules as a message: not too deep, no key of it means anything. An empty one is none. */
function readBody(
  _request: unknown,
  body: Buffer,
  done: (error: Error | null, value?: unknown) => void,
): void {
  const text = isUtf8(body) ? body.toString('utf8') : null;
  const value = text === null || isTooDeep(text) ? undefined : text === '' ? {} : parseJson(text);
  if (value === undefined || hasHugeNumber(text ?? '', value))
    done(
      new BadRequestException(
        'The body is not valid JSON in UTF-8, nests too deeply, or holds a number that is too large.',
      ),
    );
  else done(null, value);
}
