// What a user hands over for an upload: files that were chosen, a folder that was chosen, or both dropped.
import { Failure } from '../api/backend';
import type { Item } from '../shared/tar';

/** The page knows each entry by name until it has been sent. */
const MOST = 50_000;

/** Files of a chooser; those of a folder tell their way from its top. */
export function ofChooser(files: Iterable<File>): Item[] {
  const items = [...files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  return bounded(items);
}

/** Entries of a drop, taken while its event is handled: later they are gone. */
export function entriesOf(list: Iterable<DataTransferItem>): (FileSystemEntry | File)[] {
  const entries = [...list].filter((item) => item.kind === 'file').map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  return entries.filter((entry) => entry !== null);
}

/** All that is in dropped entries. Throws a Failure. */
export async function ofDrop(entries: (FileSystemEntry | File)[]): Promise<Item[]> {
  const items: Item[] = [];
  for (const entry of entries) {
    if (entry instanceof File) items.push({ path: entry.name, file: entry });
    else await collect(entry, entry.name, items);
  }
  return items;
}

async function collect(entry: FileSystemEntry, path: string, items: Item[]) {
  try {
    if (entry.isFile) {
      items.push({ path, file: await new Promise<File>((found, lost) => (entry as FileSystemFileEntry).file(found, lost)) });
    } else {
      items.push({ path });
      const reader = (entry as FileSystemDirectoryEntry).createReader();
      for (;;) {
        // A reader gives some at a time, and none at the end.
        const some = await new Promise<FileSystemEntry[]>((found, lost) => reader.readEntries(found, lost));
        if (some.length === 0) break;
        for (const inner of some) await collect(inner, `${path}/${inner.name}`, items);
      }
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('invalid', `${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  bounded(items);
}

function bounded(items: Item[]): Item[] {
  if (items.length > MOST) throw new Failure('invalid', `More than ${MOST.toLocaleString()} files are too many at once.`, 'Pack them: docker cp takes a tar archive.');
  return items;
}

/** The names that stand at the top. */
export function tops(items: Item[]): string[] {
  return [...new Set(items.map((item) => item.path.split('/')[0]!))];
}

/** What is sent, for people. */
export function described(items: Item[]): string {
  const [first, ...others] = tops(items);
  if (!others.length) return first!;
  const files = items.filter((item) => item.file).length;
  return `${files.toLocaleString()} files`;
}
