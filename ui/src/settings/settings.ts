// The form of the settings, and what of it has changed.
import type { Settings } from '../api/types';
import { parseSize } from '../shared/format';

export const GIB = 1024 ** 3;

/** Assignments for the keys that differ, in the words of `longshore settings set`. */
export function assignments(before: Settings, after: Settings): string[] {
  const list: string[] = [];
  const simple = ['cpus', 'memory', 'swap', 'disk', 'accelerator', 'channel', 'share_home', 'publish_address', 'docker_context', 'start_at_login'] as const;
  for (const key of simple) if (before[key] !== after[key]) list.push(`${key}=${after[key]}`);
  for (const key of ['shares', 'insecure_registries'] as const) {
    for (const item of before[key]) if (!after[key].includes(item)) list.push(`${key}-=${item}`);
    for (const item of after[key]) if (!before[key].includes(item)) list.push(`${key}+=${item}`);
  }
  if (JSON.stringify(before.engine) !== JSON.stringify(after.engine)) list.push(`engine=${JSON.stringify(after.engine)}`);
  return list;
}

/** The settings that only the next start of the VM brings into force. */
export const NEED_RESTART: (keyof Settings)[] = ['cpus', 'memory', 'swap', 'disk', 'accelerator', 'channel', 'share_home', 'insecure_registries', 'engine'];

export function needsRestart(before: Settings, after: Settings): boolean {
  return NEED_RESTART.some((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key]));
}

/** A size as the host service writes it, in gibibytes. */
export function gibibytes(size: string): number {
  return (parseSize(size) ?? 0) / GIB;
}

/** Gibibytes as a setting; the halves of a slider are no whole number of them. */
export function sizeSetting(value: number): string {
  return Number.isInteger(value) ? `${value}g` : `${Math.round(value * 1024)}m`;
}
