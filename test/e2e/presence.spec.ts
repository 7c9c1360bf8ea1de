import { describe, expect, it } from 'vitest';
import { notice, type Client, type Message } from '../support/client.js';
import { serve, type Gateway } from '../support/gateway.js';
import { fresh } from '../support/names.js';

interface Member {
  user_id: string;
  name?: string | null;
  connections: number;
}

interface Page {
  count: number;
  members: Member[];
  cursor?: string | null;
}

async function join(client: Client, room: string): Promise<void> {
  const reply = await client.request({ type: 'join_room', room });
  expect(reply).toMatchObject({ event: 'joined_room' });
}

async function page(client: Client, room: string, options: object = {}): Promise<Page> {
  const reply: Message & Partial<Page> = await client.request({ type: 'presence', room, ...options });
  expect(reply).toMatchObject({ event: 'presence', room });
  return { count: reply.count ?? -1, members: reply.members ?? [], cursor: reply.cursor ?? null };
}

/** Lets another user come and waits until `observer` has heard of it: what was announced before has come, too. */
async function another(gateway: Gateway, observer: Client): Promise<Client> {
  const client = await gateway.as(fresh('another'));
  await observer.next(notice('user_connected', client.userId));
  return client;
}

describe('a user', () => {
  const gateway = serve({ PRESENCE_GRACE_MS: '500' });

  it('is announced to everyone but themselves', async () => {
    const observer = await gateway().as(fresh('observer'));
    const alice = await gateway().as(fresh('alice'));
    const event = await observer.next(notice('user_connected', alice.userId));
    expect(event).not.toHaveProperty('id');
    await another(gateway(), alice);
    expect(alice.all.filter(notice('user_connected', alice.userId))).toEqual([]);
  });

  it('is announced once, however many tabs they open', async () => {
    const observer = await gateway().as(fresh('observer'));
    const user = fresh('alice');
    const tabs = await Promise.all([1, 2, 3].map(() => gateway().as(user)));
    await observer.next(notice('user_connected', user));
    await another(gateway(), observer);
    expect(observer.unread(notice('user_connected', user))).toEqual([]);
    for (const tab of tabs) expect(tab.all.filter(notice('user_connected', user))).toEqual([]);
  });

  it('is announced as gone when the last connection is lost, once', async () => {
    const observer = await gateway().as(fresh('observer'));
    const user = fresh('alice');
    const [tab, last] = (await Promise.all([gateway().as(user), gateway().as(user)])) as [Client, Client];
    await tab.close();
    await last.fence();
    expect(observer.unread(notice('user_disconnected', user))).toEqual([]);
    await last.cut();
    const event = await observer.next(notice('user_disconnected', user));
    expect(event).not.toHaveProperty('id');
    const gone = await another(gateway(), observer);
    await gone.close();
    await observer.next(notice('user_disconnected', gone.userId));
    expect(observer.unread(notice('user_disconnected', user))).toEqual([]);
  });

  it('who comes back within the grace was never gone', async () => {
    const observer = await gateway().as(fresh('observer'));
    const user = fresh('alice');
    const first = await gateway().as(user);
    await observer.next(notice('user_connected', user));
    await first.cut();
    await gateway().as(user);
    // Whoever leaves later has the same grace: when that has passed, so has the first one's.
    const gone = await another(gateway(), observer);
    await gone.close();
    await observer.next(notice('user_disconnected', gone.userId));
    expect(observer.unread((message) => message['user_id'] === user)).toEqual([]);
  });

  it('who comes back after the grace is announced again', async () => {
    const observer = await gateway().as(fresh('observer'));
    const user = fresh('alice');
    const first = await gateway().as(user);
    await observer.next(notice('user_connected', user));
    await first.close();
    await observer.next(notice('user_disconnected', user));
    await gateway().as(user);
    await observer.next(notice('user_connected', user));
    expect(
      observer.all.filter((message) => message['user_id'] === user).map((message) => message.event),
    ).toEqual(['user_connected', 'user_disconnected', 'user_connected']);
  });
});

