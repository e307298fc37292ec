import { expect, it } from 'vitest';
import type { FileEntry } from '../api/docker';
import { addressOf, asText, leadsTo, modeText, parent, pathOf, sorted, steps, within } from './address';

const entry = (Name: string, more: Partial<FileEntry> = {}): FileEntry => ({ Name, Kind: 'file', Size: 1, Mode: 0o644, Uid: 0, Gid: 0, Modified: 0, ...more });

it('leads to names of any bytes and back', () => {
  const odd = within('/data', entry('a\ufffd', { Address: 'a%FF' }));
  expect(odd).toBe('/data/a%FF');
  expect(pathOf(odd)).toBeUndefined();
  expect(steps(within(odd, entry('b c')))).toEqual([
    { name: 'data', address: '/data' },
    { name: 'a\ufffd', address: '/data/a%FF' },
    { name: 'b c', address: '/data/a%FF/b%20c' },
  ]);
  const tricky = within('/', entry('100% <b>ä?&#'));
  expect(pathOf(tricky)).toBe('/100% <b>ä?&#');
  expect(parent(tricky)).toBe('/');
  expect(addressOf('//a/b c/')).toBe('/a/b%20c');
});

it('sorts folders first, and numbers as numbers', () => {
  const list = [entry('b10'), entry('b9'), entry('z', { Kind: 'folder' }), entry('a', { Kind: 'link', LinkKind: 'folder' }), entry('c', { Kind: 'link' })];
  expect(sorted(list).map((e) => e.Name)).toEqual(['a', 'z', 'b9', 'b10', 'c']);
  expect(list.map(leadsTo)).toEqual(['file', 'file', 'folder', 'folder', undefined]);
});

it('writes modes as ls does', () => {
  expect(modeText('folder', 0o1777)).toBe('drwxrwxrwt');
  expect(modeText('file', 0o4755)).toBe('-rwsr-xr-x');
  expect(modeText('file', 0o2644)).toBe('-rw-r-Sr--');
});

it('tells text from what is none', () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  expect(asText(bytes('<b>ä</b>\n'), false)).toBe('<b>ä</b>\n');
  expect(asText(bytes('aä').slice(0, 2), true)).toBe('a');
  expect(asText(Uint8Array.of(0x47, 0xfc, 0x6e, 0x74, 0x65, 0x72), false)).toBe('Günter');
  expect(asText(Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 0), false)).toBeUndefined();
  expect(asText(Uint8Array.of(0xff, 1, 2, 3, 4), false)).toBeUndefined();
});
