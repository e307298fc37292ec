// CPU and memory of the rows in sight, and of no others; nothing is asked while the page is hidden.
import { docker } from '../api';
import type { CpuStats, Stats } from '../api/docker';
import { attended } from '../shared/attention';
import { sleep } from '../shared/retry';
import { SvelteMap } from 'svelte/reactivity';

const PERIOD = 2000;
/** While nobody touches the page. */
const QUIET_PERIOD = 6000;
const AT_ONCE = 3;
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
export function memoryUsed(stats: Stats): number {
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
    const queue = [...this.#wanted];
    const worker = async () => {
      for (let id = queue.shift(); id !== undefined && !signal.aborted; id = queue.shift()) await this.#sample(id, signal);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  }

  async #sample(id: string, signal: AbortSignal) {
    try {
      const stats = await docker.sample(id, signal);
      if (!this.#wanted.includes(id)) return;
      const cpu = cpuPercent(this.#last.get(id), stats.cpu_stats);
      this.#last.set(id, stats.cpu_stats);
      const next = { cpu: cpu === undefined ? undefined : Math.round(cpu * 10) / 10, memory: memoryUsed(stats), limit: stats.memory_stats?.limit ?? 0 };
      const before = this.by.get(id);
      // What looks the same is not drawn again.
      if (before?.cpu !== next.cpu || before?.memory !== next.memory) this.by.set(id, next);
    } catch {
      // It may have ended since; the list will say so.
      this.by.delete(id);
    }
  }
}

function shown(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', () => resolve(), { once: true, signal });
    signal.addEventListener('abort', () => resolve());
  });
}

export const usage = new UsageOfRows();
