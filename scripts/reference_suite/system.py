"""Ping, version, info, events' form, df, auth, the answers of an engine without swarm, versions and bad requests."""

from .case import case, requests
from .engine import Connection
from .observe import observation, pick, shape

HEADERS = ("api-version", "builder-version", "docker-experimental", "ostype", "swarm", "content-type", "cache-control", "pragma")


@case("system/ping")
def _(e):
    answer = e.call("GET", "/_ping", version="")
    return {"status": answer.status, "body": answer.body.decode(), **{name: answer.headers.get(name) for name in HEADERS if name != "builder-version"}}


@case("system/ping-head")
def _(e):
    answer = e.call("HEAD", "/_ping", version="")
    return {"status": answer.status, "body": answer.body.decode(), **{name: answer.headers.get(name) for name in HEADERS if name != "builder-version"}}


@case("system/every-answer-has-the-headers")
def _(e):
    seen = {}
    for path in ("/info", "/containers/json", "/nonsense", "/containers/nonsense/json"):
        answer = e.get(path)
        seen[path] = {name: answer.headers.get(name) for name in ("api-version", "ostype", "content-type")} | {"server": "server" in answer.headers}
    return seen


@case("system/version")
def _(e):
    body = e.get("/version").json
    return {
        "shape": {key: value for key, value in shape(body).items() if key != "Components"},
        "api": pick(body, "ApiVersion", "MinAPIVersion", "Os", "Arch"),
        "component": sorted(body["Components"][0]),
        "engine": sorted(body["Components"][0]["Details"]),
    }


@case("system/info-shape")
def _(e):
    body = e.get("/info").json
    left_out = ("Runtimes", "Containerd", "Plugins", "RegistryConfig", "FirewallBackend", "DiscoveredDevices", "Warnings", "DriverStatus", "SecurityOptions", "DefaultAddressPools", "Labels", "Swarm", "GenericResources")
    return {key: value for key, value in shape(body).items() if key not in left_out}


@case("system/info-swarm")
def _(e):
    return e.get("/info").json["Swarm"]


@case("system/info-plugins")
def _(e):
    plugins = e.get("/info").json["Plugins"]
    return {"keys": sorted(plugins), "volume": plugins["Volume"], "network": sorted(plugins["Network"])}


@case("system/info-registry")
def _(e):
    return shape(e.get("/info").json["RegistryConfig"])


@case("system/info-values")
def _(e):
    return pick(e.get("/info").json, "Driver", "LoggingDriver", "CgroupDriver", "CgroupVersion", "OSType", "MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit", "IPv4Forwarding", "OomKillDisable", "DefaultRuntime", "LiveRestoreEnabled", "Isolation", "InitBinary", "ExperimentalBuild", "Debug", "IndexServerAddress", "Architecture")


@case("system/info-counts-containers")
def _(e):
    before = e.get("/info").json
    e.create()
    e.run()
    after = e.get("/info").json
    return {key: after[key] - before[key] for key in ("Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped")}


@case("system/df-shape")
def _(e):
    e.shared()
    e.volume()
    body = e.get("/system/df").json
    return {key: value for key, value in shape(body).items() if key not in ("Images", "Containers")} | {"containers": sorted(body["Containers"][0])}


for kind in ("container", "image", "volume", "build-cache"):
    @case(f"system/df-of-{kind}")
    def _(e, kind=kind):
        body = e.get("/system/df", type=kind).json
        return {key: "null" if value is None else "there" for key, value in body.items()}


@case("system/df-of-two")
def _(e):
    body = e.get("/system/df?type=container&type=volume").json
    return {key: "null" if value is None else "there" for key, value in body.items()}


