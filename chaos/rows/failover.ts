import { setTimeout as pause } from 'node:timers/promises';
import { eventually } from '../../test/support/eventually.js';
import { Fleet } from '../fleet.js';
import type { Context, Result, Row } from '../row.js';
import { TcpProxy } from '../tcp-proxy.js';
import { linkIsUp, RedisCluster, SentinelSet, type ClusterNode } from '../topologies.js';
import { partitionOf, slotOf } from '../../src/redis/redis-keys.js';

const BACK_MS = 10_000;
/** Longer than the pause between two sweeps: tells what is late from what is lost. */
const SWEPT_MS = 60_000;
const CUT_MS = 300;
/** An ack may be older than its arrival. */
const CUT_SURE_MS = 50;

interface Failover {
  readonly how: 'kill' | 'stop';
  readonly cutsReplication: boolean;
  readonly durability: 'primary' | 'replicated';
}

async function failover(context: Context, { how, cutsReplication, durability }: Failover): Promise<Result> {
  const set = context.own(await SentinelSet.start());
  const fleet = await Fleet.start(context, { settings: { ...set.settings, DURABILITY: durability } });
  const failures: string[] = [];
  let recoveryMs = Infinity;
  let inCut = 0;
  /** When the replica was surely cut off, and the primary still took writes. */
  const cuts: [number, number][] = [];
  await fleet.through(async () => {
    if (cutsReplication) {
      const proxy = context.own(await TcpProxy.start(set.primary.port));
      await set.replica.commands.replicaof('127.0.0.1', proxy.port);
      await linkIsUp(set.replica);
      await pause(200);
      const before = fleet.ledger.acknowledged;
      proxy.swallow('both');
      const cutMs = performance.now();
      await pause(CUT_MS);
      cuts.push([cutMs + CUT_SURE_MS, performance.now()]);
      inCut = fleet.ledger.acknowledged - before;
    }
    const began = performance.now();
    if (how === 'kill') await set.primary.kill();
    else {
      set.primary.pause();
      context.onEnd(() => set.primary.resume());
    }
    const delivered = fleet.deliveredEverywhere(40_000);
    await set.isPromoted();
    context.say(`promoted after ${Math.round(performance.now() - began)} ms`);
    recoveryMs = await delivered;
    if (how === 'stop') {
      await pause(1_000);
      set.primary.resume();
      await pause(2_000);
    }
    // Without a replica nothing is acknowledged: the old primary comes back as one, which Sentinel takes some seconds for.
    if (durability === 'replicated') {
      await set.primary.restart();
      await eventually(
        async () => {
          const info = await set.replica.commands.info('replication');
          if (!info.includes('state=online')) throw new Error('the old primary is no replica yet');
        },
        { timeoutMs: 40_000, everyMs: 250 },
      );
    }
  });
  const { ledger, tally } = fleet;
  if (recoveryMs > BACK_MS) failures.push('delivery later than 10 s');
  if (tally.closes.size > 0) failures.push('clients were disconnected');
  const unread = ledger.acknowledgedUnread();
  if (durability === 'replicated' && unread > 0)
    failures.push(`${unread} acknowledged events did not reach everybody`);
  const untold = durability === 'primary' ? cuts.flatMap(([from, to]) => ledger.untold(from, to)) : [];
  if (untold.length > 0)
    failures.push(`not told by a gap: ${untold.slice(0, 3).join(', ')} and so on, ${untold.length}`);
  const notes = [`${unread} acknowledged events did not reach everybody`];
  if (cutsReplication) notes.push(`${inCut} acknowledged while the link was cut`);
  return { ...fleet.result(failures, notes), recoveryMs };
}

const shared = '0 disconnects; delivery <= 10 s after the fault; 0 lost without a gap, no id used twice';

function row(name: string, fault: string, criterion: string, options: Failover): Row {
  return { name, fault, criterion, extraSeconds: 60, run: (context) => failover(context, options) };
}

