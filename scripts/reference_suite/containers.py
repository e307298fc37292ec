"""Containers: create, inspect, list, life cycle, wait, kill, rename, update, top, changes, prune, archives."""

import io
import tarfile

from .case import case, requests
from .engine import escaped, members, tar
from .observe import observation, pick, plain, shape

UNKNOWN = (
    ("inspect", "GET", "/containers/nonsense/json"), ("top", "GET", "/containers/nonsense/top"), ("logs", "GET", "/containers/nonsense/logs?stdout=1"),
    ("changes", "GET", "/containers/nonsense/changes"), ("export", "GET", "/containers/nonsense/export"), ("stats", "GET", "/containers/nonsense/stats?stream=0"),
    ("resize", "POST", "/containers/nonsense/resize?h=1&w=1"), ("start", "POST", "/containers/nonsense/start"), ("stop", "POST", "/containers/nonsense/stop"),
    ("restart", "POST", "/containers/nonsense/restart"), ("kill", "POST", "/containers/nonsense/kill"), ("rename", "POST", "/containers/nonsense/rename?name=x1"),
    ("pause", "POST", "/containers/nonsense/pause"), ("unpause", "POST", "/containers/nonsense/unpause"), ("attach", "POST", "/containers/nonsense/attach?stream=1&stdout=1"),
    ("wait", "POST", "/containers/nonsense/wait"), ("remove", "DELETE", "/containers/nonsense"), ("remove-force", "DELETE", "/containers/nonsense?force=1"),
    ("archive", "GET", "/containers/nonsense/archive?path=/"), ("archive-head", "HEAD", "/containers/nonsense/archive?path=/"), ("exec", "POST", "/containers/nonsense/exec"),
    ("exec-json", "GET", "/exec/nonsense/json"), ("exec-resize", "POST", "/exec/nonsense/resize?h=1&w=1"),
)
requests("unknown", *UNKNOWN)
requests(
    "unknown",
    ("update", "POST", "/containers/nonsense/update", {}),
    ("exec-with-body", "POST", "/containers/nonsense/exec", {"Cmd": ["true"]}),
    ("exec-start", "POST", "/exec/nonsense/start", {"Detach": True}),
    ("archive-put", "PUT", "/containers/nonsense/archive?path=/", b"", {"headers": {"Content-Type": "application/x-tar"}}),
    ("attach-ws", "GET", "/containers/nonsense/attach/ws"),
    ("commit", "POST", "/commit", {}, {"container": "nonsense"}),
)

