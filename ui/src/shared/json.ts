// A JSON value as lines of text with colours, found by words of their path or value.

export interface JsonLine {
  /** Nesting. */
  depth: number;
  /** The way to it: `HostConfig.Memory`. */
  path: string;
  key?: string;
  /** What is shown after the key. */
  value: string;
  kind: 'string' | 'number' | 'word' | 'bracket';
}

/** The longest text that is shown of one value. */
const MOST = 4000;

export function jsonLines(value: unknown): JsonLine[] {
  const lines: JsonLine[] = [];
  walk(value, undefined, '', 0, '', lines);
  return lines;
}

function walk(value: unknown, key: string | undefined, path: string, depth: number, comma: string, lines: JsonLine[]) {
  const add = (text: string, kind: JsonLine['kind'], withKey = true) =>
    lines.push({ depth, path, key: withKey ? key : undefined, value: text, kind });
  if (Array.isArray(value) || (typeof value === 'object' && value !== null)) {
    const list = Array.isArray(value);
    const entries: [string, unknown][] = list ? value.map((v, i) => [String(i), v]) : Object.entries(value);
    const [open, shut] = list ? ['[', ']'] : ['{', '}'];
    if (entries.length === 0) return void add(`${open}${shut}${comma}`, 'bracket');
    add(open, 'bracket');
    entries.forEach(([name, inner], at) => {
      const below = path === '' ? name : `${path}.${name}`;
      walk(inner, list ? undefined : name, below, depth + 1, at < entries.length - 1 ? ',' : '', lines);
    });
    return void add(`${shut}${comma}`, 'bracket', false);
  }
  const kind = typeof value === 'string' ? 'string' : typeof value === 'number' ? 'number' : 'word';
  const text = JSON.stringify(value) ?? 'null';
  add((text.length > MOST ? `${text.slice(0, MOST)}…"` : text) + comma, kind);
}

/** The lines whose path or value holds every word. */
export function search(lines: JsonLine[], query: string): JsonLine[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return lines;
  return lines.filter((line) => {
    if (line.kind === 'bracket') return false;
    const text = `${line.path}\n${line.value}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
