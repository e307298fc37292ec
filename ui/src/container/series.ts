// The samples of a container as series for charts.
import type { CpuStats, Stats } from '../api/docker';
import { cpuPercent, memoryUsed } from '../containers/usage.svelte';

/** Ten minutes at a sample a second. */
export const MOST_SAMPLES = 600;

export interface Series {
  time: number[];
  cpu: (number | null)[];
  memory: (number | null)[];
  received: (number | null)[];
  sent: (number | null)[];
  read: (number | null)[];
  written: (number | null)[];
}

interface Counters {
  at: number;
  cpu: CpuStats | undefined;
  received: number;
  sent: number;
  read: number;
  written: number;
}

export class Recorder {
  series: Series = { time: [], cpu: [], memory: [], received: [], sent: [], read: [], written: [] };
  #last: Counters | undefined;

  add(stats: Stats) {
    const now = counters(stats);
    const before = this.#last;
    this.#last = now;
    if (!Number.isFinite(now.at) || (before && now.at <= before.at)) return;
    const rate = (key: 'received' | 'sent' | 'read' | 'written') =>
      before && now[key] >= before[key] ? (now[key] - before[key]) / (now.at - before.at) : null;
    const { series } = this;
    series.time.push(now.at);
    // The first sample of a stream brings the one before it.
    series.cpu.push(cpuPercent(before?.cpu ?? stats.precpu_stats, now.cpu) ?? null);
    series.memory.push(memoryUsed(stats));
    for (const key of ['received', 'sent', 'read', 'written'] as const) series[key].push(rate(key));
    if (series.time.length > MOST_SAMPLES) for (const list of Object.values(series)) list.shift();
  }
}

function counters(stats: Stats): Counters {
  const networks = Object.values(stats.networks ?? {});
  const disk = (op: string) =>
    (stats.blkio_stats?.io_service_bytes_recursive ?? []).filter((e) => e.op.toLowerCase() === op).reduce((sum, e) => sum + e.value, 0);
  return {
    at: Date.parse(stats.read) / 1000,
    cpu: stats.cpu_stats,
    received: networks.reduce((sum, n) => sum + n.rx_bytes, 0),
    sent: networks.reduce((sum, n) => sum + n.tx_bytes, 0),
    read: disk('read'),
    written: disk('write'),
  };
}
