// ws and ioredis: a loop over the members of a room, as the documentation of ws shows it.
import { Redis } from 'ioredis';
import { WebSocketServer } from 'ws';

const commands = new Redis(process.env.REDIS_URL);
const subscriber = new Redis(process.env.REDIS_URL);
const rooms = new Map();

subscriber.on('message', (_channel, text) => {
  const { room, content } = JSON.parse(text);
  const event = JSON.stringify({ event: 'chat', room, content });
  for (const socket of rooms.get(room) ?? []) socket.send(event);
});
await subscriber.subscribe('rooms');

function join(socket, room) {
  let members = rooms.get(room);
  if (members === undefined) rooms.set(room, (members = new Set()));
  members.add(socket);
  socket.joined.push(members);
  socket.send(JSON.stringify({ event: 'joined_room', room }));
}

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.env.PORT ?? 0),
  perMessageDeflate: false,
});
server.on('connection', (socket) => {
  socket.joined = [];
  socket.on('error', console.error);
  socket.on('message', (text) => {
    const message = JSON.parse(text);
    if (message.type === 'join_room') join(socket, message.room);
    else if (message.type === 'room_message')
      void commands.publish('rooms', JSON.stringify({ room: message.room, content: message.content }));
  });
  socket.on('close', () => {
    for (const members of socket.joined) members.delete(socket);
  });
});
server.on('listening', () => console.log(`listening on ${server.address().port}`));