describe('a member', () => {
  const gateway = serve({ PRESENCE_GRACE_MS: '500' });

  it('is announced once, over all tabs, and as gone after the last one is lost', async () => {
    const room = fresh('room');
    const observer = await gateway().as(fresh('observer'));
    await join(observer, room);
    const user = fresh('alice');
    const [tab, last] = (await Promise.all([gateway().as(user), gateway().as(user)])) as [Client, Client];
    await join(tab, room);
    await join(last, room);
    expect(await observer.next(notice('user_joined', user))).toMatchObject({ room });
    await tab.cut();
    await last.cut();
    const left = await observer.next(notice('user_left', user));
    expect(left).toMatchObject({ room });
    expect(left).not.toHaveProperty('id');
    await observer.next(notice('user_disconnected', user));
    const marker = await another(gateway(), observer);
    await join(marker, room);
    await observer.next(notice('user_joined', marker.userId));
    const news = observer.all.filter((message) => message['user_id'] === user && message['room'] === room);
    expect(news.map((message) => message.event)).toEqual(['user_joined', 'user_left']);
  });

  it('who comes back into the room within the grace was never gone', async () => {
    const room = fresh('room');
    const observer = await gateway().as(fresh('observer'));
    await join(observer, room);
    const user = fresh('alice');
    const first = await gateway().as(user);
    await join(first, room);
    await observer.next(notice('user_joined', user));
    await first.cut();
    await join(await gateway().as(user), room);
    const gone = await another(gateway(), observer);
    await join(gone, room);
    await gone.cut();
    await observer.next(notice('user_left', gone.userId));
    expect(observer.unread(notice('user_joined', user))).toEqual([]);
    expect(observer.unread(notice('user_left', user))).toEqual([]);
  });

  it('who comes back but not into the room has left it', async () => {
    const room = fresh('room');
    const observer = await gateway().as(fresh('observer'));
    await join(observer, room);
    const user = fresh('alice');
    const first = await gateway().as(user);
    await join(first, room);
    await first.cut();
    await gateway().as(user);
    expect(await observer.next(notice('user_left', user))).toMatchObject({ room });
    const { members } = await page(observer, room);
    expect(members.map((member) => member.user_id)).toEqual([observer.userId]);
  });

  it('of many rooms leaves each of them', async () => {
    const rooms = Array.from({ length: 20 }, () => fresh('room'));
    const observer = await gateway().as(fresh('observer'));
    const alice = await gateway().as(fresh('alice'));
    for (const room of rooms) {
      await join(observer, room);
      await join(alice, room);
    }
    await alice.cut();
    const left = await observer.take(notice('user_left', alice.userId), rooms.length);
    expect(new Set(left.map((message) => message['room']))).toEqual(new Set(rooms));
  });
});

describe('a long grace', () => {
  const gateway = serve({ PRESENCE_GRACE_MS: '60000' });

  it('does not hold back a leave_room', async () => {
    const room = fresh('room');
    const [observer, alice] = (await Promise.all([gateway().as('observer'), gateway().as('alice')])) as [
      Client,
      Client,
    ];
    await join(observer, room);
    await join(alice, room);
    await alice.request({ type: 'leave_room', room });
    expect(await observer.next(notice('user_left', 'alice'))).toMatchObject({ room });
  });

  it('holds back the notices of a lost connection', async () => {
    const room = fresh('room');
    const [observer, bob] = (await Promise.all([gateway().as('observer2'), gateway().as('bob')])) as [
      Client,
      Client,
    ];
    await join(observer, room);
    await join(bob, room);
    await bob.cut();
    const marker = await another(gateway(), observer);
    await join(marker, room);
    await marker.request({ type: 'leave_room', room });
    await observer.next(notice('user_left', marker.userId));
    expect(observer.unread(notice('user_left', 'bob'))).toEqual([]);
    expect(observer.unread(notice('user_disconnected', 'bob'))).toEqual([]);
  });
});