export const failovers: readonly Row[] = [
  row('13-kill', 'Sentinel failover: kill -9 of the primary', shared, {
    how: 'kill',
    cutsReplication: false,
    durability: 'primary',
  }),
  row('13-stop', 'Sentinel failover: SIGSTOP of the primary, SIGCONT after it', shared, {
    how: 'stop',
    cutsReplication: false,
    durability: 'primary',
  }),
  row(
    '13-cut',
    'replication cut 300 ms, then kill -9 of the primary',
    `${shared}; every reader of what was lost told by a gap`,
    {
      how: 'kill',
      cutsReplication: true,
      durability: 'primary',
    },
  ),
  row(
    '13-replicated',
    'DURABILITY=replicated, kill -9 of the primary',
    `${shared}; every acknowledged event read by all`,
    {
      how: 'kill',
      cutsReplication: false,
      durability: 'replicated',
    },
  ),
  row(
    '13-replicated-cut',
    'DURABILITY=replicated, replication cut 300 ms, then kill -9 of the primary',
    `${shared}; every acknowledged event read by all`,
    { how: 'kill', cutsReplication: true, durability: 'replicated' },
  ),
];

export const cluster: Row = {
  name: 'cluster',
  fault: 'Redis Cluster: a replica is promoted, then slots of rooms are moved under load',
  criterion: '0 lost or told, no id used twice; 0 disconnects; delivery <= 10 s after each',
  extraSeconds: 90,
  async run(context) {
    const redis = context.own(await RedisCluster.start());
    const fleet = await Fleet.start(context, { settings: redis.settings });
    const failures: string[] = [];
    const notes: string[] = [];
    const moves: [number, ClusterNode, ClusterNode][] = [];
    let recoveryMs = 0;
    await fleet.through(async () => {
      const back = async (what: string): Promise<void> => {
        const ms = await fleet.deliveredEverywhere();
        recoveryMs = Math.max(recoveryMs, ms);
        notes.push(`delivery ${Math.round(ms)} ms after ${what}, ${fleet.ledger.gaps} gaps by then`);
      };
      await redis.promote();
      await back('the promotion');
      await pause(2_000);
      const [, from, to] = redis.primaries;
      if (from === undefined || to === undefined) throw new Error('no primaries');
      let moved = 0;
      for (let room = 0; room < fleet.size.rooms && moved < 3; room += 1) {
        const slot = slotOf(`fanfare:{${partitionOf(`room:r${room}`)}}:life`);
        const third = 16_384 / 3;
        if (slot < Math.ceil(third) || slot >= Math.ceil(2 * third)) continue;
        const keys = await redis.moveSlot(slot, from, to);
        moved += 1;
        moves.push([slot, from, to]);
        await back(`slot ${slot} of room r${room} with ${keys} keys was moved`);
      }
      if (moved === 0) failures.push('no room in the slots of the second primary');
    }, SWEPT_MS);
    for (const [slot, from, to] of moves) {
      for (const node of [from, to]) {
        const channels = (await node.server.commands.call('PUBSUB', 'SHARDCHANNELS', '*:room:*')) as string[];
        for (const channel of channels.filter((name) => slotOf(name) === slot)) {
          const counts = (await node.server.commands.call('PUBSUB', 'SHARDNUMSUB', channel)) as unknown[];
          context.say(
            `${node === to ? 'new' : 'old'} owner of ${slot}: ${counts.map(String).join(' ')} subscribers`,
          );
          const wanted = fleet.gateways.length;
          if (node === to && Number(counts[1]) < wanted)
            notes.push(`${channel}: ${String(counts[1])} of ${wanted} subscribed`);
        }
      }
    }
    if (recoveryMs > BACK_MS) failures.push('delivery later than 10 s');
    const late = fleet.tally.slowestReadMs;
    notes.push(`slowest delivery ${Math.round(late)} ms`);
    if (late > BACK_MS) failures.push('an event was delivered later than 10 s after its ack');
    if (fleet.tally.closes.size > 0) failures.push('clients were disconnected');
    return { ...fleet.result(failures, notes), recoveryMs };
  },
};
