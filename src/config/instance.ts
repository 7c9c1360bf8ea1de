import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { Injectable } from '@nestjs/common';

/** One life of one process: its name is never used again, so leases and answers can't be mistaken. */
@Injectable()
export class Instance {
  readonly name = `${hostname()
    .replace(/[^A-Za-z0-9-]/g, '-')
    .slice(0, 40)}-${randomBytes(4).toString('hex')}`;
  readonly startedAtMs = Date.now();

  get uptimeSeconds(): number {
    return Math.floor((Date.now() - this.startedAtMs) / 1000);
  }
}
