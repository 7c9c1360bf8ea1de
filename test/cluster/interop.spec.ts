import { execFileSync, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { beforeAll, describe, expect, it } from 'vitest';
import { tracked } from '../support/child.js';
import { notice } from '../support/client.js';
import { serveCluster } from '../support/cluster.js';
import { within } from '../support/eventually.js';
import { fresh } from '../support/names.js';

const python = '/usr/bin/python3';

/** Joins a room, prints each frame it receives as a line, answers the first chat, and closes. */
const program = `
import asyncio, json, sys, websockets

async def main(url, room):
    async with websockets.connect(url) as socket:
        await socket.send(json.dumps({"type": "join_room", "room": room, "ref": 1}))
        async for frame in socket:
            print(frame, flush=True)
            event = json.loads(frame)
            if event.get("event") == "chat" and event["from"] != "python":
                await socket.send(json.dumps({"type": "room_message", "room": room, "content": "hi from Python"}))
            if event.get("event") == "chat" and event["from"] == "python":
                return

asyncio.run(main(sys.argv[1], sys.argv[2]))
`;

describe('a client that is not ours (Python websockets)', () => {
  const cluster = serveCluster({ PRESENCE_GRACE_MS: '0' });

  beforeAll(() => {
    try {
      execFileSync(python, ['-c', 'import websockets'], { stdio: 'pipe' });
    } catch (error) {
      throw new Error(`${python} has no module websockets: apt-get install python3-websockets`, {
        cause: error,
      });
    }
  });

  it('joins on instance 1, receives from instance 2 and answers', async () => {
    const room = fresh('room');
    const bob = await cluster().other.as(fresh('bob'));
    await bob.request({ type: 'join_room', room });
    const child = spawn(python, ['-c', program, cluster().one.ws('/ws?client_id=python'), room], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const exited = tracked(child);
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
    const lines: { event?: string; [field: string]: unknown }[] = [];
    createInterface({ input: child.stdout }).on('line', (line) => {
      lines.push(JSON.parse(line) as { event?: string });
    });
    await bob.next(notice('user_joined', 'python'));
    await bob.request({ type: 'room_message', room, content: 'hi from instance 2' });
    expect(await bob.next((message) => message['from'] === 'python')).toMatchObject({
      room,
      content: 'hi from Python',
    });
    const exit = await within(exited, 10_000, () => `Python does not end: ${errors}`);
    expect(errors).toBe('');
    expect(exit.code).toBe(0);
    expect(lines[0]).toMatchObject({ event: 'connected', user_id: 'python' });
    const events = lines.filter(({ event }) => event === 'joined_room' || event === 'chat');
    expect(events).toMatchObject([
      { event: 'joined_room', room, ref: 1 },
      { event: 'chat', from: bob.userId, room, content: 'hi from instance 2', id: 1 },
      { event: 'chat', from: 'python', room, content: 'hi from Python', id: 2 },
    ]);
    expect(await bob.next(notice('user_disconnected', 'python'))).toMatchObject({ user_id: 'python' });
  });
});
