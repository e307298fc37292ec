// The processes of the engine as a chain: who starts whom, and how much processor each has used since the last look.
import type { ChainProcess, Layers } from '../api/types';

export interface Link extends ChainProcess {
  /** Percent of one processor since the last look. */
  cpu: number | undefined;
}

export interface ShimLink {
  shim: Link;
  /** What it has started: the container's own processes. */
  processes: Link[];
}

export interface Chain {
  services: Map<string, Link>;
  shims: ShimLink[];
}

export function chainOf(now: Layers, before?: Layers): Chain {
  const earlier = new Map(before?.processes.map((process) => [process.pid, process]));
  const passed = before ? now.uptime_ms - before.uptime_ms : 0;
  const link = (process: ChainProcess): Link => {
    const last = earlier.get(process.pid);
    // A pid may have gone to another process.
    const same = last && last.name === process.name && last.cpu_ms <= process.cpu_ms;
    return { ...process, cpu: same && passed > 0 ? ((process.cpu_ms - last.cpu_ms) / passed) * 100 : undefined };
  };
  const services = new Map<string, Link>();
  const shims = new Map<number, ShimLink>();
  for (const process of now.processes) {
    if (process.layer === 'shim') shims.set(process.pid, { shim: link(process), processes: [] });
    else if (process.layer !== 'container') services.set(process.layer, link(process));
  }
  for (const process of now.processes) if (process.layer === 'container') shims.get(process.parent)?.processes.push(link(process));
  return { services, shims: [...shims.values()].sort((a, b) => a.shim.uptime_ms - b.shim.uptime_ms || a.shim.pid - b.shim.pid) };
}
