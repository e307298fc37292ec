// A tar archive of the user's files, as the engine wants uploads: headers in memory, the files' bytes where they are.

const BLOCK = 512;
/** What the header's fields hold; more goes into an extended header. */
const LONGEST_NAME = 100;
const LARGEST_SIZE = 8 ** 11 - 1;

const encoder = new TextEncoder();

/** What is uploaded: a file, or without one a folder. */
export interface Item {
  /** Its way from the top, as `folder/name`. */
  path: string;
  file?: File;
}

export function tarOf(items: Item[]): Blob {
  const parts: BlobPart[] = [];
  for (const { path, file } of items) {
    if (!file) {
      parts.push(...folder(path));
      continue;
    }
    const name = path;
    const seconds = Math.max(0, Math.floor(file.lastModified / 1000));
    const records: [string, string][] = [];
    if (encoder.encode(name).length > LONGEST_NAME) records.push(['path', name]);
    if (file.size > LARGEST_SIZE) records.push(['size', String(file.size)]);
    if (records.length) {
      const text = encoder.encode(records.map(([key, value]) => record(key, value)).join(''));
      parts.push(header('@LongName', text.length, seconds, 'x'), text, padding(text.length));
    }
    parts.push(header(name, Math.min(file.size, LARGEST_SIZE), seconds, '0'), file, padding(file.size));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts, { type: 'application/x-tar' });
}

function folder(path: string): BlobPart[] {
  const name = `${path}/`;
  const seconds = Math.floor(Date.now() / 1000);
  const block = header(name, 0, seconds, '5', 0o755);
  if (encoder.encode(name).length <= LONGEST_NAME) return [block];
  const text = encoder.encode(record('path', name));
  return [header('@LongName', text.length, seconds, 'x'), text, padding(text.length), block];
}

/** `LENGTH key=value\n`, where the length counts itself. */
export function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const length = encoder.encode(rest).length;
  let digits = String(length).length;
  while (String(length + digits).length > digits) digits += 1;
  return `${length + digits}${rest}`;
}

function header(name: string, size: number, seconds: number, kind: string, mode = 0o644): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(BLOCK);
  const put = (text: string, at: number, most: number) => block.set(encoder.encode(text).subarray(0, most), at);
  const octal = (value: number, width: number) => value.toString(8).padStart(width - 1, '0');
  put(name, 0, LONGEST_NAME);
  put(octal(mode, 8), 100, 8);
  put(octal(0, 8), 108, 8);
  put(octal(0, 8), 116, 8);
  put(octal(size, 12), 124, 12);
  put(octal(seconds, 12), 136, 12);
  put('        ', 148, 8);
  put(kind, 156, 1);
  put('ustar\u000000', 257, 8);
  put(`${octal(block.reduce((sum, byte) => sum + byte, 0), 7)}\0 `, 148, 8);
  return block;
}

function padding(size: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}
