import { expect, it } from 'vitest';
import { jsonLines, search } from './json';

const value = { Name: 'web', Config: { Env: ['A=1', 'B="2"'], Empty: [], None: null }, Count: 3 };

it('writes what JSON.stringify writes', () => {
  const text = jsonLines(value)
    .map((l) => ' '.repeat(2 * l.depth) + (l.key === undefined ? '' : `${JSON.stringify(l.key)}: `) + l.value)
    .join('\n');
  expect(text).toBe(JSON.stringify(value, null, 2));
});

it('finds by path and by value', () => {
  const found = (query: string) => search(jsonLines(value), query).map((l) => `${l.path}=${l.value}`);
  expect(found('config b=')).toEqual(['Config.Env.1="B=\\"2\\""']);
  expect(found('count')).toEqual(['Count=3']);
  expect(found('zzz')).toEqual([]);
});
