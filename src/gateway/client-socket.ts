import type { RawData } from 'ws';
import { WebSocket } from 'ws';
import type { Connection } from '../core/connection.js';

/** Hears what the sockets of all connections have to say. */
export interface SocketListener {
  onMessage(connection: Connection, data: RawData, isBinary: boolean): void;
  /** A ping or a pong. */
  onSign(connection: Connection): void;
  onClose(connection: Connection, code: number): void;
  onError(connection: Connection, error: Error): void;
}

/** A WebSocket that knows its connection, and tells one listener for all instead of listeners of its own. */
export class ClientSocket extends WebSocket {
  private connection: Connection | null = null;
  private listener: SocketListener | null = null;

  tell(listener: SocketListener, connection: Connection): void {
    this.listener = listener;
    this.connection = connection;
  }

  override emit(event: string | symbol, ...args: unknown[]): boolean;
  override emit(event: string | symbol, first?: unknown, second?: unknown): boolean {
    const { listener, connection } = this;
    if (listener === null || connection === null) return super.emit(event, first, second);
    switch (event) {
      case 'message':
        listener.onMessage(connection, first as RawData, second as boolean);
        return true;
      case 'ping':
      case 'pong':
        listener.onSign(connection);
        return true;
      case 'close':
        listener.onClose(connection, first as number);
        return true;
      case 'error':
        listener.onError(connection, first as Error);
        return true;
      default:
        return super.emit(event, first, second);
    }
  }
}
