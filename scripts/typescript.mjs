// Lets Node 20 run the TypeScript of this repository as it is: `node --import ./scripts/typescript.mjs chaos/run.ts`.
// Types are stripped file by file by the compiler that is a dev dependency anyway; `npm run typecheck` checks them.
import { register } from 'node:module';

register('./typescript-hooks.mjs', import.meta.url);
process.setSourceMapsEnabled(true);
