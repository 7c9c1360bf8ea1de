import type { ControlAnswer, ControlCommand } from '../core/control.js';
import { ControlBus } from '../core/control.js';
import { BrokerUnavailable } from '../core/broker.js';
import type { RedisCalls } from './redis-calls.js';

/** An instance that does not answer in this time is dying: its lease ends soon. */
const ANSWER_MS = 1_000;

/** Control commands as questions to all live instances. */
export class RedisControl extends ControlBus {
  constructor(private readonly calls: RedisCalls) {
    super();
  }

  start(carryOut: (command: ControlCommand) => Promise<ControlAnswer>): void {
    this.calls.answer('control', async (text) =>
      JSON.stringify(await carryOut(JSON.parse(text) as ControlCommand)),
    );
  }

  async ask(command: ControlCommand): Promise<ControlAnswer[]> {
    try {
      const live = await this.calls.liveInstances();
      // This one carries it out as well, also before it has its lease.
      const instances = [...new Set([...live, this.calls.instance])];
      const answers = await this.calls.ask('control', JSON.stringify(command), instances, {
        timeoutMs: ANSWER_MS,
      });
      return [...answers.values()].map((text) => JSON.parse(text) as ControlAnswer);
    } catch (error) {
      throw error instanceof BrokerUnavailable ? error : new BrokerUnavailable(error);
    }
  }
}
