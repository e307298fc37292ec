import { expect, it } from 'vitest';
import type { Settings } from '../api/types';
import { assignments, gibibytes, needsRestart, sizeSetting } from './settings';

const settings: Settings = {
  cpus: 2, memory: '4g', disk: '64g', accelerator: 'auto', channel: 'auto', share_home: true, shares: ['/a', '/b:ro'],
  publish_address: '127.0.0.1', insecure_registries: [], docker_context: true, start_at_login: false,
};

it('changes what has changed', () => {
  expect(assignments(settings, settings)).toEqual([]);
  const after = { ...settings, cpus: 1, memory: '512m', share_home: false, shares: ['/b:ro'], insecure_registries: ['localhost:5000'] };
  expect(assignments(settings, after)).toEqual(['cpus=1', 'memory=512m', 'share_home=false', 'shares-=/a', 'insecure_registries+=localhost:5000']);
});

it('knows what waits for a restart', () => {
  expect(needsRestart(settings, { ...settings, docker_context: false })).toBe(false);
  expect(needsRestart(settings, { ...settings, cpus: 1 })).toBe(true);
});

it.each([
  ['4g', 4],
  ['1536m', 1.5],
])('%s and back', (text, value) => {
  expect(gibibytes(text as string)).toBe(value);
  expect(sizeSetting(value as number)).toBe(text);
});
