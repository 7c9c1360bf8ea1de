// Nest with its own WsAdapter and ValidationPipe. Plain JavaScript: what TypeScript would write is written out.
import 'reflect-metadata';
import { Module, UsePipes, ValidationPipe } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WsAdapter } from '@nestjs/platform-ws';
import { ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { IsString, MaxLength } from 'class-validator';
import { Redis } from 'ioredis';

function decorate(target, method, parameters, ...decorators) {
  const descriptor = Object.getOwnPropertyDescriptor(target.prototype, method);
  Reflect.defineMetadata('design:paramtypes', parameters, target.prototype, method);
  for (const decorator of decorators) decorator(target.prototype, method, descriptor);
}

class JoinRoom {}
IsString()(JoinRoom.prototype, 'room');
MaxLength(128)(JoinRoom.prototype, 'room');

class RoomMessage {}
IsString()(RoomMessage.prototype, 'room');
MaxLength(128)(RoomMessage.prototype, 'room');
IsString()(RoomMessage.prototype, 'content');

class Rooms {
  commands = new Redis(process.env.REDIS_URL);
  subscriber = new Redis(process.env.REDIS_URL);
  rooms = new Map();

  async onModuleInit() {
    this.subscriber.on('message', (_channel, text) => {
      const { room, content } = JSON.parse(text);
      const event = JSON.stringify({ event: 'chat', data: { room, content } });
      for (const socket of this.rooms.get(room) ?? []) socket.send(event);
    });
    await this.subscriber.subscribe('rooms');
  }

  handleConnection(socket) {
    socket.joined = [];
  }

  handleDisconnect(socket) {
    for (const members of socket.joined) members.delete(socket);
  }

  join({ room }, socket) {
    let members = this.rooms.get(room);
    if (members === undefined) this.rooms.set(room, (members = new Set()));
    members.add(socket);
    socket.joined.push(members);
    return { event: 'joined_room', data: { room } };
  }

  async message({ room, content }) {
    await this.commands.publish('rooms', JSON.stringify({ room, content }));
  }
}
WebSocketGateway({ perMessageDeflate: false })(Rooms);
UsePipes(new ValidationPipe({ transform: true }))(Rooms);
decorate(
  Rooms,
  'join',
  [JoinRoom, Object],
  SubscribeMessage('join_room'),
  (target, key) => MessageBody()(target, key, 0),
  (target, key) => ConnectedSocket()(target, key, 1),
);
decorate(Rooms, 'message', [RoomMessage], SubscribeMessage('room_message'), (target, key) =>
  MessageBody()(target, key, 0),
);

class App {}
Module({ providers: [Rooms] })(App);

const app = await NestFactory.create(App, { logger: ['error', 'warn'] });
app.useWebSocketAdapter(new WsAdapter(app));
await app.listen(Number(process.env.PORT ?? 0), '127.0.0.1');
console.log(`listening on ${app.getHttpServer().address().port}`);
