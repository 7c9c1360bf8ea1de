import { expect, it } from 'vitest';
import { Checker } from './checker.js';

const clean = { lost: [], doubled: [], misordered: [], ghosts: [], leaks: [] };

function run(): { checker: Checker; marks: { publisher: string; counter: number }[] } {
  const checker = new Checker();
  const marks = [1, 2, 3].map(() => checker.attempt('alice', 'room:a'));
  for (const mark of marks) checker.acknowledged('room:a', mark);
  return { checker, marks };
}

it.each([
  ['nothing', [0, 1, 2], [1, 2, 3], {}],
  ['a loss', [0, 2], [1, 3], { lost: ['bob on room:a never read room:a/alice#2'] }],
  [
    'a double by its mark',
    [0, 1, 1, 2],
    [1, 2, 3, 4],
    { doubled: ['bob on room:a read room:a/alice#2 as 3 twice'] },
  ],
  [
    'a wrong order',
    [1, 0, 2],
    [1, 2, 3],
    { misordered: ['bob on room:a read room:a/alice#1 after number 2 of that publisher'] },
  ],
  ['ids that go back', [0, 1, 2], [1, 3, 2], { misordered: ['bob on room:a read 2 after 3'] }],
])('finds %s', (_name, order, ids, faults) => {
  const { checker, marks } = run();
  const reader = checker.reader('bob', 'room:a');
  order.forEach((index, position) => {
    const mark = marks[index];
    if (mark !== undefined) reader.reads.push({ ...mark, id: ids[position] ?? 0, epoch: 'e' });
  });
  expect(checker.verdict()).toEqual({ ...clean, ...faults });
});

it('finds a message that nobody sent, one read without the right, and readers who disagree', () => {
  const { checker, marks } = run();
  for (const mark of marks)
    checker.reader('eve', 'room:a', { isEntitled: false }).reads.push({ ...mark, id: 1, epoch: 'e' });
  const bob = checker.reader('bob', 'room:a');
  const carol = checker.reader('carol', 'room:a');
  marks.forEach((mark, index) => {
    bob.reads.push({ ...mark, id: index + 10, epoch: 'e' });
    carol.reads.push({ ...mark, id: index + 11, epoch: 'e' });
  });
  bob.reads.push({ publisher: 'mallory', counter: 1, id: 20, epoch: 'e' });
  const { ghosts, leaks, misordered, lost } = checker.verdict();
  expect(ghosts).toEqual(['bob on room:a read room:a/mallory#1, which nobody sent']);
  expect(leaks).toHaveLength(3);
  expect(misordered).toContain('carol read room:a/alice#1 as 11, others room:a/alice#2');
  expect(lost).toEqual([]);
});

it('claims no loss for a reader that was told of a gap, nor for its own broadcast', () => {
  const checker = new Checker();
  checker.acknowledged('broadcast', checker.attempt('alice', 'broadcast'));
  checker.reader('alice', 'broadcast', { except: 'alice' });
  checker.reader('bob', 'broadcast').claimsContinuity = false;
  expect(checker.verdict()).toEqual(clean);
});
