import { expect, it } from 'vitest';
import type { TraceSpan } from '../api/types';
import { duration, requestOf, uptime, waterfall } from './waterfall';

const span = (span_id: string, parent_id: string | undefined, service: string, start_us: number, duration_us: number, fields = {}): TraceSpan => ({
  trace_id: 't', span_id, ...(parent_id === undefined ? {} : { parent_id }), service, name: span_id, start_us, duration_us, fields,
});

it('puts spans below their parents, and each moment to the deepest layer', () => {
  const { bars, duration, layers } = waterfall([
    span('c', 'b', 'shim', 1400, 400),
    span('a', 'gone', 'daemon', 1000, 1000, { method: 'POST', path: '/x' }),
    span('b', 'a', 'supervisor', 1200, 700),
  ]);
  expect(bars.map((bar) => [bar.span.span_id, bar.depth, bar.from, bar.width])).toEqual([
    ['a', 0, 0, 1],
    ['b', 1, 0.2, 0.7],
    ['c', 2, 0.4, 0.4],
  ]);
  expect(duration).toBe(1000);
  expect(layers).toEqual([
    { service: 'daemon', time: 300 },
    { service: 'supervisor', time: 300 },
    { service: 'shim', time: 400 },
  ]);
  expect(requestOf(bars[0]!.span)).toEqual({ method: 'POST', path: '/x' });
});

it('survives spans that make no sense', () => {
  expect(waterfall([])).toEqual({ bars: [], duration: 0, layers: [] });
  const circle = waterfall([span('a', 'b', 's', 0, 1), span('b', 'a', 's', 0, 1), span('own', 'own', 's', 5, 0)]);
  expect(circle.bars.map((bar) => bar.span.span_id)).toEqual(['own']);
  const many = Array.from({ length: 2000 }, (_, at) => span(`s${at}`, at ? `s${at - 1}` : undefined, 's', at, 1));
  expect(waterfall(many).bars.length).toBe(500);
});

it('writes times for people', () => {
  expect([850, 12_345, 2_500_000].map(duration)).toEqual(['850 µs', '12.3 ms', '2.50 s']);
  expect([8000, 720_000, 3_700_000, 273_600_000].map(uptime)).toEqual(['8 s', '12 min', '1 h 1 min', '3 d 4 h']);
});
