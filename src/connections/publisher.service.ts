import { Injectable } from '@nestjs/common';
import type { Publication, Published } from '../core/broker.js';
import { Broker, BrokerUnavailable } from '../core/broker.js';
import { Telemetry } from '../core/telemetry.js';
import { ProtocolError } from '../protocol/errors.js';

/** Publishes for clients and counts what became of it. */
@Injectable()
export class PublisherService {
  constructor(
    private readonly broker: Broker,
    private readonly telemetry: Telemetry,
  ) {}

  /** Rejects with the client's `broker_unavailable`: the event may or may not have been stored. */
  async publish(publication: Publication): Promise<Published> {
    const durability = this.broker.isDurable(publication.channel) ? 'durable' : 'ephemeral';
    try {
      const published = await this.broker.publish(publication);
      this.telemetry.eventPublished(durability, published.duplicate ? 'duplicate' : 'ok');
      return published;
    } catch (error) {
      if (!(error instanceof BrokerUnavailable)) throw error;
      this.telemetry.eventPublished(durability, 'unavailable');
      throw new ProtocolError('broker_unavailable');
    }
  }
}
