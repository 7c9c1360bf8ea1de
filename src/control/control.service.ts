import type { OnApplicationBootstrap } from '@nestjs/common';
import { Injectable } from '@nestjs/common';
import { RevocationsService } from '../auth/revocations.service.js';
import { Instance } from '../config/instance.js';
import type { Connection } from '../core/connection.js';
import type { ControlAnswer, ControlCommand } from '../core/control.js';
import { ControlBus } from '../core/control.js';
import type { CloseCode } from '../protocol/close-codes.js';
import { CLOSE } from '../protocol/close-codes.js';
import { ConnectionsService } from '../connections/connections.service.js';
import { RoomsService } from '../connections/rooms.service.js';

/** Carries out on this instance what a backend asked of all of them. */
@Injectable()
export class ControlService implements OnApplicationBootstrap {
  constructor(
    private readonly bus: ControlBus,
    private readonly connections: ConnectionsService,
    private readonly rooms: RoomsService,
    private readonly revocations: RevocationsService,
    private readonly instance: Instance,
  ) {}

  onApplicationBootstrap(): void {
    this.bus.start((command) => this.carryOut(command));
    this.revocations.watch(() => this.closeRevoked());
  }

  private async carryOut(command: ControlCommand): Promise<ControlAnswer> {
    switch (command.kind) {
      case 'disconnect':
        return closeAll(this.connections.ofUser(command.userId), {
          ...CLOSE.forbidden,
          ...(command.reason === undefined ? {} : { reason: command.reason }),
        });
      case 'enter': {
        const { room } = command;
        return countOf(this.connections.ofUser(command.userId), (connection) =>
          this.rooms.place(connection, room),
        );
      }
      case 'leave': {
        const { room } = command;
        return countOf(this.connections.ofUser(command.userId), (connection) =>
          this.rooms.displace(connection, room),
        );
      }
      case 'revoke':
        this.revocations.note(command.revocation);
        return this.closeRevoked();
      case 'find': {
        const found = this.connections.ofUser(command.userId).map((connection) => this.describe(connection));
        return { connections: found.length, found };
      }
      case 'describe': {
        const { name: instance, startedAtMs: started_at } = this.instance;
        const connections = this.connections.count;
        return { connections, instance: { instance, connections, started_at } };
      }
      default: {
        const exhaustive: never = command;
        throw new Error(`unknown command ${JSON.stringify(exhaustive)}`);
      }
    }
  }

  private closeRevoked(): ControlAnswer {
    const revoked = [...this.connections.all()].filter(({ identity }) =>
      this.revocations.isRevoked(identity),
    );
    return closeAll(revoked, CLOSE.unauthorized);
  }

  private describe(connection: Connection): NonNullable<ControlAnswer['found']>[number] {
    return {
      connection_id: connection.id,
      instance: this.instance.name,
      rooms: connection.rooms
        .list()
        .filter(([, channel]) => channel !== null)
        .map(([room]) => room),
      connected_at: connection.connectedAtMs,
    };
  }
}

function closeAll(connections: readonly Connection[], code: CloseCode): ControlAnswer {
  for (const connection of connections) connection.close(code);
  return { connections: connections.length };
}

async function countOf(
  connections: readonly Connection[],
  act: (connection: Connection) => Promise<void>,
): Promise<ControlAnswer> {
  const done = await Promise.allSettled(connections.map(act));
  return { connections: done.filter(({ status }) => status === 'fulfilled').length };
}
