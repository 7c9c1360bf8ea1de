import 'reflect-metadata';
import { existsSync } from 'node:fs';
import { loadEnvFile } from 'node:process';
import { Logger } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createApplication, listenAll } from './bootstrap.js';
import { Settings, SettingsError } from './config/settings.js';
import { DrainService } from './connections/drain.service.js';

/** How long a second signal waits for close frames to leave. */
const LAST_WORDS_MS = 50;

const logger = new Logger('Fanfare');

async function main(): Promise<void> {
  if (existsSync('.env')) loadEnvFile('.env');
  const app = await createApplication(process.env);
  endOnSignals(app);
  const { url, internalUrl } = await listenAll(app);
  const settings = app.get(Settings);
  logger.log(`listening on ${url} (${settings.usesRedis ? 'Redis' : 'embedded broker'})`);
  if (internalUrl !== null) logger.log(`internal listening on ${internalUrl}`);
  if (!settings.isProduction)
    logger.log(`try: npx wscat -c "${url.replace('http', 'ws')}/ws?client_id=alice"`);
}

/** The first signal drains and ends with 0; a second one ends at once with 1. */
function endOnSignals(app: NestFastifyApplication): void {
  let signals = 0;
  const onSignal = (signal: NodeJS.Signals): void => {
    signals += 1;
    if (signals > 1) {
      app.get(DrainService).closeAllNow();
      setTimeout(() => process.exit(1), LAST_WORDS_MS);
      return;
    }
    logger.log(`${signal}: draining`);
    app.close().then(
      () => process.exit(0),
      (error: unknown) => fail(error),
    );
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  // What nobody expected: the state can't be trusted, so everybody is sent elsewhere.
  const onFault = (error: unknown): void => {
    logger.fatal(error instanceof Error ? (error.stack ?? error.message) : String(error));
    void app.close().finally(() => process.exit(1));
  };
  process.on('uncaughtException', onFault);
  process.on('unhandledRejection', onFault);
}

function fail(error: unknown): void {
  if (error instanceof SettingsError) for (const fault of error.faults) console.error(fault);
  else console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}

main().catch(fail);
