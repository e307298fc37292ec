import { expect, it } from 'vitest';
import { rank, score } from './palette';

const command = (title: string) => ({ title, group: '', run: () => {} });

it('finds words, beginnings first', () => {
  const titles = rank(['Stop web', 'web', 'cobweb', 'other'].map(command), 'web').map((c) => c.title);
  expect(titles).toEqual(['web', 'Stop web', 'cobweb']);
});

it('finds letters in order', () => {
  expect(score('Restart database', 'rdb')).toBeGreaterThan(0);
  expect(score('Restart database', 'xyz')).toBe(-1);
  expect(score('Restart database', 'data rest')).toBeGreaterThan(100);
});
