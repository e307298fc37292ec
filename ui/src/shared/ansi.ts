// Colours and styles of terminal output (ECMA-48 SGR). Everything else that a program says to a terminal is dropped.

export interface Style {
  /** 0–15 by the theme, or a colour of its own. */
  fg?: number | string;
  bg?: number | string;
  bold?: boolean;
  dim?: boolean;
  italic?: boolean;
  underline?: boolean;
  inverse?: boolean;
  strike?: boolean;
}

export interface Span {
  text: string;
  style: Style;
}

export const PLAIN: Style = Object.freeze({});

// CSI …, OSC … up to BEL or ST, and two-character escapes.
// eslint-disable-next-line no-control-regex
const ESCAPE = /\x1b(?:\[([0-9:;<=>?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])/g;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f]/g;
const TAB = 8;

/** What the line leaves for the next one. Cheap for lines without escapes. */
export function styleAfter(line: string, before: Style): Style {
  if (!line.includes('\x1b')) return before;
  let style = before;
  for (const match of line.matchAll(ESCAPE)) if (match[2] === 'm') style = applied(style, match[1] ?? '');
  return style;
}

/** The visible text of a line in pieces of one style each. */
export function parse(line: string, before: Style): Span[] {
  const spans: Span[] = [];
  let style = before;
  let at = 0;
  let column = 0;
  const push = (raw: string) => {
    let text = '';
    for (const part of raw.replace(CONTROL, '').split(/(\t)/)) {
      const piece = part === '\t' ? ' '.repeat(TAB - (column % TAB)) : part;
      text += piece;
      column += piece.length;
    }
    if (text !== '') spans.push({ text, style });
  };
  const visible = overwritten(line);
  for (const match of visible.matchAll(ESCAPE)) {
    push(visible.slice(at, match.index));
    if (match[2] === 'm') style = applied(style, match[1] ?? '');
    at = match.index + match[0].length;
  }
  push(visible.slice(at));
  return spans;
}

/** The visible text alone. */
export function plain(line: string): string {
  return parse(line, PLAIN)
    .map((s) => s.text)
    .join('');
}

/** A carriage return begins the line anew, as progress bars want it: what is left is what came last. */
function overwritten(line: string): string {
  const end = line.endsWith('\r') ? line.slice(0, -1) : line;
  const at = end.lastIndexOf('\r');
  if (at < 0) return end;
  // Styles set before stay in force.
  const styles = [...end.slice(0, at).matchAll(ESCAPE)].filter((m) => m[2] === 'm').map((m) => m[0]);
  return styles.join('') + end.slice(at + 1);
}

function applied(before: Style, parameters: string): Style {
  const codes = parameters.split(/[;:]/).map((code) => (code === '' ? 0 : Number(code)));
  let style: Style = { ...before };
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i]!;
    if (code === 0) style = {};
    else if (code === 1) style.bold = true;
    else if (code === 2) style.dim = true;
    else if (code === 3) style.italic = true;
    else if (code === 4) style.underline = true;
    else if (code === 7) style.inverse = true;
    else if (code === 9) style.strike = true;
    else if (code === 22) (delete style.bold, delete style.dim);
    else if (code === 23) delete style.italic;
    else if (code === 24) delete style.underline;
    else if (code === 27) delete style.inverse;
    else if (code === 29) delete style.strike;
    else if (code >= 30 && code <= 37) style.fg = code - 30;
    else if (code >= 90 && code <= 97) style.fg = code - 82;
    else if (code === 39) delete style.fg;
    else if (code >= 40 && code <= 47) style.bg = code - 40;
    else if (code >= 100 && code <= 107) style.bg = code - 92;
    else if (code === 49) delete style.bg;
    else if (code === 38 || code === 48) {
      const [color, used] = extended(codes.slice(i + 1));
      i += used;
      if (color === undefined) continue;
      if (code === 38) style.fg = color;
      else style.bg = color;
    }
  }
  return style;
}

/** `5;N` or `2;R;G;B`: the colour and how many numbers it took. */
function extended(codes: number[]): [number | string | undefined, number] {
  const byte = (value: number | undefined) => Math.min(255, Math.max(0, Math.trunc(Number(value) || 0)));
  if (codes[0] === 5) return [indexed(byte(codes[1])), 2];
  if (codes[0] === 2) return [`rgb(${byte(codes[1])} ${byte(codes[2])} ${byte(codes[3])})`, 4];
  return [undefined, 0];
}

/** The 256 colours of xterm: 16 of the theme, a cube of 6, and 24 greys. */
function indexed(index: number): number | string {
  if (index < 16) return index;
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return `rgb(${grey} ${grey} ${grey})`;
  }
  const level = (n: number) => (n === 0 ? 0 : 55 + n * 40);
  const cube = index - 16;
  return `rgb(${level(Math.floor(cube / 36))} ${level(Math.floor(cube / 6) % 6)} ${level(cube % 6)})`;
}

/** A colour for the page. Only ever one of ours: nothing of the text gets into it. */
export function css(color: number | string | undefined): string | undefined {
  return typeof color === 'number' ? `var(--ansi-${color})` : color;
}
