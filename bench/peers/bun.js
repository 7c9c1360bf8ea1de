// Bun's own server, publish and Redis client: topics are rooms.
import { RedisClient } from 'bun';

const commands = new RedisClient(process.env.REDIS_URL);
const subscriber = new RedisClient(process.env.REDIS_URL);
await subscriber.connect();

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(process.env.PORT ?? 0),
  fetch(request, server) {
    return server.upgrade(request) ? undefined : new Response('WebSocket only', { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    message(socket, text) {
      const message = JSON.parse(text);
      if (message.type === 'join_room') {
        socket.subscribe(message.room);
        socket.send(JSON.stringify({ event: 'joined_room', room: message.room }));
      } else if (message.type === 'room_message') {
        void commands.publish('rooms', JSON.stringify({ room: message.room, content: message.content }));
      }
    },
  },
});

await subscriber.subscribe('rooms', (text) => {
  const { room, content } = JSON.parse(text);
  server.publish(room, JSON.stringify({ event: 'chat', room, content }));
});
console.log(`listening on ${server.port}`);
