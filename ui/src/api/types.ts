// Written from app/host-api by its tests. Change the Rust types, then:
// LONGSHORE_WRITE_TYPES=1 cargo test -p longshore-host-api typescript

export type State = "stopped" | "starting" | "running" | "paused" | "stopping" | "failed";

export type Status = { state: State, 
/**
 * The stage of a start, or why the VM failed or is paused.
 */
detail?: string, 
/**
 * What is not as it should be though the VM runs, and what to do.
 */
warning?: string, version: string, home: string, docker_host: string, vm?: VmFacts, shares: Array<ShareStatus>, ports: Array<PublishedPort>, host_pid: number, };

export type VmFacts = { pid?: number, qemu_pid?: number, qemu_version?: string, accelerator?: string, 
/**
 * Why this accelerator, when it is not the one that was hoped for.
 */
accelerator_reason?: string, channel?: string, cpus: number, memory: number, disk: number, };

export type ShareStatus = { path: string, read_only: boolean, mounted: boolean, error?: string, };

export type PublishedPort = { 
/**
 * `127.0.0.1:8080/tcp`
 */
host: string, 
/**
 * The port dialled in the guest.
 */
guest: string, };

export type StartRequest = { cpus?: number, memory?: string, disk?: string, accelerator?: string, channel?: string, shares: Array<string>, 
/**
 * The installed guest image is tried again, though it did not come up.
 */
retry_image: boolean, };

export type Progress = { "event": "stage", name: string, text: string, elapsed_ms: number, } | { "event": "notice", text: string, } | { "event": "done", 
/**
 * The request found its work already done.
 */
already: boolean, status: Status, elapsed_ms: number, } | { "event": "failed", error: ApiError, };

export type SettingsChange = { 
/**
 * `key=value`, `key+=value`, `key-=value`, or `key=` for the default; all are applied or none.
 */
assignments: Array<string>, };

export type SettingsChanged = { settings: Record<string, unknown>, 
/**
 * What the user should know, such as that a restart is needed.
 */
notices: Array<string>, };

export type LogSource = "host" | "console" | "daemon" | "supervisor" | "agent";

export type EngineState = { state: State, detail?: string, };

export type MachineFacts = { cpus: number, memory: number, 
/**
 * The folder of the data disk.
 */
data_folder: string, 
/**
 * What the data disk takes now.
 */
data_disk: number, 
/**
 * What is left where the data disk is.
 */
free_disk?: number, };

export type StreamRequest = { method: string, path: string, body?: string, registry_auth?: string, };

export type StreamHead = { status: number, content_type?: string, };

export type UploadRequest = { method: string, path: string, content_type: string, 
/**
 * Bytes of the body.
 */
size: number, };

export type Saving = { bytes: number, 
/**
 * Bytes that will come, where that is known.
 */
total?: number, 
/**
 * The file, once it is whole.
 */
path?: string, };

export type DataMove = { 
/**
 * An absolute path; made when it is not there.
 */
folder: string, };

export type Welcome = { 
/**
 * The container's.
 */
name: string, 
/**
 * Its page, when its port is published.
 */
url?: string, };

export type Layers = { 
/**
 * Of the guest.
 */
uptime_ms: number, services: Array<LayerService>, processes: Array<ChainProcess>, 
/**
 * How many more there are.
 */
left_out: number, };

export type LayerService = { name: string, 
/**
 * How often it was started since boot.
 */
starts: number, 
/**
 * How it ended last (`exit 1`, `signal 9`).
 */
last_exit?: string, };

export type ChainProcess = { pid: number, parent: number, 
/**
 * `init`, a service's name, `shim`, or `container` for what a shim has started.
 */
layer: string, name: string, 
/**
 * The container that a shim is for.
 */
subject?: string, rss_kib: number, cpu_ms: number, uptime_ms: number, };

export type TraceSpan = { trace_id: string, span_id: string, parent_id?: string, 
/**
 * The process that wrote it.
 */
service: string, name: string, 
/**
 * Microseconds since 1970.
 */
start_us: number, duration_us: number, fields: Record<string, unknown>, };

export type ContainerUsage = { cpu_stats: CpuStats, memory_stats: MemoryStats, };

export type CpuStats = { cpu_usage: CpuUsage, 
/**
 * Nanoseconds that all CPUs of the VM ran for together.
 */
system_cpu_usage: number, online_cpus: number, };

export type CpuUsage = { 
/**
 * Nanoseconds.
 */
total_usage: number, };

export type MemoryStats = { 
/**
 * Bytes, with the page cache.
 */
usage: number, limit: number, stats: MemoryDetails, };

export type MemoryDetails = { 
/**
 * Bytes of page cache that can be dropped at once.
 */
inactive_file: number, };

export type Settings = { cpus: number, memory: string, swap: string, disk: string, accelerator: string, channel: string, share_home: boolean, shares: Array<string>, publish_address: string, insecure_registries: Array<string>, 
/**
 * The engine's options, as dockerd's `daemon.json` would hold them (`longshore_protocol::engine_options`).
 */
engine: Record<string, unknown>, docker_context: boolean, start_at_login: boolean, };

export type ErrorCode = "invalid" | "not_found" | "conflict" | "forbidden" | "unavailable" | "start_failed" | "rolled_back" | "no_service" | "no_answer" | "internal";

export type ApiError = { code: ErrorCode, message: string, hint?: string, 
/**
 * The stage of the start that failed.
 */
stage?: string, 
/**
 * The decisive lines of the logs, oldest first.
 */
log?: Array<string>, };

export type Verdict = "ok" | "warn" | "fail" | "skip";

export type Check = { 
/**
 * Stable short name, such as `qemu` or `docker-socket`.
 */
name: string, verdict: Verdict, 
/**
 * What was found.
 */
detail: string, 
/**
 * What to do about it.
 */
fix?: string, };

export type Report = { checks: Array<Check>, };
