import { Injectable } from '@nestjs/common';
import type { Publication, Published } from '../core/broker.js';
import { Broker, BrokerUnavailable } from '../core/broker.js';
import type { InboundRecord } from '../core/inbound.js';
import { Inbound } from '../core/inbound.js';
import { Telemetry } from '../core/telemetry.js';
import { ProtocolError } from '../protocol/errors.js';

/** A client's message beside the event that becomes of it: what workers get, but for its id. */
export type ClientPublication = Omit<InboundRecord, 'id' | 'epoch' | 'content' | 'channel'> & {
  content: () => string;
};

/** Publishes, hands client messages on to workers, and counts what became of them. */
@Injectable()
export class PublisherService {
  constructor(
    private readonly broker: Broker,
    private readonly inbound: Inbound,
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
      if (error instanceof BrokerUnavailable) this.telemetry.eventPublished(durability, 'unavailable');
      throw clientError(error);
    }
  }

  /** The same for a client's message: the answer comes when workers will get it too. */
  publishFromClient(publication: Publication, message: ClientPublication): Promise<Published> {
    return this.inbound.takes(publication.channel)
      ? this.publishBoth(publication, message)
      : this.publish(publication);
  }

  private async publishBoth(
    publication: Publication,
    { content, ...message }: ClientPublication,
  ): Promise<Published> {
    try {
      await this.inbound.admit();
      const published = await this.publish(publication);
      const { id, epoch } = published.position ?? { id: null, epoch: null };
      await this.inbound.append({ ...message, channel: publication.channel, content: content(), id, epoch });
      return published;
    } catch (error) {
      throw clientError(error);
    }
  }
}

function clientError(error: unknown): unknown {
  return error instanceof BrokerUnavailable ? new ProtocolError('broker_unavailable') : error;
}
