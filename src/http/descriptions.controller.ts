import { readFile } from 'node:fs/promises';
import { Controller, Get, Header, UseGuards } from '@nestjs/common';
import { parse } from 'yaml';
import type { OpenApi } from './docs-page.js';
import { docsPage } from './docs-page.js';
import { InternalPortGuard } from './internal.guard.js';

/** The descriptions that lie beside the package, as they are and as a page. */
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

  @Get('docs')
  @Header('Content-Type', 'text/html; charset=utf-8')
  @Header('Content-Security-Policy', "default-src 'none'; style-src 'unsafe-inline'")
  async docs(): Promise<string> {
    const api: OpenApi = parse(await readDescription('openapi.yaml'));
    return docsPage(api);
  }
}

function readDescription(name: string): Promise<string> {
  return readFile(new URL(`../../${name}`, import.meta.url), 'utf8');
}
