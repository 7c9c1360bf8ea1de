import { readFile } from 'node:fs/promises';
import { Controller, Get, Header, UseGuards } from '@nestjs/common';
import { InternalPortGuard } from './internal.guard.js';

/** The machine-readable descriptions that lie beside the package: what they say is what is served. */
@Controller()
@UseGuards(InternalPortGuard)
export class DescriptionsController {
  @Get('openapi.yaml')
  @Header('Content-Type', 'application/yaml; charset=utf-8')
  openapi(): Promise<string> {
    return readDescription('openapi.yaml');
  }

  @Get('asyncapi.yaml')
  @Header('Content-Type', 'application/yaml; charset=utf-8')
  asyncapi(): Promise<string> {
    return readDescription('asyncapi.yaml');
  }
}

function readDescription(name: string): Promise<string> {
  return readFile(new URL(`../../${name}`, import.meta.url), 'utf8');
}
