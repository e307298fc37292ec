import { expect, it } from 'vitest';
import { age, bytes, memory, parseSize, plural } from './format';

it.each([
  [0, '0 B'],
  [999, '999 B'],
  [1500, '1.5 KB'],
  [82_240_000, '82.2 MB'],
  [1.25e9, '1.25 GB'],
  [-1, '–'],
])('%d bytes are %s', (count, text) => expect(bytes(count)).toBe(text));

it.each([
  [1023, '1023 B'],
  [10 * 1024 ** 2, '10 MB'],
  [1.5 * 1024 ** 3, '1.5 GB'],
])('%d bytes of memory are %s', (count, text) => expect(memory(count)).toBe(text));

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
