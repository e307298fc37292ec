// Numbers, times and names for people.

/** Bytes of disks, images and networks: in powers of 1000, as docker shows them. */
export function bytes(count: number): string {
  return inUnits(count, 1000);
}

/** Bytes of memory: in powers of 1024, as its options count. */
export function memory(count: number): string {
  return inUnits(count, 1024);
}

function inUnits(count: number, step: number): string {
  if (!Number.isFinite(count) || count < 0) return '–';
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let value = count;
  let unit = 0;
  while (value >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits))} ${units[unit]}`;
}

export function percent(value: number): string {
  return `${value >= 10 ? value.toFixed(0) : value.toFixed(1)}%`;
}

const STEPS: [number, string][] = [
  [60, 'second'],
  [60, 'minute'],
  [24, 'hour'],
  [7, 'day'],
  [4.35, 'week'],
  [12, 'month'],
  [Infinity, 'year'],
];

/** How long ago it was; `seconds` since 1970. */
export function age(seconds: number, now = Date.now() / 1000): string {
  if (!(seconds > 0)) return '–';
  let value = Math.max(0, now - seconds);
  if (value < 5) return 'just now';
  for (const [most, name] of STEPS) {
    if (value < most) {
      const whole = Math.floor(value);
      return `${whole} ${name}${whole === 1 ? '' : 's'} ago`;
    }
    value /= most;
  }
  return '–';
}

export function shortId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, 12);
}

/** An error's text begins in lower case, as it may stand in a longer one. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function plural(count: number, one: string): string {
  return `${count} ${one}${count === 1 ? '' : 's'}`;
}

/** `2g`, `512m`, `1.5 GiB` as bytes; undefined when it is no size. */
export function parseSize(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*$/i.exec(text);
  if (!match) return undefined;
  const power = 'kmgt'.indexOf(match[2]!.toLowerCase()) + 1;
  return Math.round(Number(match[1]) * (match[2] ? 1024 ** power : 1));
}
