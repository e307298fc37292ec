// The host service: the engine's life and settings.
import type { Backend, Following } from './backend';
import { jsonLines } from './stream';
import type {
  ContainerUsage,
  DataMove,
  EngineState,
  Layers,
  LogSource,
  MachineFacts,
  Progress,
  Report,
  Settings,
  SettingsChanged,
  StartRequest,
  Status,
  TraceSpan,
  Welcome,
} from './types';

export class Host {
  constructor(readonly backend: Backend) {}

  status(): Promise<Status> {
    return this.backend.request('GET', '/api/v1/status');
  }

  machine(): Promise<MachineFacts> {
    return this.backend.request('GET', '/api/v1/machine');
  }

  settings(): Promise<Settings> {
    return this.backend.request('GET', '/api/v1/settings');
  }

  async moveData(folder: string): Promise<AsyncGenerator<Progress>> {
    const body: DataMove = { folder };
    return jsonLines<Progress>((await this.backend.stream('POST', '/api/v1/data', { body })).chunks);
  }

  changeSettings(assignments: string[]): Promise<SettingsChanged> {
    return this.backend.request('POST', '/api/v1/settings', { body: { assignments } });
  }

  /** Runs a first container, which needs no registry; one that is there is started. */
  welcome(): Promise<Welcome> {
    return this.backend.request('POST', '/api/v1/welcome', { body: null });
  }

  doctor(signal?: AbortSignal): Promise<Report> {
    return this.backend.request('GET', '/api/v1/doctor', { signal });
  }

  /** Saves what a diagnosis needs, secrets removed, as a file; gives its path, where the browser does not show it. Throws a Failure. */
  diagnostics(name: string, following: Following): Promise<string | undefined> {
    return this.backend.download('/api/v1/diagnostics', name, following);
  }

  layers(signal?: AbortSignal): Promise<Layers> {
    return this.backend.request('GET', '/api/v1/layers', { signal });
  }

  /** One sample of each; the rates come from two of them. What does not run is left out. */
  usage(ids: string[], signal?: AbortSignal): Promise<Record<string, ContainerUsage | undefined>> {
    return this.backend.request('GET', `/api/v1/usage?containers=${ids.join(',')}`, { signal });
  }

  /** The last requests to the engine, newest first. */
  requests(signal?: AbortSignal): Promise<TraceSpan[]> {
    return this.backend.request('GET', '/api/v1/requests', { signal });
  }

  /** What one of them did in every layer. */
  async trace(id: string, signal: AbortSignal): Promise<TraceSpan[]> {
    const spans: TraceSpan[] = [];
    for await (const span of jsonLines<TraceSpan>((await this.backend.stream('GET', `/api/v1/trace/${id}`, { signal })).chunks)) spans.push(span);
    return spans;
  }

  /** It is started again at once, and containers live on. */
  killService(name: 'daemon' | 'supervisor'): Promise<void> {
    return this.backend.request('POST', `/api/v1/services/${name}/kill`, { body: null });
  }

  async watch(signal: AbortSignal): Promise<AsyncGenerator<EngineState>> {
    return jsonLines<EngineState>((await this.backend.stream('GET', '/api/v1/watch', { signal })).chunks);
  }

  async start(request: Partial<StartRequest> = {}): Promise<AsyncGenerator<Progress>> {
    return jsonLines<Progress>((await this.backend.stream('POST', '/api/v1/start', { body: request })).chunks);
  }

  async stop(): Promise<AsyncGenerator<Progress>> {
    return jsonLines<Progress>((await this.backend.stream('POST', '/api/v1/stop', { body: null })).chunks);
  }

  async logs(source: LogSource, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    return (await this.backend.stream('GET', `/api/v1/logs/${source}?follow=true`, { signal })).chunks;
  }
}
