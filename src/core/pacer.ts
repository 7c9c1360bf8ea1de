import { TokenBucket } from './token-bucket.js';

/**
 * When what collects goes out: at the end of the turn, but in a storm no more often than so many times a second. What
 * comes alone does not wait, and of a storm every call takes many along.
 */
export class Pacer {
  private readonly bucket: TokenBucket;
  private isAsked = false;
  private timer: NodeJS.Timeout | null = null;

  constructor(
    perSecond: number,
    burst: number,
    private readonly step: () => void,
  ) {
    this.bucket = new TokenBucket(perSecond, burst, performance.now());
  }

  /** Has the step run once, soon; asking again before that changes nothing. */
  ask(): void {
    if (this.isAsked) return;
    this.isAsked = true;
    const waitMs = this.bucket.take(performance.now());
    if (waitMs === 0) {
      setImmediate(() => this.run());
      return;
    }
    this.timer = setTimeout(() => {
      this.bucket.take(performance.now());
      this.run();
    }, waitMs);
  }

  /** Forgets what was asked for. */
  stop(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    this.isAsked = false;
  }

  private run(): void {
    this.timer = null;
    if (!this.isAsked) return;
    this.isAsked = false;
    this.step();
  }
}
