import { expect } from 'vitest';
import { connect, notice } from './client.js';
import { eventually } from './eventually.js';
import { stats } from './http.js';
import { fresh } from './names.js';

/** An instance that the flows below talk to. */
export interface Instance {
  readonly url: string;
  ws(path?: string): string;
}

/**
 * The two tutorials, as their readers type them, over two instances; the same one twice is one instance.
 * Needs PRESENCE_GRACE_MS=0 and instances that nobody else uses.
 */
export async function chatTutorial(one: Instance, other: Instance): Promise<void> {
  const room = fresh('lobby');
  const alice = await connect(one.ws('/ws?client_id=alice'));
  expect(alice.connected).toMatchObject({ event: 'connected', user_id: 'alice' });

  const bob = await connect(other.ws('/ws?client_id=bob'));
  expect(await alice.next('user_connected')).toMatchObject({ user_id: 'bob' });

  alice.send({ type: 'chat', content: 'Hello, everyone!' });
  expect(await bob.next('chat')).toMatchObject({ from: 'alice', content: 'Hello, everyone!' });
  bob.send({ type: 'chat', content: 'Hello, Alice!' });
  expect(await alice.next('chat')).toMatchObject({ from: 'bob', content: 'Hello, Alice!' });
  // The sender is excluded: the first thing alice heard was bob.
  expect(await bob.settled('chat')).toEqual([]);

  alice.send({ type: 'join_room', room });
  expect(await alice.next('joined_room')).toMatchObject({ room });
  bob.send({ type: 'join_room', room });
  expect(await bob.next('joined_room')).toMatchObject({ room });
  expect(await alice.next(notice('user_joined', 'bob', room))).toMatchObject({ room });

  bob.send({ type: 'room_message', room, content: 'Only for the room' });
  expect(await alice.next('chat')).toMatchObject({ from: 'bob', room, content: 'Only for the room' });
  expect(await bob.next('chat')).toMatchObject({ from: 'bob', room, content: 'Only for the room' });

  bob.send({ type: 'direct_message', target_user: 'alice', content: 'Only for you' });
  expect(await alice.next('chat')).toMatchObject({ from: 'bob', direct: true, content: 'Only for you' });

  expect((await stats(one.url)).cluster).toMatchObject({ connections: 2, users: 2, rooms: 1 });
  await bob.close();
  expect(await alice.next('user_disconnected')).toMatchObject({ user_id: 'bob' });
  await alice.close();
  await isEmpty(one);
  await isEmpty(other);
}

export async function textTutorial(one: Instance, other: Instance, token: string): Promise<void> {
  const [john, jane] = await Promise.all([connect(one.ws('/ws/john')), connect(other.ws('/ws/jane'))]);
  john?.send('Hello from John');
  for (const client of [john, jane]) {
    expect(await client?.next('text')).toMatchObject({ sender: 'john', text: 'Hello from John' });
  }
  const secure = await connect(other.ws(`/ws/secure?token=${token}`));
  secure.send({ type: 'chat', content: 'Hello from inside' });
  for (const client of [john, jane]) {
    expect(await client?.next('chat')).toMatchObject({ from: secure.userId, content: 'Hello from inside' });
  }
  await Promise.all([john?.close(), jane?.close(), secure.close()]);
  await isEmpty(one);
  await isEmpty(other);
}

async function isEmpty(instance: Instance): Promise<void> {
  await eventually(async () => {
    expect(await stats(instance.url)).toMatchObject({
      local_connections: 0,
      rooms: 0,
      cluster: { connections: 0, users: 0, rooms: 0 },
    });
  });
}
