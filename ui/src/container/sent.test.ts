import { expect, it } from 'vitest';
import { Failure } from '../api/backend';
import { described, entriesOf, ofChooser, ofDrop, tops } from './sent';

const file = (name: string) => ({ isFile: true, isDirectory: false, name, file: (found: (f: File) => void) => found(new File(['x'], name)) }) as unknown as FileSystemEntry;
/** As browsers do: some at a time. */
function folder(name: string, entries: FileSystemEntry[], some = 2): FileSystemEntry {
  const createReader = () => {
    const left = [...entries];
    return { readEntries: (found: (e: FileSystemEntry[]) => void) => found(left.splice(0, some)) };
  };
  return { isFile: false, isDirectory: true, name, createReader } as unknown as FileSystemEntry;
}

it('walks all that is in a folder, empty ones too', async () => {
  const tree = folder('top', [file('a'), file('b'), folder('empty', []), folder('deep', [file('c')]), file('d')]);
  const items = await ofDrop([tree, file('single'), new File(['x'], 'plain')]);
  expect(items.map((item) => `${item.path}${item.file ? '' : '/'}`)).toEqual(['top/', 'top/a', 'top/b', 'top/empty/', 'top/deep/', 'top/deep/c', 'top/d', 'single', 'plain']);
  expect(tops(items)).toEqual(['top', 'single', 'plain']);
  expect(described(items)).toBe('6 files');
  expect(described(await ofDrop([tree]))).toBe('top');
});

it('says what cannot be read, and what is too much', async () => {
  const broken = { isFile: true, name: 'locked', file: (_: unknown, lost: (e: Error) => void) => lost(new Error('permission denied')) } as unknown as FileSystemEntry;
  await expect(ofDrop([folder('top', [broken])])).rejects.toThrow('top/locked cannot be read: permission denied');
  const many = folder('many', Array.from({ length: 50_001 }, (_, at) => file(`f${at}`)), 1000);
  const failure = await ofDrop([many]).catch((e: unknown) => e);
  expect(failure).toBeInstanceOf(Failure);
});

it('takes a chooser at its word', () => {
  const chosen = new File(['x'], 'b');
  Object.defineProperty(chosen, 'webkitRelativePath', { value: 'a/b' });
  expect(ofChooser([chosen, new File([''], 'c')]).map((item) => item.path)).toEqual(['a/b', 'c']);
});

it('takes what a drop holds while it lasts', () => {
  const text = { kind: 'string' } as DataTransferItem;
  const entry = file('a');
  const plain = new File([''], 'b');
  const list = [text, { kind: 'file', webkitGetAsEntry: () => entry }, { kind: 'file', webkitGetAsEntry: () => null, getAsFile: () => plain }] as unknown as DataTransferItem[];
  expect(entriesOf(list)).toEqual([entry, plain]);
});
