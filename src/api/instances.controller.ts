import { Get } from '@nestjs/common';
import { Scope } from '../auth/api-key.guard.js';
import type { InstanceDescription } from '../core/control.js';
import { ControlBus } from '../core/control.js';
import { ApiController } from './api-controller.js';

@ApiController('instances')
@Scope('read')
export class InstancesController {
  constructor(private readonly control: ControlBus) {}

  @Get()
  async list(): Promise<{ instances: InstanceDescription[] }> {
    const answers = await this.control.ask({ kind: 'describe' });
    const instances = answers.flatMap(({ instance }) => (instance === undefined ? [] : [instance]));
    return { instances: instances.sort((a, b) => a.started_at - b.started_at) };
  }
}
