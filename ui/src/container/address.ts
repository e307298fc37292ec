// Paths in a container. File names are bytes there and text here: an address is the path with every odd byte as `%XX`.
import type { FileEntry, FileKind } from '../api/docker';

/** `/` or `/a/b`, each name between the slashes as its address. */
export type Address = string;

export function addressOf(path: string): Address {
  return `/${path.split('/').filter(Boolean).map(encodeURIComponent).join('/')}`;
}

export function within(folder: Address, entry: Pick<FileEntry, 'Name' | 'Address'>): Address {
  return `${folder === '/' ? '' : folder}/${entry.Address ?? encodeURIComponent(entry.Name)}`;
}

export function parent(address: Address): Address {
  return address.slice(0, address.lastIndexOf('/')) || '/';
}

/** The names on the way, each with its own address, for people: odd bytes are shown as �. */
export function steps(address: Address): { name: string; address: Address }[] {
  const names = address.split('/').filter(Boolean);
  return names.map((name, at) => ({ name: shown(name), address: `/${names.slice(0, at + 1).join('/')}` }));
}

/** The path as text; undefined where it is none, so that only an address leads there. */
export function pathOf(address: Address): string | undefined {
  try {
    return decodeURIComponent(address);
  } catch {
    return undefined;
  }
}

function shown(name: string): string {
  const bytes = Uint8Array.from(name.replace(/%([0-9A-Fa-f]{2})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 16))), (c) => c.charCodeAt(0));
  return new TextDecoder().decode(bytes);
}

/** What opening it opens; undefined when there is nothing to open. */
export function leadsTo(entry: FileEntry): 'folder' | 'file' | undefined {
  const kind = entry.Kind === 'link' ? entry.LinkKind : entry.Kind;
  return kind === 'folder' || kind === 'file' ? kind : undefined;
}

const COLLATOR = new Intl.Collator(undefined, { numeric: true });

/** Folders first, then by name. */
export function sorted(entries: FileEntry[]): FileEntry[] {
  const rank = (entry: FileEntry) => (leadsTo(entry) === 'folder' ? 0 : 1);
  return [...entries].sort((a, b) => rank(a) - rank(b) || COLLATOR.compare(a.Name, b.Name) || (a.Name < b.Name ? -1 : 1));
}

const LETTERS: Record<FileKind, string> = { folder: 'd', file: '-', link: 'l', device: 'c', pipe: 'p', socket: 's' };

/** `-rwxr-xr-x` */
export function modeText(kind: FileKind, mode: number): string {
  const bits = [0o400, 0o200, 0o100, 0o40, 0o20, 0o10, 0o4, 0o2, 0o1].map((bit, at) => (mode & bit ? 'rwx'[at % 3]! : '-'));
  for (const [bit, at, letter] of [[0o4000, 2, 's'], [0o2000, 5, 's'], [0o1000, 8, 't']] as const)
    if (mode & bit) bits[at] = bits[at] === '-' ? letter.toUpperCase() : letter;
  return LETTERS[kind] + bits.join('');
}

/** Text, or undefined when the bytes are none. A character that the end has cut in two is no reason. */
export function asText(bytes: Uint8Array, cut: boolean): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: cut });
  } catch {
    // Other encodings have few bytes that look wrong; programs have many.
    const text = new TextDecoder('windows-1252').decode(bytes);
    const odd = text.match(/[\u0001-\u0008\u000e-\u001a\u001c-\u001f\u007f]/g)?.length ?? 0;
    return odd * 50 < text.length ? text : undefined;
  }
}
