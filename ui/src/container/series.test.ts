import { expect, it } from 'vitest';
import type { Stats } from '../api/docker';
import { MOST_SAMPLES, Recorder } from './series';

function sample(second: number, cpu: number, network: number): Stats {
  return {
    read: new Date(second * 1000).toISOString(),
    cpu_stats: { cpu_usage: { total_usage: cpu * 1e9 }, system_cpu_usage: second * 2e9, online_cpus: 2 },
    memory_stats: { usage: 1000, limit: 5000, stats: { inactive_file: 400 } },
    networks: { eth0: { rx_bytes: network, tx_bytes: 0 } },
    blkio_stats: { io_service_bytes_recursive: [{ op: 'Read', value: network * 2 }, { op: 'write', value: 0 }] },
  };
}

it('makes rates from counters', () => {
  const recorder = new Recorder();
  recorder.add(sample(100, 1, 1000));
  recorder.add(sample(102, 2, 5000));
  recorder.add(sample(102, 9, 9999));
  // The container was restarted, and its counters begin anew.
  recorder.add(sample(104, 0, 0));
  const { series } = recorder;
  expect(series.time).toEqual([100, 102, 104]);
  expect(series.cpu).toEqual([null, 50, null]);
  expect(series.memory).toEqual([600, 600, 600]);
  expect(series.received).toEqual([null, 2000, null]);
  expect(series.read).toEqual([null, 4000, null]);
});

it('forgets what is old', () => {
  const recorder = new Recorder();
  for (let i = 0; i < MOST_SAMPLES + 50; i++) recorder.add(sample(i + 1, i, i));
  expect(recorder.series.time).toHaveLength(MOST_SAMPLES);
  expect(recorder.series.written).toHaveLength(MOST_SAMPLES);
});