describe('presence', () => {
  const gateway = serve({ PRESENCE_GRACE_MS: '100', RATE_LIMIT_PER_SECOND: '0' });

  it('lists each user once, with the number of their connections', async () => {
    const room = fresh('room');
    const [alice, bob] = (await Promise.all([gateway().as(fresh('alice')), gateway().as(fresh('bob'))])) as [
      Client,
      Client,
    ];
    const tab = await gateway().as(alice.userId);
    for (const client of [alice, tab, bob]) await join(client, room);
    const { count, members } = await page(alice, room);
    expect(count).toBe(2);
    const connections = new Map(members.map((member) => [member.user_id, member.connections]));
    expect(connections).toEqual(
      new Map([
        [alice.userId, 2],
        [bob.userId, 1],
      ]),
    );
  });

  it('is for members only', async () => {
    const alice = await gateway().as(fresh('alice'));
    expect(await alice.request({ type: 'presence', room: fresh('room') })).toMatchObject({
      code: 'not_in_room',
    });
  });

  it('comes in pages that together hold every member once', async () => {
    const room = fresh('room');
    const clients = await Promise.all(Array.from({ length: 25 }, () => gateway().as(fresh('user'))));
    await Promise.all(clients.map((client) => join(client, room)));
    const reader = clients[0] as Client;
    const seen: string[] = [];
    let cursor: string | null | undefined;
    let pages = 0;
    do {
      const next: Page = await page(reader, room, { limit: 10, ...(cursor ? { cursor } : {}) });
      expect(next.count).toBe(25);
      expect(next.members.length).toBeLessThanOrEqual(10);
      seen.push(...next.members.map((member) => member.user_id));
      cursor = next.cursor;
      pages += 1;
    } while (cursor && pages < 25);
    expect(cursor ?? null).toBeNull();
    expect([...seen].sort()).toEqual(clients.map((client) => client.userId).sort());
  });

  it('gives up to 1,000 members in one page', async () => {
    const room = fresh('room');
    const clients = await Promise.all(Array.from({ length: 150 }, () => gateway().as(fresh('user'))));
    await Promise.all(clients.map((client) => join(client, room)));
    const { members, count } = await page(clients[0] as Client, room, { limit: 1000 });
    expect(count).toBe(150);
    expect(members).toHaveLength(150);
  });

  it.each(['garbage', '-1', '', 'x'.repeat(10_000), '$', '{"a":1}'])(
    'takes the cursor %j without harm',
    async (cursor) => {
      const room = fresh('room');
      const alice = await gateway().as(fresh('alice'));
      await join(alice, room);
      const reply = await alice.request({ type: 'presence', room, cursor });
      expect(['presence', 'invalid_message']).toContain(reply['code'] ?? reply.event);
    },
  );
});

describe('ANNOUNCE_USERS=false', () => {
  const gateway = serve({ ANNOUNCE_USERS: 'false', PRESENCE_GRACE_MS: '0' });

  it('announces no users, but members all the same', async () => {
    const room = fresh('room');
    const observer = await gateway().as('observer');
    await join(observer, room);
    const alice = await gateway().as('alice');
    await join(alice, room);
    await observer.next(notice('user_joined', 'alice'));
    await alice.close();
    await observer.next(notice('user_left', 'alice'));
    const users = await observer.settled((message) => /^user_(dis)?connected$/.test(message.event ?? ''));
    expect(users).toEqual([]);
  });
});

describe('ANNOUNCE_MEMBERS_MAX', () => {
  const gateway = serve({ ANNOUNCE_MEMBERS_MAX: '2' });

  it('ends the notices in a room of more members', async () => {
    const room = fresh('room');
    const [alice, bob, carol] = (await Promise.all(
      ['alice', 'bob', 'carol'].map((name) => gateway().as(fresh(name))),
    )) as [Client, Client, Client];
    await join(alice, room);
    await join(bob, room);
    await alice.next(notice('user_joined', bob.userId));
    await join(carol, room);
    await carol.request({ type: 'room_message', room, content: 'marker' });
    await alice.next('chat');
    expect(alice.unread(notice('user_joined', carol.userId))).toEqual([]);
    expect((await page(alice, room)).count).toBe(3);
  });
});
