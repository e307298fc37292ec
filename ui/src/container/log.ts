// The lines of a log: the last hundred thousand, with what is needed to place each of them on the screen.
import { PLAIN, plain, type Style, styleAfter } from '../shared/ansi';
import type { Source } from '../api/stream';

export const MOST_LINES = 100_000;
/** Dropped at once, so that a full log is not moved with every line. */
const SLACK = 5000;
/** The longest line that is shown whole. */
const MOST_CHARACTERS = 20_000;

export interface Line {
  /** Counts from the first line ever seen. */
  number: number;
  text: string;
  time: string;
  source: Source;
  /** Who has written it, where several write; else empty. */
  from: string;
  /** Columns of its visible text. */
  width: number;
  /** The style that the lines before have left. */
  style: Style;
}

// RFC 3339 with nanoseconds, as the engine puts it before each line.
const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?/;

export class Log {
  lines: Line[] = [];
  dropped = 0;
  #next = 1;
  #styles = new Map<string, Style>();
  #last = new Map<string, string>();

  /** Adds lines as the engine sends them; returns how many old ones went. */
  add(raw: string[], source: Source, from = ''): number {
    const stream = `${source}/${from}`;
    for (const line of raw) {
      const style = this.#styles.get(stream) ?? PLAIN;
      const time = TIME.exec(line);
      let text = time ? line.slice(time[0].length) : line;
      if (text.length > MOST_CHARACTERS) text = `${text.slice(0, MOST_CHARACTERS)}… (${text.length} characters)`;
      this.lines.push({ number: this.#next++, text, time: time?.[1] ?? '', source, from, width: columns(plain(text)), style });
      this.#styles.set(stream, styleAfter(text, style));
      if (time) this.#last.set(from, time[1]!);
    }
    if (this.lines.length <= MOST_LINES + SLACK) return 0;
    const gone = this.lines.length - MOST_LINES;
    this.lines.splice(0, gone);
    this.dropped += gone;
    return gone;
  }

  clear() {
    this.dropped += this.lines.length;
    this.lines = [];
  }

  /** Where to go on after a break: the moment of the writer's last line. */
  lastTime(from = ''): string | undefined {
    return this.#last.get(from);
  }
}

/** A container whose log is read; another start of it is another writer. */
export interface Writer {
  id: string;
  tty: boolean;
  /** What its lines are marked with, where several write; else empty. */
  label: string;
  started: string;
  running: boolean;
}

/** A line of one writer, as the engine has sent them. */
export interface Written {
  raw: string;
  source: Source;
  from: string;
}

/** The lines of several writers in the order in which they were written; those of one writer stay in theirs. */
export function inOrder(writers: Written[][]): Written[] {
  const timed = writers.flatMap((lines) => {
    let time = '';
    // A line without a time goes with the one before it.
    return lines.map((line) => ({ line, time: (time = padded(line.raw) ?? time) }));
  });
  return timed.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0)).map(({ line }) => line);
}

/** The line's time with all nine digits of its fraction, so that texts compare as the times do. */
function padded(raw: string): string | undefined {
  const time = TIME.exec(raw)?.[1];
  if (time === undefined) return undefined;
  const fraction = /\.(\d+)/.exec(time)?.[1] ?? '';
  return time.slice(0, 19) + fraction.padEnd(9, '0');
}

/** The lines that hold a text; each line is looked at once, however the log grows. */
export class Finder {
  #needle = '';
  #to = 0;
  #numbers: number[] = [];

  /** Numbers of the lines that hold `needle`, which is in lower case. */
  find(lines: Line[], needle: string): number[] {
    if (needle !== this.#needle) {
      this.#needle = needle;
      this.#to = 0;
      this.#numbers = [];
    }
    const first = lines[0]?.number ?? Infinity;
    const gone = this.#numbers.findIndex((number) => number >= first);
    if (gone !== 0) this.#numbers.splice(0, gone < 0 ? this.#numbers.length : gone);
    // Numbers are consecutive: where to go on is known.
    for (let i = Math.max(0, this.#to + 1 - first); i < lines.length; i++) {
      const line = lines[i]!;
      if (needle !== '' && plain(line.text).toLowerCase().includes(needle)) this.#numbers.push(line.number);
      this.#to = line.number;
    }
    return [...this.#numbers];
  }
}

/** Columns that a text takes in a terminal's font: most take one, East Asian ones two, combining marks none. */
export function columns(text: string): number {
  // eslint-disable-next-line no-control-regex
  if (/^[\x20-\x7e]*$/.test(text)) return text.length;
  let count = 0;
  for (const character of text) {
    if (/\p{Mn}|\p{Me}|\p{Cf}/u.test(character)) continue;
    count += /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Extended_Pictographic}/u.test(character) ? 2 : 1;
  }
  return count;
}

/** Where each line begins, in rows of the screen; grows with the log and is made anew when the width changes. */
export class Layout {
  /** `starts[i]` is the first row of line i; one more entry than lines. */
  starts: Float64Array = new Float64Array(1024);
  count = 0;

  constructor(readonly rowsOf: (line: Line) => number) {}

  get rows(): number {
    return this.starts[this.count]!;
  }

  append(lines: Line[]) {
    const needed = this.count + lines.length + 1;
    if (needed > this.starts.length) {
      const larger = new Float64Array(Math.max(needed, this.starts.length * 2));
      larger.set(this.starts);
      this.starts = larger;
    }
    for (const line of lines) {
      this.starts[this.count + 1] = this.starts[this.count]! + this.rowsOf(line);
      this.count += 1;
    }
  }

  reset(lines: Line[]) {
    this.count = 0;
    this.starts[0] = 0;
    this.append(lines);
  }

  /** The line that a row belongs to. */
  lineAt(row: number): number {
    let low = 0;
    let high = Math.max(0, this.count - 1);
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle]! <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