BOX = {"Image": "busybox"}
requests(
    "create",
    ("no-image", "POST", "/containers/create", {}),
    ("empty-image", "POST", "/containers/create", {"Image": ""}),
    ("unknown-image", "POST", "/containers/create", {"Image": "nonsense"}),
    ("unknown-tag", "POST", "/containers/create", {"Image": "busybox:nonsense"}),
    ("unknown-digest", "POST", "/containers/create", {"Image": "busybox@sha256:" + "0" * 64}),
    ("bad-image", "POST", "/containers/create", {"Image": "b@d im"}),
    ("upper-case-image", "POST", "/containers/create", {"Image": "Busybox"}),
    ("bad-name", "POST", "/containers/create", BOX, {"name": "b@d"}),
    ("name-with-slash", "POST", "/containers/create", BOX, {"name": "a/b"}),
    ("short-name", "POST", "/containers/create", BOX, {"name": "a"}),
    ("dash-name", "POST", "/containers/create", BOX, {"name": "-ab"}),
    ("platform-unknown", "POST", "/containers/create", BOX, {"platform": "nonsense"}),
    ("platform-windows", "POST", "/containers/create", BOX, {"platform": "windows/amd64"}),
    ("platform-arm64", "POST", "/containers/create", BOX, {"platform": "linux/arm64"}),
    ("memory-too-small", "POST", "/containers/create", {**BOX, "HostConfig": {"Memory": 4096}}),
    ("memory-swap-below", "POST", "/containers/create", {**BOX, "HostConfig": {"Memory": 100 << 20, "MemorySwap": 50 << 20}}),
    ("swap-without-memory", "POST", "/containers/create", {**BOX, "HostConfig": {"MemorySwap": 50 << 20}}),
    ("reservation-above", "POST", "/containers/create", {**BOX, "HostConfig": {"Memory": 10 << 20, "MemoryReservation": 20 << 20}}),
    ("reservation-too-small", "POST", "/containers/create", {**BOX, "HostConfig": {"MemoryReservation": 4096}}),
    ("swappiness", "POST", "/containers/create", {**BOX, "HostConfig": {"MemorySwappiness": 101}}),
    ("cpus-too-many", "POST", "/containers/create", {**BOX, "HostConfig": {"NanoCpus": 64 * 10**9}}),
    ("cpus-negative", "POST", "/containers/create", {**BOX, "HostConfig": {"NanoCpus": -1}}),
    ("cpus-and-quota", "POST", "/containers/create", {**BOX, "HostConfig": {"NanoCpus": 10**9, "CpuQuota": 50000}}),
    ("cpus-and-period", "POST", "/containers/create", {**BOX, "HostConfig": {"NanoCpus": 10**9, "CpuPeriod": 50000}}),
    ("cpu-period-small", "POST", "/containers/create", {**BOX, "HostConfig": {"CpuPeriod": 10}}),
    ("cpu-quota-small", "POST", "/containers/create", {**BOX, "HostConfig": {"CpuQuota": 10}}),
    ("cpu-shares-negative", "POST", "/containers/create", {**BOX, "HostConfig": {"CpuShares": -1}}),
    ("cpuset-nonsense", "POST", "/containers/create", {**BOX, "HostConfig": {"CpusetCpus": "nonsense"}}),
    ("cpuset-absent", "POST", "/containers/create", {**BOX, "HostConfig": {"CpusetCpus": "60-63"}}),
    ("blkio-weight", "POST", "/containers/create", {**BOX, "HostConfig": {"BlkioWeight": 5}}),
    ("oom-score", "POST", "/containers/create", {**BOX, "HostConfig": {"OomScoreAdj": 2000}}),
    ("restart-unknown", "POST", "/containers/create", {**BOX, "HostConfig": {"RestartPolicy": {"Name": "nonsense"}}}),
    ("restart-count-with-always", "POST", "/containers/create", {**BOX, "HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}}),
    ("restart-count-negative", "POST", "/containers/create", {**BOX, "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -3}}}),
    ("restart-and-auto-remove", "POST", "/containers/create", {**BOX, "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}),
    ("isolation", "POST", "/containers/create", {**BOX, "HostConfig": {"Isolation": "hyperv"}}),
    ("runtime-unknown", "POST", "/containers/create", {**BOX, "HostConfig": {"Runtime": "nonsense"}}),
    ("log-driver-unknown", "POST", "/containers/create", {**BOX, "HostConfig": {"LogConfig": {"Type": "nonsense"}}}),
    ("log-option-unknown", "POST", "/containers/create", {**BOX, "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"nonsense": "1"}}}}),
    ("log-size-bad", "POST", "/containers/create", {**BOX, "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "nonsense"}}}}),
    ("log-files-bad", "POST", "/containers/create", {**BOX, "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "0"}}}}),
    ("log-files-without-size", "POST", "/containers/create", {**BOX, "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-file": "3"}}}}),
    ("log-mode-bad", "POST", "/containers/create", {**BOX, "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"mode": "nonsense"}}}}),
    ("capability-unknown", "POST", "/containers/create", {**BOX, "HostConfig": {"CapAdd": ["NONSENSE"]}}),
    ("capability-drop-unknown", "POST", "/containers/create", {**BOX, "HostConfig": {"CapDrop": ["NONSENSE"]}}),
    ("security-opt-unknown", "POST", "/containers/create", {**BOX, "HostConfig": {"SecurityOpt": ["nonsense=1"]}}),
    ("security-opt-without-value", "POST", "/containers/create", {**BOX, "HostConfig": {"SecurityOpt": ["nonsense"]}}),
    ("seccomp-not-json", "POST", "/containers/create", {**BOX, "HostConfig": {"SecurityOpt": ["seccomp=nonsense"]}}),
    ("pid-mode-bad", "POST", "/containers/create", {**BOX, "HostConfig": {"PidMode": "nonsense"}}),
    ("ipc-mode-bad", "POST", "/containers/create", {**BOX, "HostConfig": {"IpcMode": "nonsense"}}),
    ("uts-mode-bad", "POST", "/containers/create", {**BOX, "HostConfig": {"UTSMode": "nonsense"}}),
    ("userns-mode-bad", "POST", "/containers/create", {**BOX, "HostConfig": {"UsernsMode": "nonsense"}}),
    ("cgroupns-mode-bad", "POST", "/containers/create", {**BOX, "HostConfig": {"CgroupnsMode": "nonsense"}}),
    ("shm-size-negative", "POST", "/containers/create", {**BOX, "HostConfig": {"ShmSize": -1}}),
    ("ulimit-soft-above-hard", "POST", "/containers/create", {**BOX, "HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": 20, "Hard": 10}]}}),
    ("sysctl-outside", "POST", "/containers/create", {**BOX, "HostConfig": {"Sysctls": {"kernel.nonsense": "1"}}}),
    ("sysctl-without-equals", "POST", "/containers/create", {**BOX, "HostConfig": {"Sysctls": {"": "1"}}}),
    ("device-missing", "POST", "/containers/create", {**BOX, "HostConfig": {"Devices": [{"PathOnHost": "", "PathInContainer": "/dev/x", "CgroupPermissions": "nonsense"}]}}),
    ("bind-relative-target", "POST", "/containers/create", {**BOX, "HostConfig": {"Binds": ["/tmp:relative"]}}),
    ("bind-to-root", "POST", "/containers/create", {**BOX, "HostConfig": {"Binds": ["/tmp:/"]}}),
    ("bind-empty", "POST", "/containers/create", {**BOX, "HostConfig": {"Binds": [""]}}),
    ("bind-too-many-parts", "POST", "/containers/create", {**BOX, "HostConfig": {"Binds": ["/a:/b:ro:x"]}}),
    ("bind-twice", "POST", "/containers/create", {**BOX, "HostConfig": {"Binds": ["/tmp:/x", "/var:/x"]}}),
    ("bind-bad-volume-name", "POST", "/containers/create", {**BOX, "HostConfig": {"Binds": ["./rel:/x"]}}),
    ("mount-unknown-type", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "nonsense", "Target": "/x"}]}}),
    ("mount-without-target", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "volume", "Source": "x"}]}}),
    ("mount-bind-without-source", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "bind", "Target": "/x"}]}}),
    ("mount-bind-missing-source", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "bind", "Source": "/nonsense/suite", "Target": "/x"}]}}),
    ("mount-bind-relative", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "bind", "Source": "rel", "Target": "/x"}]}}),
    ("mount-tmpfs-with-source", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "tmpfs", "Source": "x", "Target": "/x"}]}}),
    ("mount-bind-with-volume-options", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "bind", "Source": "/tmp", "Target": "/x", "VolumeOptions": {}}]}}),
    ("mount-volume-with-bind-options", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "volume", "Source": "x", "Target": "/x", "BindOptions": {}}]}}),
    ("mount-to-root", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/"}]}}),
    ("mount-twice", "POST", "/containers/create", {**BOX, "HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/x"}, {"Type": "tmpfs", "Target": "/x"}]}}),
    ("volumes-from-unknown", "POST", "/containers/create", {**BOX, "HostConfig": {"VolumesFrom": ["nonsense"]}}),
    ("volumes-from-bad-mode", "POST", "/containers/create", {**BOX, "HostConfig": {"VolumesFrom": ["nonsense:nonsense"]}}),
    ("tmpfs-bad-option", "POST", "/containers/create", {**BOX, "HostConfig": {"Tmpfs": {"/x": "nonsense"}}}),
    ("link-unknown", "POST", "/containers/create", {**BOX, "HostConfig": {"Links": ["nonsense:x"]}}),
    ("link-malformed", "POST", "/containers/create", {**BOX, "HostConfig": {"Links": ["a:b:c"]}}),
    ("stop-signal-bad", "POST", "/containers/create", {**BOX, "StopSignal": "NONSENSE"}),
    ("working-dir-relative", "POST", "/containers/create", {**BOX, "WorkingDir": "relative"}),
    ("env-without-name", "POST", "/containers/create", {**BOX, "Env": ["=x"]}),
    ("env-empty", "POST", "/containers/create", {**BOX, "Env": [""]}),
    ("hostname-bad", "POST", "/containers/create", {**BOX, "Hostname": "-bad_"}),
    ("health-interval-small", "POST", "/containers/create", {**BOX, "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1}}),
    ("health-timeout-small", "POST", "/containers/create", {**BOX, "Healthcheck": {"Test": ["CMD", "true"], "Timeout": 1}}),
    ("health-start-period-small", "POST", "/containers/create", {**BOX, "Healthcheck": {"Test": ["CMD", "true"], "StartPeriod": 1}}),
    ("health-retries-negative", "POST", "/containers/create", {**BOX, "Healthcheck": {"Test": ["CMD", "true"], "Retries": -1}}),
    ("gpus", "POST", "/containers/create", {**BOX, "HostConfig": {"DeviceRequests": [{"Driver": "nonsense", "Count": -1}]}}),
    ("storage-opt", "POST", "/containers/create", {**BOX, "HostConfig": {"StorageOpt": {"size": "1G"}}}),
    ("auto-remove-text", "POST", "/containers/create", {**BOX, "HostConfig": {"AutoRemove": "yes"}}),
    ("console-size-bad", "POST", "/containers/create", {**BOX, "HostConfig": {"ConsoleSize": [1]}}),
    ("annotations-empty-key", "POST", "/containers/create", {**BOX, "HostConfig": {"Annotations": {"": "x"}}}),
    ("masked-paths-not-list", "POST", "/containers/create", {**BOX, "HostConfig": {"MaskedPaths": "x"}}),
)


@case("create/answer")
def _(e):
    answer = e.post("/containers/create", {"Image": "busybox"}, name="suite-made")
    e.later("DELETE", "/containers/suite-made")
    return observation(answer) | {"warnings": answer.json["Warnings"]}


@case("create/name-taken")
def _(e):
    e.create(name="suite-once")
    return e.says("POST", "/containers/create", {"Image": "busybox"}, name="suite-once")


@case("create/name-with-leading-slash")
def _(e):
    answer = e.post("/containers/create", {"Image": "busybox"}, name="/suite-slash")
    e.later("DELETE", "/containers/suite-slash")
    return {"status": answer.status, "name": e.get("/containers/suite-slash/json").json.get("Name")}


@case("create/generated-name")
def _(e):
    identity = e.post("/containers/create", {"Image": "busybox"}).json["Id"]
    e.later("DELETE", f"/containers/{identity}")
    name = e.inspect(identity)["Name"]
    return {"slash": name[0], "words": name.count("_")}


@case("create/unknown-fields-are-ignored")
def _(e):
    answer = e.post("/containers/create", {"Image": "busybox", "Nonsense": {"a": 1}, "HostConfig": {"Nonsense": True}})
    e.later("DELETE", f"/containers/{answer.json['Id']}")
    return answer.status


@case("create/field-names-in-lower-case")
def _(e):
    answer = e.post("/containers/create", {"image": "busybox", "cmd": ["true"]})
    if answer.status == 201:
        e.later("DELETE", f"/containers/{answer.json['Id']}")
    return answer.status


@case("create/cmd-as-text")
def _(e):
    answer = e.post("/containers/create", {"Image": "busybox", "Cmd": "echo hi", "Entrypoint": "sh"})
    e.later("DELETE", f"/containers/{answer.json['Id']}")
    return pick(e.inspect(answer.json["Id"]), "Config.Cmd", "Config.Entrypoint", "Path", "Args")


@case("create/memory-without-swap-limit")
def _(e):
    identity = e.create(host={"NetworkMode": "none", "Memory": 64 << 20})
    return pick(e.inspect(identity)["HostConfig"], "Memory", "MemorySwap", "MemoryReservation", "MemorySwappiness", "OomKillDisable")


@case("inspect/shape")
def _(e):
    body = shape(e.inspect(e.create()))
    return {key: sorted(value) if isinstance(value, dict) and key in ("HostConfig", "GraphDriver", "Storage") else value for key, value in body.items()}


@case("inspect/host-config-defaults")
def _(e):
    host = e.inspect(e.create())["HostConfig"]
    return plain(host)


@case("inspect/config-defaults")
def _(e):
    return plain({key: value for key, value in e.inspect(e.create())["Config"].items() if key not in ("Hostname",)})


@case("inspect/config-as-given")
def _(e):
    given = {"Env": ["A=b"], "Labels": {"l": "m"}, "WorkingDir": "/tmp", "User": "1000:1000", "Entrypoint": ["sh", "-c"], "Tty": True, "OpenStdin": True, "StdinOnce": True, "StopSignal": "SIGINT", "StopTimeout": 3, "Domainname": "example.org", "Hostname": "h", "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}}
    return plain(e.inspect(e.create(["true"], **given))["Config"])


@case("inspect/state-created")
def _(e):
    return plain(e.inspect(e.create())["State"])


@case("inspect/state-running")
def _(e):
    state = e.inspect(e.run())["State"]
    return plain({**state, "Pid": state["Pid"] > 0})


@case("inspect/state-exited")
def _(e):
    identity, _ = e.ran("sh", "-c", "exit 7")
    return plain(e.inspect(identity)["State"])


@case("inspect/size")
def _(e):
    body = e.get(f"/containers/{e.create()}/json?size=1").json
    return {"rw": body["SizeRw"] >= 0, "root": body["SizeRootFs"] > 0}


@case("inspect/paths")
def _(e):
    body = e.inspect(e.run())
    return pick(body, "HostnamePath", "HostsPath", "ResolvConfPath", "LogPath", "Name", "Driver", "Platform", "MountLabel", "ProcessLabel", "AppArmorProfile", "RestartCount", "ExecIDs")


@case("inspect/by-name-prefix-and-id")
def _(e):
    identity = e.create(name="suite-by-name")
    return [e.get(f"/containers/{word}/json").status for word in ("suite-by-name", identity, identity[:12], identity[:6], "/suite-by-name", "suite-by-nam")]


@case("inspect/image-is-a-digest")
def _(e):
    body = e.inspect(e.create())
    return {"image": plain(body["Image"]), "config": body["Config"]["Image"], "descriptor": sorted(body.get("ImageManifestDescriptor") or {})}


# --- list

@case("list/shape")
def _(e):
    e.shared()
    return shape(e.get("/containers/json", filters={"name": ["suite-shared"]}).json)


@case("list/values-running")
def _(e):
    e.shared()
    found = e.get("/containers/json", filters={"name": ["suite-shared"]}).json[0]
    return pick(found, "Names", "Image", "Command", "State", "Labels", "HostConfig", "Ports") | {"status": found["Status"].split(" ")[0]}


@case("list/values-created")
def _(e):
    identity = e.create(["sh", "-c", "echo hello world"])
    return pick(e.get("/containers/json?all=1", filters={"id": [identity]}).json[0], "Command", "State", "Status", "Ports", "Mounts", "HostConfig")


@case("list/values-exited")
def _(e):
    identity, _ = e.ran("sh", "-c", "exit 3")
    found = e.get("/containers/json?all=1", filters={"id": [identity]}).json[0]
    return {"state": found["State"], "status": found["Status"].split(") ")[0]}


@case("list/without-all-leaves-ended-ones-out")
def _(e):
    identity = e.create()
    return [len(e.get("/containers/json", filters={"id": [identity]}).json), len(e.get("/containers/json?all=1", filters={"id": [identity]}).json)]


@case("list/size")
def _(e):
    found = e.get("/containers/json?size=1", filters={"name": [e.shared()]}).json[0]
    return {"root": found["SizeRootFs"] > 0, "rw": "SizeRw" in found}


@case("list/limit")
def _(e):
    e.create(Labels={"suite.limit": "1"})
    newest = e.create(Labels={"suite.limit": "1"})
    found = e.get("/containers/json?limit=1", filters={"label": ["suite.limit"]}).json
    return [len(found), found[0]["Id"] == newest]


@case("list/limit-bad")
def _(e):
    return e.says("GET", "/containers/json?limit=nonsense")


@case("list/newest-first")
def _(e):
    made = [e.create(Labels={"suite.order": "1"}) for _ in range(3)]
    return [made.index(one["Id"]) for one in e.get("/containers/json?all=1", filters={"label": ["suite.order"]}).json]


FILTERS = (
    {"name": ["suite-flt-a"]}, {"name": ["flt-b"]}, {"name": ["^/suite-flt-a$"]}, {"name": ["^suite-flt-a$"]}, {"label": ["suite.flt=a"]}, {"label": ["suite.flt"]}, {"label": ["suite.flt", "suite.other"]},
    {"status": ["created"]}, {"status": ["running"]}, {"status": ["exited"]}, {"status": ["running", "created"]}, {"exited": ["5"]}, {"exited": ["0"]}, {"volume": ["/data"]}, {"volume": ["suite-flt-v"]},
    {"network": ["suite-flt-n"]}, {"ancestor": ["busybox"]}, {"ancestor": ["busybox:latest"]}, {"ancestor": ["nonsense"]}, {"before": ["suite-flt-b"]}, {"since": ["suite-flt-a"]}, {"expose": ["80/tcp"]}, {"expose": ["80"]}, {"expose": ["79-81/tcp"]},
    {"publish": ["28400"]}, {"publish": ["28400/tcp"]}, {"is-task": ["false"]}, {"is-task": ["true"]}, {"health": ["none"]}, {"isolation": ["default"]},
)


@case("list/filters")
def _(e):
    network, volume = e.network("suite-flt-n"), e.volume("suite-flt-v")
    e.create(name="suite-flt-a", Labels={"suite.flt": "a"}, host={"NetworkMode": "none", "Binds": [f"{volume}:/data"]})
    e.run(name="suite-flt-b", Labels={"suite.flt": "b", "suite.other": "1"}, ExposedPorts={"80/tcp": {}}, host={"NetworkMode": network, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28400"}]}})
    e.ran("sh", "-c", "exit 5", name="suite-flt-c", Labels={"suite.flt": "c"})
    seen = {}
    for filters in FILTERS:
        wanted = {**filters, "label": filters.get("label", []) + ["suite.flt"]}
        answer = e.get("/containers/json?all=1", filters=wanted)
        key, values = next(iter(filters.items()))
        seen[f"{key}={' '.join(values)}"] = sorted(one["Names"][0] for one in answer.json) if answer.status == 200 else observation(answer)
    return seen


requests(
    "list",
    ("filter-unknown", "GET", "/containers/json", None, {"filters": {"nonsense": ["a"]}}),
    ("filter-status-bad", "GET", "/containers/json", None, {"filters": {"status": ["nonsense"]}}),
    ("filter-exited-bad", "GET", "/containers/json", None, {"filters": {"exited": ["nonsense"]}}),
    ("filter-health-bad", "GET", "/containers/json", None, {"filters": {"health": ["nonsense"]}}),
    ("filter-before-unknown", "GET", "/containers/json", None, {"filters": {"before": ["nonsense"]}}),
    ("filter-since-unknown", "GET", "/containers/json", None, {"filters": {"since": ["nonsense"]}}),
    ("filter-is-task-bad", "GET", "/containers/json", None, {"filters": {"is-task": ["nonsense"]}}),
    ("filter-publish-bad", "GET", "/containers/json", None, {"filters": {"publish": ["nonsense"]}}),
    ("filter-expose-bad", "GET", "/containers/json", None, {"filters": {"expose": ["99999"]}}),
    ("filter-network-unknown", "GET", "/containers/json", None, {"filters": {"network": ["nonsense"]}}),
    ("filter-broken", "GET", "/containers/json", None, {"filters": "{"}),
    ("filter-of-wrong-type", "GET", "/containers/json", None, {"filters": {"status": "running"}}),
)


# --- life cycle

@case("life/start")
def _(e):
    identity = e.create()
    return [observation(e.post(f"/containers/{identity}/start")), observation(e.post(f"/containers/{identity}/start"))]


@case("life/stop")
def _(e):
    identity = e.run()
    return [observation(e.post(f"/containers/{identity}/stop?t=0")), observation(e.post(f"/containers/{identity}/stop?t=0")), e.inspect(identity)["State"]["ExitCode"]]


@case("life/stop-never-started")
def _(e):
    return e.says("POST", f"/containers/{e.create()}/stop")


@case("life/stop-signal")
def _(e):
    identity = e.run("sh", "-c", "trap 'exit 9' USR1; while :; do sleep 0.1; done")
    e.post(f"/containers/{identity}/stop?t=10&signal=USR1")
    return e.inspect(identity)["State"]["ExitCode"]


@case("life/stop-signal-of-config")
def _(e):
    identity = e.run("sh", "-c", "trap 'exit 8' INT; while :; do sleep 0.1; done", StopSignal="SIGINT")
    e.post(f"/containers/{identity}/stop?t=10")
    return e.inspect(identity)["State"]["ExitCode"]


@case("life/stop-timeout-bad")
def _(e):
    return e.says("POST", f"/containers/{e.create()}/stop?t=nonsense")


@case("life/stop-signal-bad")
def _(e):
    return e.says("POST", f"/containers/{e.run()}/stop?signal=NONSENSE&t=0")


@case("life/restart")
def _(e):
    identity = e.run()
    before = e.inspect(identity)["State"]
    answer = e.post(f"/containers/{identity}/restart?t=0")
    after = e.inspect(identity)["State"]
    return observation(answer) | {"running": after["Running"], "other": before["Pid"] != after["Pid"]}


@case("life/restart-never-started")
def _(e):
    identity = e.create()
    return [e.post(f"/containers/{identity}/restart?t=0").status, e.inspect(identity)["State"]["Status"]]


@case("life/kill")
def _(e):
    identity = e.run()
    answer = e.post(f"/containers/{identity}/kill")
    e.post(f"/containers/{identity}/wait")
    return observation(answer) | pick(e.inspect(identity)["State"], "Status", "ExitCode", "OOMKilled")


@case("life/kill-signal-by-number")
def _(e):
    identity = e.run()
    answer = e.post(f"/containers/{identity}/kill?signal=9")
    e.post(f"/containers/{identity}/wait")
    return [answer.status, e.inspect(identity)["State"]["ExitCode"]]


@case("life/kill-with-a-caught-signal")
def _(e):
    identity = e.run("sh", "-c", "trap 'exit 6' HUP; while :; do sleep 0.1; done")
    e.post(f"/containers/{identity}/kill?signal=SIGHUP")
    return e.post(f"/containers/{identity}/wait").json


@case("life/kill-not-running")
def _(e):
    return e.says("POST", f"/containers/{e.create(name='suite-kill')}/kill")


for signal in ("NONSENSE", "0", "-1", "100", "sigterm", "15x"):
    @case(f"life/kill-signal-{signal}")
    def _(e, signal=signal):
        return e.says("POST", f"/containers/{e.create(name='suite-kill')}/kill?signal={signal}")


@case("life/pause")
def _(e):
    identity = e.run(name="suite-paused")
    seen = [observation(e.post(f"/containers/{identity}/pause")), observation(e.post(f"/containers/{identity}/pause")), pick(e.inspect(identity)["State"], "Status", "Paused", "Running")]
    seen += [observation(e.post(f"/containers/{identity}/exec", {"Cmd": ["true"]})), observation(e.post(f"/containers/{identity}/start")), observation(e.post(f"/containers/{identity}/unpause")), observation(e.post(f"/containers/{identity}/unpause"))]
    return seen


@case("life/pause-not-running")
def _(e):
    identity = e.create()
    return [e.says("POST", f"/containers/{identity}/pause"), e.says("POST", f"/containers/{identity}/unpause")]


@case("life/restart-of-a-paused-one")
def _(e):
    identity = e.run()
    e.must("POST", f"/containers/{identity}/pause")
    return [e.post(f"/containers/{identity}/restart?t=0").status, e.inspect(identity)["State"]["Status"]]


@case("life/remove")
def _(e):
    identity = e.create()
    return [observation(e.delete(f"/containers/{identity}")), e.delete(f"/containers/{identity}").status]


@case("life/remove-running")
def _(e):
    return e.says("DELETE", f"/containers/{e.run()}")


@case("life/remove-paused")
def _(e):
    identity = e.run()
    e.must("POST", f"/containers/{identity}/pause")
    return [e.says("DELETE", f"/containers/{identity}"), e.says("DELETE", f"/containers/{identity}?force=1")]


@case("life/remove-force")
def _(e):
    identity = e.run()
    return [e.delete(f"/containers/{identity}?force=1").status, e.get(f"/containers/{identity}/json").status]


@case("life/remove-link-unknown")
def _(e):
    return e.says("DELETE", f"/containers/{e.create(name='suite-nolink')}?link=1")


@case("life/command-not-found")
def _(e):
    identity = e.create(["nonsense-program"])
    return [observation(e.post(f"/containers/{identity}/start")), pick(e.inspect(identity)["State"], "Status", "ExitCode", "Error")]


@case("life/command-not-executable")
def _(e):
    identity = e.create(["/etc/passwd"])
    return [observation(e.post(f"/containers/{identity}/start")), pick(e.inspect(identity)["State"], "Status", "ExitCode")]


@case("life/command-is-a-folder")
def _(e):
    identity = e.create(["/etc"])
    return [observation(e.post(f"/containers/{identity}/start")), pick(e.inspect(identity)["State"], "Status", "ExitCode")]


@case("life/no-command")
def _(e):
    return e.says("POST", "/containers/create", {"Image": "busybox", "Cmd": [], "Entrypoint": [""]})


@case("life/user-unknown")
def _(e):
    return e.says("POST", f"/containers/{e.create(User='nonsense')}/start")


@case("life/group-unknown")
def _(e):
    return e.says("POST", f"/containers/{e.create(User='root:nonsense')}/start")


@case("life/working-dir-is-made")
def _(e):
    return e.output("pwd", WorkingDir="/not/there/yet")


@case("life/working-dir-is-a-file")
def _(e):
    identity = e.create(WorkingDir="/etc/passwd/x")
    return {"status": e.post(f"/containers/{identity}/start").status}


@case("life/bind-missing-source-is-made")
def _(e):
    return e.output("sh", "-c", "ls -d /x", host={"NetworkMode": "none", "Binds": ["/tmp/suite-made-source:/x"]})


@case("life/rename")
def _(e):
    identity = e.create(name="suite-old")
    return [observation(e.post(f"/containers/{identity}/rename?name=suite-new")), e.inspect(identity)["Name"], e.get("/containers/suite-old/json").status]


for label, name in (("taken", "suite-here"), ("empty", ""), ("bad", escaped("b@d")), ("same", "suite-self")):
    @case(f"life/rename-{label}")
    def _(e, name=name):
        e.create(name="suite-here")
        identity = e.create(name="suite-self")
        return e.says("POST", f"/containers/{identity}/rename?name={name}")


@case("life/oom")
def _(e):
    identity, code = e.ran("sh", "-c", "x=a; while :; do x=$x$x; done", host={"NetworkMode": "none", "Memory": 8 << 20, "MemorySwap": 8 << 20})
    return {"code": code, **pick(e.inspect(identity)["State"], "OOMKilled", "ExitCode")}


@case("life/restart-policy-on-failure")
def _(e):
    identity = e.create(["false"], host={"NetworkMode": "none", "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}})
    e.must("POST", f"/containers/{identity}/start")
    for _ in range(100):
        body = e.inspect(identity)
        if body["RestartCount"] == 2 and body["State"]["Status"] == "exited":
            break
        import time
        time.sleep(0.2)
    return [body["RestartCount"], body["State"]["Status"], body["State"]["ExitCode"]]


@case("life/init")
def _(e):
    return e.output("sh", "-c", "cat /proc/1/comm", host={"NetworkMode": "none", "Init": True}).strip() in ("docker-init", "tini", "init")


@case("life/environment")
def _(e):
    return sorted(e.output("env", Env=["A=1", "B=two words", "A=2"], Hostname="h").splitlines())


@case("life/limits-in-the-cgroup")
def _(e):
    text = e.output("sh", "-c", "cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max pids.max", host={"NetworkMode": "none", "Memory": 64 << 20, "MemorySwap": 96 << 20, "NanoCpus": 500000000, "PidsLimit": 20})
    return text.split("\n")


@case("life/shm-size")
def _(e):
    return e.output("sh", "-c", "df -k /dev/shm | tail -n1 | awk '{print $2}'", host={"NetworkMode": "none", "ShmSize": 4 << 20})


@case("life/ulimits")
def _(e):
    return e.output("sh", "-c", "ulimit -n; ulimit -Hn", host={"NetworkMode": "none", "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}]})


@case("life/sysctls")
def _(e):
    return e.output("cat", "/proc/sys/net/ipv4/ip_local_port_range", host={"NetworkMode": "bridge", "Sysctls": {"net.ipv4.ip_local_port_range": "1024 2048"}}).split()


@case("life/capabilities")
def _(e):
    def caps(**host):
        return e.output("sh", "-c", "grep CapEff /proc/self/status", host={"NetworkMode": "none", **host}).split()[1]
    return [caps(), caps(CapDrop=["ALL"]), caps(CapAdd=["NET_ADMIN"]), caps(CapDrop=["all"], CapAdd=["cap_chown"])]


@case("life/privileged")
def _(e):
    return e.output("sh", "-c", "grep -c . /proc/self/status >/dev/null; grep Seccomp: /proc/self/status", host={"NetworkMode": "none", "Privileged": True}).split()


@case("life/read-only")
def _(e):
    return e.output("sh", "-c", "touch /x; touch /t/x && echo fine", host={"NetworkMode": "none", "ReadonlyRootfs": True, "Tmpfs": {"/t": "size=1m"}})


@case("life/tmpfs")
def _(e):
    return e.output("sh", "-c", "grep ' /t ' /proc/mounts | cut -d' ' -f1-3; stat -c %a /t; df -k /t | tail -n1 | awk '{print $2}'", host={"NetworkMode": "none", "Tmpfs": {"/t": "size=1m,mode=1770"}}).split()


@case("life/masked-paths")
def _(e):
    return e.output("sh", "-c", "grep -c . /proc/kcore; ls /sys/firmware | wc -l; touch /proc/sys/kernel/x", host={"NetworkMode": "none"})


@case("life/devices")
def _(e):
    return e.output("ls", "/dev").split()


@case("life/mount-points")
def _(e):
    return sorted(line.split()[1] for line in e.output("cat", "/proc/mounts").splitlines())


# --- wait

@case("wait/ended")
def _(e):
    identity, _ = e.ran("sh", "-c", "exit 4")
    return observation(e.post(f"/containers/{identity}/wait")) | e.post(f"/containers/{identity}/wait").json


for condition in ("not-running", "next-exit", "removed", "nonsense"):
    @case(f"wait/{condition}")
    def _(e, condition=condition):
        identity = e.create(["sh", "-c", "exit 5"])
        if condition in ("not-running", "nonsense"):
            return e.says("POST", f"/containers/{identity}/wait?condition={condition}")
        waiting = e.connection()
        waiting.request("POST", f"/v1.51/containers/{identity}/wait?condition={condition}")
        e.must("POST", f"/containers/{identity}/start")
        if condition == "removed":
            e.post(f"/containers/{identity}/wait")
            e.delete(f"/containers/{identity}?force=1")
        import json
        return json.loads(waiting.getresponse().read())


# --- update, top, changes, stats, prune

@case("update/limits")
def _(e):
    identity = e.run(host={"NetworkMode": "none", "Memory": 64 << 20})
    answer = e.post(f"/containers/{identity}/update", {"Memory": 80 << 20, "MemorySwap": 160 << 20, "CpuShares": 512, "PidsLimit": 50, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}})
    return observation(answer) | {"answer": answer.json} | pick(e.inspect(identity)["HostConfig"], "Memory", "MemorySwap", "CpuShares", "PidsLimit", "RestartPolicy") | {"inside": e.exec(identity, "sh", "-c", "cd /sys/fs/cgroup; cat memory.max pids.max")[0].split()}


@case("update/created")
def _(e):
    identity = e.create()
    e.post(f"/containers/{identity}/update", {"CpuShares": 100})
    return e.inspect(identity)["HostConfig"]["CpuShares"]


for label, body in (("memory-small", {"Memory": 4096}), ("restart-bad", {"RestartPolicy": {"Name": "nonsense"}}), ("memory-above-swap", {"Memory": 1 << 30}), ("nothing", {}), ("bad-json", "{"), ("cpuset", {"CpusetCpus": "60"})):
    @case(f"update/{label}")
    def _(e, body=body):
        identity = e.create(host={"NetworkMode": "none", "Memory": 64 << 20})
        return e.says("POST", f"/containers/{identity}/update", body)


@case("update/restart-of-auto-remove")
def _(e):
    identity = e.create(host={"NetworkMode": "none", "AutoRemove": True})
    return e.says("POST", f"/containers/{identity}/update", {"RestartPolicy": {"Name": "always"}})


@case("top/default")
def _(e):
    body = e.get(f"/containers/{e.shared()}/top").json
    return {"titles": body["Titles"], "commands": [row[-1] for row in body["Processes"]]}


for label, args in (("aux", "aux"), ("custom", "-o pid,comm"), ("no-pid", "-o comm"), ("bad", "--nonsense")):
    @case(f"top/{label}")
    def _(e, args=args):
        answer = e.get(f"/containers/{e.shared()}/top", ps_args=args)
        return {"status": answer.status, "titles": answer.json["Titles"]} if answer.status == 200 else {"status": answer.status}


@case("top/not-running")
def _(e):
    return e.says("GET", f"/containers/{e.create()}/top")


@case("changes/none-yet")
def _(e):
    answer = e.get(f"/containers/{e.create()}/changes")
    return {"status": answer.status, "body": answer.json}


@case("changes/kinds")
def _(e):
    identity, _ = e.ran("sh", "-c", "rm /etc/group; echo x >> /etc/passwd; mkdir /new; touch /new/file")
    return sorted([one["Path"], one["Kind"]] for one in e.get(f"/containers/{identity}/changes").json)


@case("stats/one-shot")
def _(e):
    body = e.get(f"/containers/{e.shared()}/stats?stream=0&one-shot=1").json
    seen = shape(body)
    seen["memory_stats"].pop("stats", None)
    return {**seen, "blkio_stats": sorted(seen["blkio_stats"]), "networks": sorted(seen.get("networks", {}))}


@case("stats/one-shot-memory-keys")
def _(e):
    return {"anon" in e.get(f"/containers/{e.shared()}/stats?stream=0&one-shot=1").json["memory_stats"]["stats"]: True}.__class__ and sorted(e.get(f"/containers/{e.shared()}/stats?stream=0&one-shot=1").json["memory_stats"]["stats"])[:10]


@case("stats/without-stream-has-a-previous-sample")
def _(e):
    body = e.get(f"/containers/{e.shared()}/stats?stream=0").json
    return [body["precpu_stats"].get("system_cpu_usage", 0) > 0, body["cpu_stats"]["online_cpus"] > 0, body["name"], body["num_procs"]]


@case("stats/stream")
def _(e):
    first, second = e.stream(f"/containers/{e.shared()}/stats", 2)
    return [first["precpu_stats"].get("system_cpu_usage", 0) > 0, second["precpu_stats"]["system_cpu_usage"] == first["cpu_stats"]["system_cpu_usage"]]


@case("stats/not-running")
def _(e):
    body = e.get(f"/containers/{e.create()}/stats?stream=0").json
    return pick(body, "memory_stats", "pids_stats", "read", "num_procs")


@case("prune/by-label")
def _(e):
    gone = e.create(Labels={"suite.prune": "1"})
    e.run(Labels={"suite.prune": "1"})
    kept = e.create(Labels={"suite.prune": "2"})
    body = e.post("/containers/prune", filters={"label": ["suite.prune=1"]}).json
    return {"gone": body["ContainersDeleted"] == [gone], "kept": e.get(f"/containers/{kept}/json").status, "keys": sorted(body)}


@case("prune/nothing")
def _(e):
    return e.post("/containers/prune", filters={"label": ["suite.nothing"]}).json


@case("prune/until-the-past")
def _(e):
    e.create(Labels={"suite.until": "1"})
    return e.post("/containers/prune", filters={"label": ["suite.until"], "until": ["24h"]}).json


requests(
    "prune",
    ("bad-filter", "POST", "/containers/prune", None, {"filters": {"nonsense": ["a"]}}),
    ("bad-until", "POST", "/containers/prune", None, {"filters": {"until": ["nonsense"]}}),
    ("images-bad-filter", "POST", "/images/prune", None, {"filters": {"nonsense": ["a"]}}),
    ("images-bad-dangling", "POST", "/images/prune", None, {"filters": {"dangling": ["nonsense"]}}),
    ("images-nothing", "POST", "/images/prune", None, {"filters": {"label": ["suite.nothing"]}}),
    ("build-bad-filter", "POST", "/build/prune", None, {"filters": {"nonsense": ["a"]}}),
)


# --- archives

@case("archive/get-file")
def _(e):
    answer = e.get(f"/containers/{e.create()}/archive?path=/etc/group")
    return {"status": answer.status, "type": answer.headers.get("content-type"), "members": members(answer.body), "stat": "x-docker-container-path-stat" in answer.headers}


@case("archive/get-folder")
def _(e):
    identity, _ = e.ran("sh", "-c", "mkdir -p /a/b; echo x > /a/b/c; ln -s c /a/b/l")
    return members(e.get(f"/containers/{identity}/archive?path=/a").body)


@case("archive/get-folder-content")
def _(e):
    identity, _ = e.ran("sh", "-c", "mkdir -p /a/b; echo x > /a/b/c")
    return members(e.get(f"/containers/{identity}/archive?path=/a/.").body)


@case("archive/get-through-a-link")
def _(e):
    identity, _ = e.ran("sh", "-c", "mkdir /real; echo x > /real/f; ln -s /real /link")
    return [members(e.get(f"/containers/{identity}/archive?path=/link/f").body), members(e.get(f"/containers/{identity}/archive?path=/link").body)]


@case("archive/head")
def _(e):
    import base64
    import json
    answer = e.call("HEAD", f"/containers/{e.create()}/archive?path=/etc/group")
    stat = json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))
    return {"status": answer.status, "stat": pick(stat, "name", "size", "mode", "linkTarget"), "keys": sorted(stat)}


@case("archive/head-of-a-link")
def _(e):
    import base64
    import json
    identity, _ = e.ran("ln", "-s", "/etc/group", "/link")
    answer = e.call("HEAD", f"/containers/{identity}/archive?path=/link")
    return pick(json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"])), "name", "linkTarget", "mode")


for label, path in (("missing", "?path=/nonsense"), ("no-path", ""), ("empty-path", "?path="), ("through-a-file", "?path=/etc/passwd/x"), ("file-as-folder", "?path=/etc/passwd/")):
    @case(f"archive/get-{label}")
    def _(e, path=path):
        return e.says("GET", f"/containers/{e.create(name='suite-archive')}/archive{path}") | {"head": e.call("HEAD", f"/containers/suite-archive/archive{path}").status}


def put(e, identity, archive, query):
    return observation(e.call("PUT", f"/containers/{identity}/archive?{query}", archive, headers={"Content-Type": "application/x-tar"}))


@case("archive/put")
def _(e):
    identity = e.run()
    seen = put(e, identity, tar(folder=None, folder__file="content"), "path=/tmp")
    return seen | {"inside": e.exec(identity, "sh", "-c", "cat /tmp/folder/file; stat -c '%u %g %a' /tmp/folder/file")[0]}


@case("archive/put-compressed")
def _(e):
    import gzip
    identity = e.run()
    seen = put(e, identity, gzip.compress(tar(file="packed")), "path=/tmp")
    return seen | {"inside": e.exec(identity, "cat", "/tmp/file")[0]}


@case("archive/put-to-a-stopped-one")
def _(e):
    identity = e.create(["cat", "/tmp/file"])
    seen = put(e, identity, tar(file="later"), "path=/tmp")
    e.must("POST", f"/containers/{identity}/start")
    e.post(f"/containers/{identity}/wait")
    return seen | {"says": e.logs(identity)[0][1].decode()}


for label, archive, query in (
    ("missing-folder", tar(f="x"), "path=/nonsense"), ("to-a-file", tar(f="x"), "path=/etc/passwd"), ("no-path", tar(f="x"), ""), ("not-an-archive", b"nonsense" * 100, "path=/tmp"),
    ("folder-over-file", tar(passwd=None), "path=/etc&noOverwriteDirNonDir=1"), ("file-over-folder", tar(etc="x"), "path=/&noOverwriteDirNonDir=1"), ("file-over-folder-allowed", tar(home="x"), "path=/"),
):
    @case(f"archive/put-{label}")
    def _(e, archive=archive, query=query):
        return put(e, e.create(name="suite-archive"), archive, query)


@case("archive/put-outside")
def _(e):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("../../outside")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    identity = e.create(name="suite-archive")
    return {"status": put(e, identity, buffer.getvalue(), "path=/tmp")["status"]}


@case("archive/put-read-only")
def _(e):
    return put(e, e.create(host={"NetworkMode": "none", "ReadonlyRootfs": True}), tar(f="x"), "path=/tmp")


@case("archive/export")
def _(e):
    identity, _ = e.ran("sh", "-c", "echo x > /exported")
    answer = e.get(f"/containers/{identity}/export")
    found = members(answer.body)
    return {"status": answer.status, "type": answer.headers.get("content-type"), "file": found.get("exported"), "has": [name in found for name in ("bin/busybox", "etc/passwd", "dev", "proc", "sys", ".dockerenv", "etc/hosts", "etc/resolv.conf")]}
