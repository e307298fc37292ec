// The parts of the Docker Engine API that the views use. All of it comes from the guest and may hold anything.
import { type Ask, type Backend, Failure, type Following, type Method, ofJson, type Upload } from './backend';
import { jsonLines } from './stream';

export interface Port {
  IP?: string;
  PrivatePort: number;
  PublicPort?: number;
  Type: string;
}

export interface ContainerRow {
  Id: string;
  Names: string[];
  Image: string;
  ImageID: string;
  Command: string;
  Created: number;
  Ports: Port[];
  Labels: Record<string, string>;
  State: string;
  Status: string;
  Mounts?: Mount[];
  NetworkSettings?: { Networks?: Record<string, Endpoint> };
}

export interface Mount {
  Type: string;
  Name?: string;
  Source: string;
  Destination: string;
  Mode?: string;
  RW: boolean;
}

export interface Endpoint {
  IPAddress?: string;
  IPv6Address?: string;
  Gateway?: string;
  MacAddress?: string;
  Aliases?: string[] | null;
}

export interface ContainerDetails {
  Id: string;
  Name: string;
  Image: string;
  Created: string;
  Path: string;
  Args: string[];
  RestartCount: number;
  State: {
    Status: string;
    Running: boolean;
    Paused: boolean;
    ExitCode: number;
    Error: string;
    OOMKilled: boolean;
    StartedAt: string;
    FinishedAt: string;
    Health?: { Status: string };
  };
  Config: {
    Tty: boolean;
    OpenStdin: boolean;
    Image: string;
    Env: string[] | null;
    Cmd: string[] | null;
    Entrypoint: string[] | null;
    WorkingDir: string;
    User: string;
    Hostname: string;
    Labels: Record<string, string> | null;
  };
  HostConfig: {
    RestartPolicy: { Name: string; MaximumRetryCount: number };
    NetworkMode: string;
    AutoRemove: boolean;
    Memory: number;
    NanoCpus: number;
    Privileged: boolean;
    PortBindings: Record<string, { HostIp: string; HostPort: string }[] | null> | null;
    Binds: string[] | null;
  };
  Mounts: Mount[];
  NetworkSettings: { Networks: Record<string, Endpoint> };
}

export interface Stats {
  read: string;
  cpu_stats?: CpuStats;
  precpu_stats?: CpuStats;
  memory_stats?: { usage?: number; limit?: number; stats?: Record<string, number> };
  networks?: Record<string, { rx_bytes: number; tx_bytes: number }>;
  blkio_stats?: { io_service_bytes_recursive?: { op: string; value: number }[] | null };
  pids_stats?: { current?: number };
}

export interface CpuStats {
  cpu_usage?: { total_usage: number };
  system_cpu_usage?: number;
  online_cpus?: number;
}

export interface ImageRow {
  Id: string;
  ParentId: string;
  RepoTags: string[] | null;
  RepoDigests: string[] | null;
  Created: number;
  Size: number;
  SharedSize?: number;
  Containers?: number;
  Labels: Record<string, string> | null;
}

export interface ImageDetails {
  Id: string;
  RepoTags: string[] | null;
  RepoDigests: string[] | null;
  Created: string;
  Architecture: string;
  Variant?: string;
  Os: string;
  Size: number;
  Config?: {
    Cmd?: string[] | null;
    Entrypoint?: string[] | null;
    Env?: string[] | null;
    ExposedPorts?: Record<string, unknown> | null;
    Volumes?: Record<string, unknown> | null;
    WorkingDir?: string;
    User?: string;
    Labels?: Record<string, string> | null;
  };
}

export interface HistoryLayer {
  Id: string;
  Created: number;
  CreatedBy: string;
  Size: number;
  Comment: string;
  Tags: string[] | null;
}

export interface VolumeRow {
  Name: string;
  Driver: string;
  Mountpoint: string;
  CreatedAt?: string;
  Labels: Record<string, string> | null;
  Scope: string;
  UsageData?: { Size: number; RefCount: number };
}

