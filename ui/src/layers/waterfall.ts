// One request as bars over time: a row for each span, below the one that it belongs to.
import type { TraceSpan } from '../api/types';

export interface Bar {
  span: TraceSpan;
  depth: number;
  /** Parts of the whole, 0 to 1. */
  from: number;
  width: number;
}

export interface Waterfall {
  bars: Bar[];
  /** Microseconds of the whole. */
  duration: number;
  /** Microseconds that each layer was at work itself, while no layer below it was; in order of appearance. */
  layers: { service: string; time: number }[];
}

/** A trace that has more is cut: nobody reads so many rows. */
const MOST_BARS = 500;
const DEEPEST = 32;

export function waterfall(spans: TraceSpan[]): Waterfall {
  const sorted = [...spans].sort((a, b) => a.start_us - b.start_us || b.duration_us - a.duration_us).slice(0, MOST_BARS);
  const known = new Map(sorted.map((span) => [span.span_id, span]));
  const children = new Map<string | undefined, TraceSpan[]>();
  for (const span of sorted) {
    const parent = span.parent_id !== undefined && span.parent_id !== span.span_id && known.has(span.parent_id) ? span.parent_id : undefined;
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const begin = Math.min(...sorted.map((span) => span.start_us));
  const end = Math.max(...sorted.map((span) => span.start_us + span.duration_us));
  const duration = sorted.length ? Math.max(1, end - begin) : 0;
  const bars: Bar[] = [];
  const drawn = new Set<string>();
  const draw = (span: TraceSpan, depth: number) => {
    // What comes from the guest may go in circles.
    if (drawn.has(span.span_id)) return;
    drawn.add(span.span_id);
    bars.push({ span, depth: Math.min(depth, DEEPEST), from: (span.start_us - begin) / duration, width: span.duration_us / duration });
    for (const child of children.get(span.span_id) ?? []) draw(child, depth + 1);
  };
  for (const root of children.get(undefined) ?? []) draw(root, 0);
  return { bars, duration, layers: shares(sorted, known) };
}

/** Each moment belongs to the deepest span that is open in it. */
function shares(spans: TraceSpan[], known: Map<string, TraceSpan>): Waterfall['layers'] {
  const depth = (span: TraceSpan) => {
    let at: TraceSpan | undefined = span;
    let steps = 0;
    while (at && steps < DEEPEST) {
      at = at.parent_id === undefined ? undefined : known.get(at.parent_id);
      steps += 1;
    }
    return steps;
  };
  const open = spans.map((span) => ({ span, depth: depth(span), end: span.start_us + span.duration_us }));
  const edges = [...new Set(open.flatMap(({ span, end }) => [span.start_us, end]))].sort((a, b) => a - b);
  const times = new Map<string, number>();
  for (const span of spans) if (!times.has(span.service)) times.set(span.service, 0);
  for (let at = 0; at + 1 < edges.length; at++) {
    const [from, to] = [edges[at]!, edges[at + 1]!];
    let deepest: (typeof open)[number] | undefined;
    for (const one of open) if (one.span.start_us <= from && one.end >= to && (!deepest || one.depth >= deepest.depth)) deepest = one;
    if (deepest) times.set(deepest.span.service, times.get(deepest.span.service)! + to - from);
  }
  return [...times].map(([service, time]) => ({ service, time }));
}

/** `850 µs`, `12.3 ms`, `2.50 s` */
export function duration(microseconds: number): string {
  if (microseconds < 1000) return `${Math.round(microseconds)} µs`;
  if (microseconds < 1e6) return `${Number((microseconds / 1000).toPrecision(3))} ms`;
  return `${(microseconds / 1e6).toFixed(2)} s`;
}

/** `3 d 4 h`, `12 min`, `8 s` */
export function uptime(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** What a request was, from its first span: `POST`, `/containers/create`. */
export function requestOf(span: TraceSpan): { method: string; path: string } {
  const field = (name: string) => (typeof span.fields[name] === 'string' ? span.fields[name] : '');
  return { method: field('method'), path: field('path') };
}
