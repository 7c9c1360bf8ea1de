import type { RawData } from 'ws';
import { WebSocket } from 'ws';
import type { Connection } from '../core/connection.js';

/** Hears what the sockets of all connections have to say. */
export interface SocketListener {
  onMessage(connection: Connection, data: RawData, isBinary: boolean): void;
  onPing(connection: Connection, data: Buffer): void;
  onPong(connection: Connection): void;
  /** A close frame is about to be sent; nothing may be written after it. */
  onClosing(connection: Connection): void;
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

  /** Also called by ws, which answers the client's close frame, and closes after bytes that are no WebSocket. */
  override close(code?: number, data?: string | Buffer): void {
    if (this.listener !== null && this.connection !== null && this.readyState === WebSocket.OPEN)
      this.listener.onClosing(this.connection);
    super.close(code, data);
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
        listener.onPing(connection, first as Buffer);
        return true;
      case 'pong':
        listener.onPong(connection);
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
