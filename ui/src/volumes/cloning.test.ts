import { expect, it } from 'vitest';
import { copyName } from './cloning';

it('is a name that nobody has, and that fits', () => {
  expect(copyName('data', [])).toBe('data-copy');
  expect(copyName('data', ['data', 'data-copy', 'data-copy-2'])).toBe('data-copy-3');
  expect(copyName('a'.repeat(64), [])).toBe('aaaaaaaaaaaa-copy');
  expect(copyName('x'.repeat(255), []).length).toBeLessThanOrEqual(255);
});
