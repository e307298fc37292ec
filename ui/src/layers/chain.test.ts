import { expect, it } from 'vitest';
import type { ChainProcess, Layers } from '../api/types';
import { chainOf } from './chain';

const process = (pid: number, layer: string, more: Partial<ChainProcess> = {}): ChainProcess => ({
  pid, layer, parent: 1, name: `longshore-${layer}`, rss_kib: 10, cpu_ms: 100, uptime_ms: 1000, ...more,
});
const layers = (uptime_ms: number, processes: ChainProcess[]): Layers => ({ uptime_ms, services: [], processes, left_out: 0 });

it('puts what a shim has started below it, newest shims first', () => {
  const chain = chainOf(layers(0, [process(5, 'daemon'), process(7, 'shim', { uptime_ms: 9000 }), process(9, 'shim', { subject: 'abc' }), process(10, 'container', { parent: 9, name: 'sh' }), process(11, 'container', { parent: 4 })]));
  expect(chain.services.get('daemon')?.pid).toBe(5);
  expect(chain.shims.map(({ shim, processes }) => [shim.pid, processes.map((p) => p.name)])).toEqual([
    [9, ['sh']],
    [7, []],
  ]);
});

it('knows the processor time between two looks, of the same process only', () => {
  const before = layers(10_000, [process(5, 'daemon'), process(6, 'supervisor', { cpu_ms: 900 })]);
  const now = layers(12_000, [process(5, 'daemon', { cpu_ms: 300 }), process(6, 'supervisor'), process(7, 'agent')]);
  const { services } = chainOf(now, before);
  expect([...services].map(([name, link]) => [name, link.cpu])).toEqual([['daemon', 10], ['supervisor', undefined], ['agent', undefined]]);
});