/** Bytes. */
export interface CloneProgress {
  Copied: number;
  Total: number;
}

interface CloneLine extends Partial<CloneProgress> {
  Volume?: VolumeRow;
  Error?: string;
}

export interface NetworkRow {
  Id: string;
  Name: string;
  Created: string;
  Driver: string;
  Scope: string;
  Internal: boolean;
  Labels: Record<string, string> | null;
  IPAM?: { Config?: { Subnet?: string; Gateway?: string }[] | null };
  Containers?: Record<string, { Name: string; IPv4Address: string }> | null;
}

export interface EngineVersion {
  Version: string;
  Components?: { Name: string; Version: string }[];
}

export type FileKind = 'folder' | 'file' | 'link' | 'device' | 'pipe' | 'socket';

export interface FileEntry {
  Name: string;
  /** The name's address, where the name itself is no UTF-8. */
  Address?: string;
  Kind: FileKind;
  Size: number;
  Mode: number;
  Uid: number;
  Gid: number;
  Modified: number;
  LinkTarget?: string;
  /** What a link leads to, when that is there. */
  LinkKind?: FileKind;
}

export interface Listing {
  Entries: FileEntry[];
  /** The folder holds more. */
  Truncated: boolean;
}

export interface DockerEvent {
  Type: string;
  Action: string;
  Actor: { ID: string; Attributes: Record<string, string> };
  timeNano: number;
  time: number;
}

export interface PullProgress {
  id?: string;
  status?: string;
  progressDetail?: { current?: number; total?: number };
  error?: string;
}

export class Docker {
  constructor(readonly backend: Backend) {}

