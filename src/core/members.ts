import type { Connection } from './connection.js';

/** The members of a channel. Most channels are those of single users, and a set costs more than all else that is kept of one. */
export class Members {
  private single: Connection | null = null;
  private several: Set<Connection> | null = null;

  get size(): number {
    return this.several?.size ?? (this.single === null ? 0 : 1);
  }

  has(connection: Connection): boolean {
    return this.several?.has(connection) ?? this.single === connection;
  }

  add(connection: Connection): void {
    if (this.several !== null) this.several.add(connection);
    else if (this.single === null) this.single = connection;
    else if (this.single !== connection) {
      this.several = new Set([this.single, connection]);
      this.single = null;
    }
  }

  delete(connection: Connection): void {
    if (this.several !== null) this.several.delete(connection);
    else if (this.single === connection) this.single = null;
  }

  /** In the order in which they came; those who leave meanwhile may still be called for. */
  forEach(step: (member: Connection) => void): void {
    if (this.several !== null) for (const member of this.several) step(member);
    else if (this.single !== null) step(this.single);
  }

  list(): Connection[] {
    return this.several === null ? (this.single === null ? [] : [this.single]) : [...this.several];
  }
}
