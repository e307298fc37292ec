// The engine's words on a container's state, kept true as time passes: it says "Up 3 seconds" when it is asked, and no event
// comes when they have become four.
import { age } from '../shared/format';

const UNITS: Record<string, number> = {
  second: 1, minute: 60, hour: 3600, day: 86_400, week: 604_800, month: 2_592_000, year: 31_536_000,
};
const TIME = /^(Up |Exited \(-?\d+\) )(?:(Less than a second|About an? (?:minute|hour))|(\d+) (second|minute|hour|day|week|month|year)s?)( ago)?( \(.*\))?$/;

/** `seen` and `now` in seconds since 1970. */
export function statusText(status: string, seen: number, now: number): string {
  const match = TIME.exec(status);
  if (!match) return status;
  const [, begin, words, count, unit, ago = '', rest = ''] = match;
  const was = words ? (words.endsWith('hour') ? 3600 : words.endsWith('minute') ? 60 : 0) : Number(count) * UNITS[unit!]!;
  const text = age(now - was - Math.max(0, now - seen), now);
  const duration = text === 'just now' ? 'a moment' : text.replace(/ ago$/, '');
  return `${begin}${duration}${ago}${rest}`;
}