  #ask<T>(method: Method, path: string, query: Query = {}, ask: Ask = {}): Promise<T> {
    return this.backend.request<T>(method, `/docker${path}${encode(query)}`, ask);
  }

  version(): Promise<EngineVersion> {
    return this.#ask('GET', '/version');
  }

  // An engine that sends null for an empty list is no reason to break.
  async containers(ids?: string[]): Promise<ContainerRow[]> {
    const filters = ids ? JSON.stringify({ id: ids }) : undefined;
    return (await this.#ask<ContainerRow[] | null>('GET', '/containers/json', { all: 'true', filters })) ?? [];
  }

  /** The containers with a label. */
  async labelled(label: string): Promise<ContainerRow[]> {
    return (await this.#ask<ContainerRow[] | null>('GET', '/containers/json', { all: 'true', filters: JSON.stringify({ label: [label] }) })) ?? [];
  }

  container(id: string): Promise<ContainerDetails> {
    return this.#ask('GET', `/containers/${id}/json`);
  }

  act(id: string, action: 'start' | 'stop' | 'restart' | 'pause' | 'unpause' | 'kill'): Promise<void> {
    return this.#ask('POST', `/containers/${id}/${action}`);
  }

  remove(id: string, volumes = false): Promise<void> {
    return this.#ask('DELETE', `/containers/${id}`, { force: 'true', v: volumes ? 'true' : undefined });
  }

  rename(id: string, name: string): Promise<void> {
    return this.#ask('POST', `/containers/${id}/rename`, { name });
  }

  create(name: string, body: unknown, signal?: AbortSignal): Promise<{ Id: string; Warnings: string[] | null }> {
    return this.#ask('POST', '/containers/create', { name: name || undefined }, { body, signal });
  }

  async stats(id: string, signal: AbortSignal): Promise<AsyncGenerator<Stats>> {
    return jsonLines<Stats>((await this.backend.stream('GET', `/docker/containers/${id}/stats?stream=true`, { signal })).chunks);
  }

  async logs(id: string, query: Query, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const all = { stdout: 'true', stderr: 'true', timestamps: 'true', ...query };
    return (await this.backend.stream('GET', `/docker/containers/${id}/logs${encode(all)}`, { signal })).chunks;
  }

  /** What is in a folder of a container. Ours, beside Docker's API; `address` is a path with each odd byte as `%XX`. */
  files(id: string, address: string, signal?: AbortSignal): Promise<Listing> {
    return this.#ask('GET', `/longshore/containers/${id}/files`, { address }, { signal });
  }

  /** The first bytes of a file. */
  async content(id: string, address: string, limit: number, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    return (await this.backend.stream('GET', `${contentPath(id, address)}&limit=${limit}`, { signal })).chunks;
  }

  /** A file as it is, a folder as tar. */
  download(id: string, address: string, name: string, following: Following): Promise<string | undefined> {
    return this.backend.download(contentPath(id, address), name, following);
  }

  /** A path of a container as tar, as `docker cp` has it: `/data/.` for what is in the folder. */
  downloadArchive(id: string, path: string, name: string, following: Following): Promise<string | undefined> {
    return this.backend.download(`/docker/containers/${id}/archive${encode({ path })}`, name, following);
  }

  /** Unpacks a tar archive in a folder of a container. */
  async unpack(id: string, path: string, tar: Blob, upload: Omit<Upload, 'body' | 'contentType'>): Promise<void> {
    const to = `/docker/containers/${id}/archive${encode({ path })}`;
    const contentType = 'application/x-tar';
    // An engine that refuses does so before it has read everything, and then its words may be lost on the way: it is asked with an
    // archive of nothing first.
    await this.backend.upload('PUT', to, { body: new Blob([new Uint8Array(1024)]), contentType, signal: upload.signal });
    await this.backend.upload('PUT', to, { ...upload, body: tar, contentType });
  }

  async createExec(id: string, command: string[], env: string[] = [], user?: string): Promise<string> {
    const body = { AttachStdin: true, AttachStdout: true, AttachStderr: true, Tty: true, Cmd: command, Env: env, User: user };
    return (await this.#ask<{ Id: string }>('POST', `/containers/${id}/exec`, {}, { body })).Id;
  }

  /** How an exec has ended. */
  async exitCode(id: string): Promise<number | null> {
    return (await this.#ask<{ ExitCode: number | null }>('GET', `/exec/${id}/json`)).ExitCode;
  }

  resizeExec(id: string, columns: number, rows: number): Promise<void> {
    return this.#ask('POST', `/exec/${id}/resize`, { w: String(columns), h: String(rows) });
  }

  async events(signal: AbortSignal, since?: string): Promise<AsyncGenerator<DockerEvent>> {
    return jsonLines<DockerEvent>((await this.backend.stream('GET', `/docker/events${encode({ since })}`, { signal })).chunks);
  }

  async images(): Promise<ImageRow[]> {
    return (await this.#ask<ImageRow[] | null>('GET', '/images/json')) ?? [];
  }

  image(id: string): Promise<ImageDetails> {
    return this.#ask('GET', `/images/${encodeURIComponent(id)}/json`);
  }

  async history(id: string): Promise<HistoryLayer[]> {
    return (await this.#ask<HistoryLayer[] | null>('GET', `/images/${encodeURIComponent(id)}/history`)) ?? [];
  }

  tag(id: string, repo: string, tag: string): Promise<void> {
    return this.#ask('POST', `/images/${encodeURIComponent(id)}/tag`, { repo, tag });
  }

  removeImage(reference: string, force = false): Promise<void> {
    return this.#ask('DELETE', `/images/${encodeURIComponent(reference)}`, { force: force ? 'true' : undefined });
  }

  pruneImages(all: boolean): Promise<{ SpaceReclaimed: number }> {
    return this.#ask('POST', '/images/prune', { filters: JSON.stringify({ dangling: [all ? 'false' : 'true'] }) });
  }

  async pull(reference: { image: string; tag: string }, signal: AbortSignal): Promise<AsyncGenerator<PullProgress>> {
    const query = encode({ fromImage: reference.image, tag: reference.tag });
    return jsonLines<PullProgress>((await this.backend.stream('POST', `/docker/images/create${query}`, { signal })).chunks);
  }

  /** The user's sign-in is added on the way: no page sees it. */
  async push(reference: { image: string; tag: string }, signal: AbortSignal): Promise<AsyncGenerator<PullProgress>> {
    const path = reference.image.split('/').map(encodeURIComponent).join('/');
    const query = encode({ tag: reference.tag });
    return jsonLines<PullProgress>((await this.backend.stream('POST', `/docker/images/${path}/push${query}`, { signal })).chunks);
  }

  saveImage(reference: string, name: string, following: Following): Promise<string | undefined> {
    return this.backend.download(`/docker/images/${encodeURIComponent(reference)}/get`, name, following);
  }

  /** Loads images from a tar archive; gives what the engine says of it, a line for each. Throws a Failure. */
  async loadImages(tar: Blob, upload: Omit<Upload, 'body' | 'contentType'>): Promise<string[]> {
    const answer = await this.backend.upload('POST', '/docker/images/load?quiet=true', { ...upload, body: tar, contentType: 'application/x-tar' });
    const said: string[] = [];
    for (const line of answer.split('\n').filter((line) => line.trim())) {
      const told = ofJson<{ stream?: string; error?: string }>('/images/load', line);
      if (told.error) throw new Failure('conflict', told.error);
      if (told.stream?.trim()) said.push(told.stream.trim());
    }
    return said;
  }

  async volumes(): Promise<VolumeRow[]> {
    return (await this.#ask<{ Volumes: VolumeRow[] | null }>('GET', '/volumes')).Volumes ?? [];
  }

  /** Sizes take the engine a walk through every volume, so that they are asked for separately. */
  async volumeSizes(signal?: AbortSignal): Promise<VolumeRow[]> {
    return (await this.#ask<{ Volumes: VolumeRow[] | null }>('GET', '/system/df', { type: 'volume' }, { signal })).Volumes ?? [];
  }

  createVolume(name: string): Promise<VolumeRow> {
    return this.#ask('POST', '/volumes/create', {}, { body: { Name: name } });
  }

  /** Copies a volume inside the engine; an abort leaves nothing of the copy. Ours, beside Docker's API. Throws a Failure. */
  async *cloneVolume(name: string, to: string, signal: AbortSignal): AsyncGenerator<CloneProgress> {
    const path = `/docker/longshore/volumes/${encodeURIComponent(name)}/clone${encode({ to })}`;
    let whole = false;
    for await (const line of jsonLines<CloneLine>((await this.backend.stream('POST', path, { signal })).chunks)) {
      if (line.Error !== undefined) throw new Failure('conflict', line.Error);
      if (line.Volume) whole = true;
      else yield { Copied: line.Copied ?? 0, Total: line.Total ?? 0 };
    }
    if (!whole) throw new Failure('unavailable', 'The engine was lost while it copied; nothing of the copy is kept.');
  }

  removeVolume(name: string): Promise<void> {
    return this.#ask('DELETE', `/volumes/${encodeURIComponent(name)}`);
  }

  async networks(): Promise<NetworkRow[]> {
    return (await this.#ask<NetworkRow[] | null>('GET', '/networks')) ?? [];
  }

  network(id: string): Promise<NetworkRow> {
    return this.#ask('GET', `/networks/${encodeURIComponent(id)}`);
  }

  createNetwork(body: { Name: string; Driver: string; Internal: boolean; IPAM?: unknown }): Promise<{ Id: string }> {
    return this.#ask('POST', '/networks/create', {}, { body });
  }

  removeNetwork(id: string): Promise<void> {
    return this.#ask('DELETE', `/networks/${encodeURIComponent(id)}`);
  }
}

function contentPath(id: string, address: string): string {
  return `/docker/longshore/containers/${id}/content${encode({ address })}`;
}

type Query = Record<string, string | undefined>;

function encode(query: Query): string {
  const set = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined) set.set(key, value);
  const text = set.toString();
  return text === '' ? '' : `?${text}`;
}
