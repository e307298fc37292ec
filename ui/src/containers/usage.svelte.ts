// CPU and memory of the rows in sight, and of no others; nothing is asked while the page is hidden.
import { host } from '../api';
import type { CpuStats, Stats } from '../api/docker';
import type { ContainerUsage } from '../api/types';
import { attended } from '../shared/attention';
import { sleep } from '../shared/retry';
import { SvelteMap } from 'svelte/reactivity';

const PERIOD = 2000;
/** While nobody touches the page. */
const QUIET_PERIOD = 6000;
/** More are never in sight; the service answers for no more at once. */
const AT_ONCE = 200;
const MOST_REMEMBERED = 2000;

export interface Usage {
  cpu: number | undefined;
  memory: number;
  limit: number;
}

/** Percent of one CPU between two samples, as `docker stats` counts. */
export function cpuPercent(before: CpuStats | undefined, now: CpuStats | undefined): number | undefined {
  const used = (now?.cpu_usage?.total_usage ?? 0) - (before?.cpu_usage?.total_usage ?? 0);
  const passed = (now?.system_cpu_usage ?? 0) - (before?.system_cpu_usage ?? 0);
  if (!before?.cpu_usage || !(passed > 0) || used < 0) return undefined;
  return (used / passed) * (now?.online_cpus || 1) * 100;
}

/** Memory without the page cache that can be dropped at once. */
export function memoryUsed(stats: Pick<Stats, 'memory_stats'>): number {
  const usage = stats.memory_stats?.usage ?? 0;
  const inactive = stats.memory_stats?.stats?.['inactive_file'] ?? 0;
  return inactive < usage ? usage - inactive : usage;
}

class UsageOfRows {
  by = new SvelteMap<string, Usage>();
  #last = new Map<string, CpuStats | undefined>();
  #wanted: string[] = [];

  /** The running containers in sight. */
  want(ids: string[]) {
    this.#wanted = ids;
    for (const id of [...this.by.keys()]) if (!ids.includes(id)) this.by.delete(id);
    // A row that comes back into sight has its rate since it was seen last.
    if (this.#last.size > MOST_REMEMBERED) this.#last.clear();
  }

  async follow(signal: AbortSignal) {
    while (!signal.aborted) {
      const began = performance.now();
      if (document.visibilityState === 'visible') await this.#round(signal);
      else await shown(signal);
      // A slow engine is asked less often.
      await sleep(Math.max(attended() ? PERIOD : QUIET_PERIOD, 2 * (performance.now() - began)), signal);
    }
  }

  async #round(signal: AbortSignal) {
    const asked = this.#wanted.slice(0, AT_ONCE);
    if (asked.length === 0) return;
    // An engine that does not answer shows nothing; the list will say why.
    const found = await host.usage(asked, signal).catch(() => ({}) as Awaited<ReturnType<typeof host.usage>>);
    for (const id of asked) {
      const stats = found[id];
      if (!stats) this.by.delete(id);
      else if (this.#wanted.includes(id)) this.#take(id, stats);
    }
  }

  #take(id: string, stats: ContainerUsage) {
    const cpu = cpuPercent(this.#last.get(id), stats.cpu_stats);
    this.#last.set(id, stats.cpu_stats);
    const next = { cpu: cpu === undefined ? undefined : Math.round(cpu * 10) / 10, memory: memoryUsed(stats), limit: stats.memory_stats.limit };
    const before = this.by.get(id);
    // What looks the same is not drawn again.
    if (before?.cpu !== next.cpu || before?.memory !== next.memory) this.by.set(id, next);
  }
}

function shown(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', () => resolve(), { once: true, signal });
    signal.addEventListener('abort', () => resolve());
  });
}

export const usage = new UsageOfRows();
