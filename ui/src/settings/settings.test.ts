import { expect, it } from 'vitest';
import type { Settings } from '../api/types';
import { optionsOf } from './engineOptions';
import { assignments, gibibytes, needsRestart, sizeSetting } from './settings';

const settings: Settings = {
  cpus: 2, memory: '4g', swap: '0', disk: '64g', accelerator: 'auto', channel: 'auto', share_home: true, shares: ['/a', '/b:ro'],
  publish_address: '127.0.0.1', insecure_registries: [], engine: {}, docker_context: true, start_at_login: false,
};

it('changes what has changed', () => {
  expect(assignments(settings, settings)).toEqual([]);
  const after = { ...settings, cpus: 1, memory: '512m', share_home: false, shares: ['/b:ro'], insecure_registries: ['localhost:5000'] };
  expect(assignments(settings, after)).toEqual(['cpus=1', 'memory=512m', 'share_home=false', 'shares-=/a', 'insecure_registries+=localhost:5000']);
});

it('sets the options of the engine whole', () => {
  const after = { ...settings, engine: { debug: true } };
  expect(assignments(settings, after)).toEqual(['engine={"debug":true}']);
  expect(assignments(after, settings)).toEqual(['engine={}']);
  expect(needsRestart(settings, after)).toBe(true);
});

it.each([
  ['', { options: {} }],
  ['{"mtu": 1400}', { options: { mtu: 1400 } }],
  ['[]', { wrong: expect.stringContaining('not a JSON object') }],
  ['{"mtu"', { wrong: expect.stringContaining('not JSON yet') }],
])('reads the options in %j', (text, expected) => {
  expect(optionsOf(text)).toEqual(expected);
});

it('knows what waits for a restart', () => {
  expect(needsRestart(settings, { ...settings, docker_context: false })).toBe(false);
  expect(needsRestart(settings, { ...settings, cpus: 1 })).toBe(true);
  const swapping = { ...settings, swap: '1g' };
  expect(needsRestart(settings, swapping)).toBe(true);
  expect(assignments(swapping, settings)).toEqual(['swap=0']);
});

it.each([
  ['4g', 4],
  ['1536m', 1.5],
])('%s and back', (text, value) => {
  expect(gibibytes(text as string)).toBe(value);
  expect(sizeSetting(value as number)).toBe(text);
});
