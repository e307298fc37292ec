import { expect, it } from 'vitest';
import { columns, Finder, inOrder, Layout, Log, MOST_LINES } from './log';

it('splits the time off and keeps the style for the next line', () => {
  const log = new Log();
  log.add(['2026-01-02T03:04:05.678901234Z \x1b[31mred', '2026-01-02T03:04:06Z still red', 'no time'], 'stdout');
  expect(log.lines.map((l) => [l.number, l.time.slice(0, 19), l.text])).toEqual([
    [1, '2026-01-02T03:04:05', '\x1b[31mred'],
    [2, '2026-01-02T03:04:06', 'still red'],
    [3, '', 'no time'],
  ]);
  expect(log.lines[1]?.style).toEqual({ fg: 1 });
});

it('puts the lines of several writers in the order of their times', () => {
  const of = (from: string, ...raw: string[]) => raw.map((text) => ({ raw: text, source: 'stdout' as const, from }));
  const web = of('web', '2026-01-02T03:04:05Z a', 'goes with a', '2026-01-02T03:04:06.5Z d');
  const db = of('db', '2026-01-02T03:04:05.000000001Z b', '2026-01-02T03:04:06.25Z c');
  expect(inOrder([web, db]).map((line) => line.raw.split(' ').at(-1))).toEqual(['a', 'a', 'b', 'c', 'd']);
  const log = new Log();
  for (const line of inOrder([web, db])) log.add([line.raw], line.source, line.from);
  expect(log.lines.map((line) => line.from)).toEqual(['web', 'web', 'db', 'db', 'web']);
  expect([log.lastTime('web'), log.lastTime('db')]).toEqual(['2026-01-02T03:04:06.5Z', '2026-01-02T03:04:06.25Z']);
});

it('holds the last lines', () => {
  const log = new Log();
  const batch = Array.from({ length: 10_000 }, (_, i) => `line ${i}`);
  let gone = 0;
  for (let i = 0; i < 12; i++) gone += log.add(batch, 'stderr');
  expect(log.lines.length + gone).toBe(120_000);
  expect(log.lines.length).toBeLessThanOrEqual(MOST_LINES + 5000);
  expect(log.dropped).toBe(gone);
  expect(log.lines.at(-1)?.number).toBe(120_000);
});

it('cuts lines that nobody can read', () => {
  const log = new Log();
  log.add(['x'.repeat(50_000)], 'stdout');
  expect(log.lines[0]?.text).toMatch(/^x{20000}… \(50000 characters\)$/);
});

it.each([
  ['abc', 3],
  ['', 0],
  ['日本', 4],
  ['e\u0301', 1],
  ['é', 1],
])('%s has %i columns', (text, count) => expect(columns(text)).toBe(count));

it('finds lines while the log grows and forgets', () => {
  const log = new Log();
  const finder = new Finder();
  log.add(['one', 'two', '\x1b[1mOn\x1b[0me more'], 'stdout');
  expect(finder.find(log.lines, 'one')).toEqual([1, 3]);
  log.add(['someone'], 'stdout');
  expect(finder.find(log.lines, 'one')).toEqual([1, 3, 4]);
  log.lines.splice(0, 1);
  expect(finder.find(log.lines, 'one')).toEqual([3, 4]);
  expect(finder.find(log.lines, 'two')).toEqual([2]);
  expect(finder.find(log.lines, '')).toEqual([]);
  log.clear();
  expect(finder.find(log.lines, 'two')).toEqual([]);
  log.add(['two'], 'stdout');
  expect(finder.find(log.lines, 'two')).toEqual([5]);
});

it('finds the line of a row', () => {
  const log = new Log();
  log.add(['a'.repeat(25), 'b', 'c'.repeat(11)], 'stdout');
  const layout = new Layout((line) => Math.max(1, Math.ceil(line.text.length / 10)));
  layout.reset(log.lines);
  expect(layout.rows).toBe(6);
  expect([0, 2, 3, 4, 5, 99].map((row) => layout.lineAt(row))).toEqual([0, 0, 1, 2, 2, 2]);
  layout.reset([]);
  expect([layout.rows, layout.lineAt(0)]).toEqual([0, 0]);
});
