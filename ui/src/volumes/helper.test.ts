import { expect, it } from 'vitest';
import type { ImageRow } from '../api/docker';
import { bySize, HELPER, isHelper, PLACE, request } from './helper';

it('mounts the volume where it copies nothing and, to look at, changes nothing', () => {
  const { HostConfig, NetworkDisabled } = request('sha256:1', 'data', true);
  expect(HostConfig.Mounts).toEqual([{ Type: 'volume', Source: 'data', Target: '/.longshore-volume', ReadOnly: true, VolumeOptions: { NoCopy: true } }]);
  expect(NetworkDisabled).toBe(true);
});

it('takes the smallest image', () => {
  const image = (Id: string, Size: number) => ({ Id, Size }) as ImageRow;
  expect(bySize([image('b', 2), image('c', 1), image('a', 2)]).map((i) => i.Id)).toEqual(['c', 'a', 'b']);
});

it('hides nothing that has run', () => {
  const ours = { Labels: { [HELPER]: 'volume' }, State: 'created', Mounts: [{ Type: 'volume', Source: '', Destination: PLACE, RW: false }] };
  expect(isHelper(ours)).toBe(true);
  for (const other of [{ ...ours, State: 'running' }, { ...ours, State: 'exited' }, { ...ours, Mounts: [] }, { ...ours, Labels: {} }]) expect(isHelper(other)).toBe(false);
});
