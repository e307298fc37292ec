import { expect, it } from 'vitest';
import { age, bytes, parseSize, plural } from './format';

it.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1536, '1.5 KB'],
  [10 * 1024 ** 2, '10 MB'],
  [1.25 * 1024 ** 3, '1.25 GB'],
  [-1, '–'],
])('%d bytes are %s', (count, text) => expect(bytes(count)).toBe(text));

it.each([
  [1000, 'just now'],
  [990, '10 seconds ago'],
  [940, '1 minute ago'],
  [0, '–'],
])('at 1000, %d was %s', (moment, text) => expect(age(moment, 1000)).toBe(text));

it.each([
  ['2g', 2 * 1024 ** 3],
  ['1.5 GiB', 1.5 * 1024 ** 3],
  ['512m', 512 * 1024 ** 2],
  ['10', 10],
  ['', undefined],
  ['2x', undefined],
])('%s is a size', (text, size) => expect(parseSize(text)).toBe(size));

it('counts', () => expect([plural(1, 'image'), plural(2, 'image')]).toEqual(['1 image', '2 images']));
