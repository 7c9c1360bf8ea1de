// Socket.IO as its documentation shows it. ADAPTER: redis or streams. With JWT_SECRET a token is asked for.
import { createSecretKey } from 'node:crypto';
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { createAdapter as createStreamsAdapter } from '@socket.io/redis-streams-adapter';
import { Redis } from 'ioredis';
import jsonwebtoken from 'jsonwebtoken';
import { Server } from 'socket.io';

const client = new Redis(process.env.REDIS_URL);
const adapter =
  process.env.ADAPTER === 'streams'
    ? createStreamsAdapter(client)
    : createAdapter(client, client.duplicate());

const http = createServer();
const io = new Server(http, {
  adapter,
  transports: ['websocket'],
  perMessageDeflate: false,
  serveClient: false,
});

if (process.env.JWT_SECRET !== undefined) {
  const key = createSecretKey(Buffer.from(process.env.JWT_SECRET));
  io.use((socket, next) => {
    jsonwebtoken.verify(socket.handshake.auth.token, key, { algorithms: ['HS256'] }, (error, claims) => {
      if (error === null) socket.data.user = claims.sub;
      next(error ?? undefined);
    });
  });
}

io.on('connection', (socket) => {
  socket.on('join_room', async ({ room }, acknowledge) => {
    await socket.join(room);
    acknowledge('joined_room');
  });
  socket.on('room_message', ({ room, content }) => {
    io.to(room).emit('chat', { room, content });
  });
});
http.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () =>
  console.log(`listening on ${http.address().port}`),
);
