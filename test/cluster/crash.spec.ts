import { describe, expect, it } from 'vitest';
import { notice, type Client } from '../support/client.js';
import { serveCluster } from '../support/cluster.js';
import { eventually } from '../support/eventually.js';
import { stats } from '../support/http.js';
import { fresh } from '../support/names.js';

describe('kill -9 of an instance', () => {
  const cluster = serveCluster({ PRESENCE_GRACE_MS: '500' });

  it(
    'touches nobody else, and its users are announced as gone within 35 s, once',
    { timeout: 90_000 },
    async () => {
      const { one, other, redis } = cluster();
      const room = fresh('room');
      const [alice, bob] = await Promise.all([one.as(fresh('alice')), one.as(fresh('bob'))]);
      const victims = await Promise.all(Array.from({ length: 5 }, () => other.as(fresh('victim'))));
      // One user has a connection on each side: that one does not leave.
      const both = fresh('both');
      const tabs = await Promise.all([one.as(both), other.as(both)]);
      for (const client of [alice, bob, ...victims, ...tabs]) {
        expect(await client.request({ type: 'join_room', room })).toMatchObject({ event: 'joined_room' });
      }
      const gone = victims.map((victim) => victim.userId);
      await alice.take(
        (message) => message.event === 'user_joined' && gone.includes(String(message['user_id'])),
        5,
      );

      const killed = performance.now();
      await other.stop('SIGKILL');
      const closes = await Promise.all([...victims, tabs[1]].map((client) => client.closed));
      expect(new Set(closes.map(({ code }) => code))).toEqual(new Set([1006]));
      await alice.request({ type: 'room_message', room, content: 'still here' });
      expect(await bob.next('chat')).toMatchObject({ content: 'still here' });

      const remaining = (): number => 35_000 - (performance.now() - killed);
      for (const observer of [alice, bob]) {
        for (const user of gone) {
          expect(await observer.next(notice('user_left', user), remaining())).toMatchObject({ room });
          expect(await observer.next(notice('user_disconnected', user), remaining())).toMatchObject({
            user_id: user,
          });
        }
      }
      const { members, count } = await alice.request({ type: 'presence', room });
      expect(count).toBe(3);
      const expected = [
        { user_id: alice.userId, connections: 1 },
        { user_id: bob.userId, connections: 1 },
        { user_id: both, connections: 1 },
      ];
      expect(members).toHaveLength(expected.length);
      for (const member of expected) expect(members).toContainEqual(expect.objectContaining(member));
      await eventually(async () => {
        expect(await stats(one.url)).toMatchObject({
          local_connections: 3,
          cluster: { connections: 3, users: 3, rooms: 1, instances: 1 },
        });
      });

      // A later notice of each kind is the fence: nothing is announced twice, and nobody else as gone.
      const marker = await one.as(fresh('marker'));
      await marker.request({ type: 'join_room', room });
      await marker.cut();
      const times = (observer: Client, event: string, user: string): number =>
        observer.all.filter(notice(event, user)).length;
      for (const observer of [alice, bob]) {
        await observer.next(notice('user_left', marker.userId));
        await observer.next(notice('user_disconnected', marker.userId));
        for (const user of gone) {
          expect([times(observer, 'user_left', user), times(observer, 'user_disconnected', user)]).toEqual([
            1, 1,
          ]);
        }
        expect([times(observer, 'user_left', both), times(observer, 'user_disconnected', both)]).toEqual([
          0, 0,
        ]);
      }
      expect([alice, bob, tabs[0]].map((client) => client.closedWith)).toEqual([
        undefined,
        undefined,
        undefined,
      ]);
      expect((await redis.keys('fanfare*')).join('\n')).not.toContain(gone[0] ?? 'a victim');
    },
  );
});