@case("system/df-volume-usage")
def _(e):
    name = e.volume()
    e.create(host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    found = [volume for volume in e.get("/system/df", type="volume").json["Volumes"] if volume["Name"] == name]
    return {"shape": shape(found), "references": found[0]["UsageData"]["RefCount"]}


@case("system/df-container")
def _(e):
    identity = e.create(cmd=["true"], Labels={"a": "b"})
    found = [one for one in e.get("/system/df", type="container").json["Containers"] if one["Id"] == identity][0]
    return pick(found, "Image", "Command", "State", "Status", "Labels", "Names", "Ports", "HostConfig", "Mounts")


requests(
    "system",
    ("df-of-nonsense", "GET", "/system/df", None, {"type": "nonsense"}),
    ("auth-bad-json", "POST", "/auth", "{"),
    ("unknown-path", "GET", "/nonsense"),
    ("unknown-path-post", "POST", "/nonsense/create", {}),
    ("wrong-method-containers", "POST", "/containers/json"),
    ("wrong-method-info", "DELETE", "/info"),
    ("wrong-method-version", "PUT", "/version"),
    ("root", "GET", "/"),
    ("events-since-after-until", "GET", "/events", None, {"since": "20", "until": "10"}),
    ("events-bad-since", "GET", "/events", None, {"since": "nonsense", "until": "1"}),
    ("events-bad-until", "GET", "/events", None, {"since": "1", "until": "nonsense"}),
    ("events-bad-filters", "GET", "/events", None, {"filters": "nonsense", "since": "1", "until": "2"}),
    ("events-unknown-filter", "GET", "/events", None, {"filters": {"nonsense": ["a"]}, "since": "1", "until": "2"}),
    ("events-of-the-past", "GET", "/events", None, {"since": "1", "until": "2"}),
    ("plugins", "GET", "/plugins"),
    ("plugin-unknown", "GET", "/plugins/nonsense/json"),
    ("plugin-enable-unknown", "POST", "/plugins/nonsense/enable", None, {"timeout": "0"}),
    ("plugin-disable-unknown", "POST", "/plugins/nonsense/disable"),
    ("plugin-remove-unknown", "DELETE", "/plugins/nonsense"),
    ("plugin-set-unknown", "POST", "/plugins/nonsense/set", ["A=b"]),
    ("plugin-filters-bad", "GET", "/plugins", None, {"filters": {"nonsense": ["a"]}}),
)

requests(
    "versions",
    ("too-new", "GET", "/info", None, {"version": "v1.99"}),
    ("too-old", "GET", "/info", None, {"version": "v1.23"}),
    ("too-old-ping", "GET", "/_ping", None, {"version": "v1.1"}),
    ("next", "GET", "/containers/json", None, {"version": "v1.52"}),
    ("without-minor", "GET", "/info", None, {"version": "v1"}),
    ("nonsense", "GET", "/info", None, {"version": "vx.y"}),
    ("two-majors", "GET", "/info", None, {"version": "v2.0"}),
)

for old in ("v1.24", "v1.30", "v1.40", "v1.41", "v1.43", "v1.44", "v1.47", "v1.50", ""):
    @case(f"versions/{old or 'none'}-is-served")
    def _(e, old=old):
        answer = e.call("GET", "/version", version=old)
        return {"status": answer.status, "api": answer.json["ApiVersion"], "header": answer.headers.get("api-version")}


@case("versions/network-shape-1.24")
def _(e):
    return shape(e.call("GET", "/networks/bridge", version="v1.24").json)


@case("versions/container-shape-1.24")
def _(e):
    body = e.call("GET", f"/containers/{e.shared()}/json", version="v1.24").json
    return {key: sorted(value) if isinstance(value, dict) else type(value).__name__ for key, value in body.items() if key not in ("GraphDriver", "HostConfig", "Storage")}


SWARM = (
    ("swarm", "GET", "/swarm"),
    ("swarm-leave", "POST", "/swarm/leave"),
    ("swarm-update", "POST", "/swarm/update?version=1", {}),
    ("swarm-update-without-version", "POST", "/swarm/update", {}),
    ("swarm-unlockkey", "GET", "/swarm/unlockkey"),
    ("swarm-unlock", "POST", "/swarm/unlock", {"UnlockKey": "x"}),
    ("swarm-join-nothing", "POST", "/swarm/join", {}),
    ("swarm-init-bad-json", "POST", "/swarm/init", "{"),
    ("nodes", "GET", "/nodes"),
    ("node", "GET", "/nodes/x"),
    ("node-remove", "DELETE", "/nodes/x"),
    ("node-update", "POST", "/nodes/x/update?version=1", {}),
    ("services", "GET", "/services"),
    ("service", "GET", "/services/x"),
    ("service-create", "POST", "/services/create", {}),
    ("service-update", "POST", "/services/x/update?version=1", {}),
    ("service-remove", "DELETE", "/services/x"),
    ("service-logs", "GET", "/services/x/logs", None, {"stdout": 1}),
    ("tasks", "GET", "/tasks"),
    ("task", "GET", "/tasks/x"),
    ("task-logs", "GET", "/tasks/x/logs", None, {"stdout": 1}),
    ("secrets", "GET", "/secrets"),
    ("secret", "GET", "/secrets/x"),
    ("secret-create", "POST", "/secrets/create", {}),
    ("secret-remove", "DELETE", "/secrets/x"),
    ("secret-update", "POST", "/secrets/x/update?version=1", {}),
    ("configs", "GET", "/configs"),
    ("config", "GET", "/configs/x"),
    ("config-create", "POST", "/configs/create", {}),
    ("config-remove", "DELETE", "/configs/x"),
    ("config-update", "POST", "/configs/x/update?version=1", {}),
)
requests("swarm", *SWARM)


@case("http/head-of-a-list")
def _(e):
    return observation(e.call("HEAD", "/containers/json"))


@case("http/keeps-the-connection")
def _(e):
    connection = Connection(e.address, 30)
    seen = []
    for path in ("/_ping", "/v1.51/containers/nonsense/json", "/_ping"):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        seen.append(answer.status)
    connection.close()
    return seen


@case("http/trailing-slash")
def _(e):
    return {"status": e.get("/containers/json/").status}


@case("http/double-slash")
def _(e):
    return {"status": e.get("//containers/json").status}


for name, headers in (("text", {"Content-Type": "text/plain"}), ("none", {"Content-Type": ""}), ("charset", {"Content-Type": "application/json; charset=utf-8"})):
    @case(f"http/create-with-content-type-{name}")
    def _(e, headers=headers):
        answer = e.call("POST", "/containers/create", '{"Image": "nonsense-image"}', headers=headers)
        return observation(answer)


for name, body in (("empty", ""), ("null", "null"), ("list", "[]"), ("text", '"x"'), ("cut", '{"Image": '), ("two", '{"Name":"a"}{"Name":"b"}'), ("wrong-type", '{"Name": 1}'), ("nothing-quoted", "nonsense")):
    requests("bad-json", (f"volume-create-{name}", "POST", "/volumes/create", body) if name not in ("empty", "null", "two") else (f"network-create-{name}-", "POST", "/networks/create", body), (f"network-create-{name}", "POST", "/networks/create", body), (f"container-create-{name}", "POST", "/containers/create", body))
