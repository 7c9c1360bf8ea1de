/** Channels are spread over this many partitions, for ever: the number is part of every key. */
export const PARTITIONS = 256;
const CLUSTER_SLOTS = 16_384;

/** What may stand in a key as it is; everything else of a user id is percent-encoded. */
const SAFE_IN_KEY = /^[A-Za-z0-9._@-]*$/;
const UNSAFE_IN_KEY = /[^A-Za-z0-9._@-]/gu;
const MAX_ASCII = 0x7f;

/** Every key and bus channel the gateway uses; the table in ARCHITECTURE.md explains them. */
export class RedisKeys {
  readonly control: string;
  readonly instances: string;
  readonly leases: string;
  readonly fenceLock: string;
  readonly replicationMarker: string;
  readonly revocations: string;
  private readonly tags: string[];

  constructor(readonly prefix: string) {
    this.control = `${prefix}:control`;
    // One tag: a script works on both.
    this.instances = `${prefix}:{instances}`;
    this.leases = `${prefix}:{instances}:leases`;
    this.fenceLock = `${prefix}:fence:lock`;
    this.replicationMarker = `${prefix}:replication`;
    this.revocations = `${prefix}:revocations`;
    this.tags = Array.from({ length: PARTITIONS }, (_, partition) => `${prefix}:{${partition}}`);
  }

  /** The start of every key of a partition; the braces make it one slot of a Redis Cluster. */
  tag(partition: number): string {
    return this.tags[partition] ?? '';
  }

  life(partition: number): string {
    return `${this.tag(partition)}:life`;
  }

  /** The start of the keys of a channel: `:meta`, `:log`, `:idem:<digest>`; and of its bus. */
  channel(partition: number, channel: string): string {
    return `${this.tag(partition)}:${encodeChannel(channel)}`;
  }

  bus(channel: string, partition = partitionOf(channel)): string {
    return `${this.channel(partition, channel)}:bus`;
  }

  /** The bus of connect and disconnect notices of the users of a partition. */
  notices(partition: number): string {
    return `${this.tag(partition)}:notices`;
  }

  /** The bus of one instance: answers to its questions come here. */
  instance(instance: string): string {
    return `${this.prefix}:instance:${instance}`;
  }

  /** A bus on which an instance hears itself, in a partition of its choice. */
  probe(partition: number, instance: string): string {
    return `${this.tag(partition)}:probe:${instance}`;
  }

  /** The stream of webhook events: of a partition in a cluster, else the one for all. */
  webhooks(partition: number, sharded: boolean): string {
    return sharded ? `${this.tag(partition)}:webhooks` : `${this.prefix}:webhooks`;
  }

  /** The answer to an HTTP call, by the digest of its idempotency key. */
  answer(digest: string): string {
    return `${this.prefix}:answer:${digest}`;
  }

  reaped(lease: string): string {
    return `${this.prefix}:reaped:${lease}`;
  }
}

export function partitionOf(channel: string): number {
  return crc16(channel) % PARTITIONS;
}

/** The slot of a key or bus in a Redis Cluster: of what stands in its first braces, else of all of it. */
export function slotOf(key: string): number {
  const open = key.indexOf('{');
  const close = key.indexOf('}', open + 1);
  const tagged = open !== -1 && close > open + 1 ? key.slice(open + 1, close) : key;
  return crc16(tagged) % CLUSTER_SLOTS;
}

/** Room names are safe as they are; a user id must not reach another key. */
export function encodeChannel(channel: string): string {
  return channel.startsWith('user:') ? `user:${encodeUserId(channel.slice(5))}` : channel;
}

export function encodeUserId(userId: string): string {
  if (SAFE_IN_KEY.test(userId)) return userId;
  return userId.replace(UNSAFE_IN_KEY, (character) =>
    [...Buffer.from(character, 'utf8')]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join(''),
  );
}

/** CRC16/XMODEM, the one Redis Cluster uses, a byte at a time. */
const CRC = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  return crc;
});

/** Of the text's UTF-8; what is ASCII, as nearly all names are, is read where it stands. */
function crc16(text: string): number {
  let crc = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code > MAX_ASCII) return crc16Of(Buffer.from(text, 'utf8'));
    crc = crcWith(crc, code);
  }
  return crc;
}

function crc16Of(bytes: Buffer): number {
  let crc = 0;
  for (const byte of bytes) crc = crcWith(crc, byte);
  return crc;
}

function crcWith(crc: number, byte: number): number {
  return ((crc << 8) ^ (CRC[(crc >> 8) ^ byte] ?? 0)) & 0xffff;
}
