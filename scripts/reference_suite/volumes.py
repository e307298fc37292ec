"""Volumes: the local driver, its options, use by containers, filters, removal."""

from .case import case, requests
from .observe import observation, pick, plain, shape

requests(
    "volumes",
    ("inspect-unknown", "GET", "/volumes/nonsense"),
    ("remove-unknown", "DELETE", "/volumes/nonsense"),
    ("remove-unknown-force", "DELETE", "/volumes/nonsense", None, {"force": 1}),
    ("create-unknown-driver", "POST", "/volumes/create", {"Name": "suite-v", "Driver": "nonsense"}),
    ("create-bad-name", "POST", "/volumes/create", {"Name": "b@d"}),
    ("create-slash-name", "POST", "/volumes/create", {"Name": "/etc"}),
    ("create-short-name", "POST", "/volumes/create", {"Name": "a"}),
    ("create-dot-name", "POST", "/volumes/create", {"Name": ".hidden"}),
    ("create-bad-option", "POST", "/volumes/create", {"Name": "suite-v", "DriverOpts": {"nonsense": "1"}}),
    ("create-option-without-type", "POST", "/volumes/create", {"Name": "suite-v", "DriverOpts": {"device": "/tmp"}}),
    ("create-option-only-o", "POST", "/volumes/create", {"Name": "suite-v", "DriverOpts": {"o": "bind"}}),
    ("create-type-without-device", "POST", "/volumes/create", {"Name": "suite-v", "DriverOpts": {"type": "tmpfs"}}),
    ("list-bad-filter", "GET", "/volumes", None, {"filters": {"nonsense": ["a"]}}),
    ("list-bad-dangling", "GET", "/volumes", None, {"filters": {"dangling": ["maybe"]}}),
    ("list-broken-filters", "GET", "/volumes", None, {"filters": "nonsense"}),
    ("prune-bad-filter", "POST", "/volumes/prune", None, {"filters": {"nonsense": ["a"]}}),
    ("prune-bad-all", "POST", "/volumes/prune", None, {"filters": {"all": ["maybe"]}}),
    ("update-without-swarm", "PUT", "/volumes/nonsense?version=1", {"Spec": {}}),
    ("update-without-version", "PUT", "/volumes/nonsense", {}),
)


@case("volumes/create")
def _(e):
    answer = e.post("/volumes/create", {"Name": "suite-v1x", "Labels": {"a": "b"}})
    e.later("DELETE", "/volumes/suite-v1x")
    return observation(answer) | pick(answer.json, "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope")


@case("volumes/create-plain")
def _(e):
    name = e.volume()
    return pick(e.get(f"/volumes/{name}").json, "Labels", "Options", "Driver", "Scope", "Mountpoint", "Status")


@case("volumes/create-anonymous")
def _(e):
    answer = e.post("/volumes/create", {})
    e.later("DELETE", f"/volumes/{answer.json['Name']}")
    return {"status": answer.status, "long": len(answer.json["Name"]), "labels": answer.json["Labels"], "options": answer.json["Options"]}


@case("volumes/create-again-is-the-same")
def _(e):
    name = e.volume(Labels={"first": "1"})
    again = e.post("/volumes/create", {"Name": name, "Labels": {"second": "2"}})
    return {"status": again.status, "labels": again.json["Labels"]}


@case("volumes/create-again-other-driver")
def _(e):
    name = e.volume()
    return e.says("POST", "/volumes/create", {"Name": name, "Driver": "nonsense"})


@case("volumes/create-again-other-options")
def _(e):
    name = e.volume(DriverOpts={"type": "tmpfs", "device": "tmpfs"})
    return e.says("POST", "/volumes/create", {"Name": name, "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}})


@case("volumes/tmpfs-options")
def _(e):
    name = e.volume(DriverOpts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000"})
    mounts = e.output("sh", "-c", "grep ' /data ' /proc/mounts | cut -d' ' -f1-3; stat -c %u /data; df -k /data | tail -n1 | awk '{print $2}'", host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    return {"options": e.get(f"/volumes/{name}").json["Options"], "seen": mounts.split()}


@case("volumes/bind-options")
def _(e):
    source = e.volume()
    identity = e.run(host={"NetworkMode": "none", "Binds": [f"{source}:/data"]})
    e.exec(identity, "sh", "-c", "echo there > /data/file")
    path = e.get(f"/volumes/{source}").json["Mountpoint"]
    name = e.volume(DriverOpts={"type": "none", "device": path, "o": "bind"})
    return {"seen": e.output("cat", "/data/file", host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})}


@case("volumes/bind-options-missing-source")
def _(e):
    name = e.volume(DriverOpts={"type": "none", "device": "/nonsense/suite", "o": "bind"})
    identity = e.create(host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    return {"status": e.post(f"/containers/{identity}/start").status}


@case("volumes/list-by-name")
def _(e):
    name = e.volume()
    body = e.get("/volumes", filters={"name": [name]}).json
    return {"shape": shape(body), "names": len(body["Volumes"]), "warnings": body["Warnings"]}


@case("volumes/list-by-part-of-name")
def _(e):
    one, two = e.volume("suite-partly-1"), e.volume("suite-partly-2")
    return [volume["Name"] for volume in sorted(e.get("/volumes", filters={"name": ["partly"]}).json["Volumes"], key=lambda volume: volume["Name"])] == [one, two]


@case("volumes/list-none")
def _(e):
    return e.get("/volumes", filters={"name": ["no-such-volume"]}).json


@case("volumes/list-by-label")
def _(e):
    e.volume(Labels={"suite.label": "1"})
    e.volume(Labels={"suite.label": "2"})
    return {query: len(e.get("/volumes", filters={"label": [query]}).json["Volumes"] or []) for query in ("suite.label", "suite.label=1", "suite.label=3", "suite.other")}


@case("volumes/list-by-driver")
def _(e):
    name = e.volume()
    return {driver: len(e.get("/volumes", filters={"driver": [driver], "name": [name]}).json["Volumes"] or []) for driver in ("local", "nonsense")}


@case("volumes/list-dangling")
def _(e):
    free, used = e.volume("suite-dangle-free"), e.volume("suite-dangle-used")
    e.create(host={"NetworkMode": "none", "Binds": [f"{used}:/data"]})
    names = lambda value: [volume["Name"] for volume in e.get("/volumes", filters={"dangling": [value], "name": ["suite-dangle"]}).json["Volumes"] or []]
    return {value: names(value) for value in ("true", "false", "1", "0")}


@case("volumes/list-filters-in-the-old-shape")
def _(e):
    name = e.volume()
    return len(e.get("/volumes", filters={"name": {name: True}}).json["Volumes"])


@case("volumes/remove")
def _(e):
    name = e.volume()
    return [e.delete(f"/volumes/{name}").status, e.delete(f"/volumes/{name}").status]


@case("volumes/remove-in-use")
def _(e):
    name = e.volume("suite-in-use")
    e.create(host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    return [e.says("DELETE", f"/volumes/{name}"), e.says("DELETE", f"/volumes/{name}?force=1")]


@case("volumes/made-by-a-bind")
def _(e):
    e.later("DELETE", "/volumes/suite-by-bind")
    identity = e.create(host={"NetworkMode": "none", "Binds": ["suite-by-bind:/data:ro"]})
    mount = e.inspect(identity)["Mounts"]
    return {"volume": pick(e.get("/volumes/suite-by-bind").json, "Labels", "Options"), "mounts": plain(mount)}


@case("volumes/kept-by-remove-v")
def _(e):
    name = e.volume()
    identity = e.create(host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    e.delete(f"/containers/{identity}", v=1)
    return e.get(f"/volumes/{name}").status


@case("volumes/anonymous-goes-with-v")
def _(e):
    identity = e.create(Volumes={"/data": {}})
    name = e.inspect(identity)["Mounts"][0]["Name"]
    there = e.get(f"/volumes/{name}")
    e.delete(f"/containers/{identity}", v=1)
    return {"labels": there.json["Labels"], "after": e.get(f"/volumes/{name}").status}


@case("volumes/anonymous-stays-without-v")
def _(e):
    identity = e.create(Volumes={"/data": {}})
    name = e.inspect(identity)["Mounts"][0]["Name"]
    e.delete(f"/containers/{identity}")
    e.later("DELETE", f"/volumes/{name}")
    return e.get(f"/volumes/{name}").status


@case("volumes/anonymous-goes-with-auto-remove")
def _(e):
    identity = e.create(["true"], Volumes={"/data": {}}, host={"NetworkMode": "none", "AutoRemove": True})
    name = e.inspect(identity)["Mounts"][0]["Name"]
    waiting = e.connection()
    waiting.request("POST", f"/v1.51/containers/{identity}/wait?condition=removed")
    e.post(f"/containers/{identity}/start")
    waiting.getresponse().read()
    return e.get(f"/volumes/{name}").status


@case("volumes/copy-up")
def _(e):
    name = e.volume()
    return e.output("sh", "-c", "test -e /etc/passwd && echo filled", host={"NetworkMode": "none", "Binds": [f"{name}:/etc"]})


@case("volumes/no-copy-up-when-told")
def _(e):
    name = e.volume()
    return e.output("sh", "-c", "ls /home/.. >/dev/null; test -e /bin2/busybox || echo empty; ls /opt2 | wc -l", host={"NetworkMode": "none", "Mounts": [{"Type": "volume", "Source": name, "Target": "/opt2", "VolumeOptions": {"NoCopy": True}}]})


@case("volumes/keeps-content")
def _(e):
    name = e.volume()
    e.ran("sh", "-c", "echo kept > /data/file", host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    return e.output("cat", "/data/file", host={"NetworkMode": "none", "Binds": [f"{name}:/data:ro"]})


@case("volumes/read-only")
def _(e):
    name = e.volume()
    return e.output("sh", "-c", "touch /data/x", host={"NetworkMode": "none", "Binds": [f"{name}:/data:ro"]})


@case("volumes/subpath")
def _(e):
    name = e.volume()
    e.ran("sh", "-c", "mkdir -p /data/a/b; echo deep > /data/a/b/file", host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    mount = {"Type": "volume", "Source": name, "Target": "/sub", "VolumeOptions": {"Subpath": "a/b"}}
    return e.output("cat", "/sub/file", host={"NetworkMode": "none", "Mounts": [mount]})


@case("volumes/subpath-missing")
def _(e):
    name = e.volume()
    mount = {"Type": "volume", "Source": name, "Target": "/sub", "VolumeOptions": {"Subpath": "nonsense"}}
    identity = e.create(host={"NetworkMode": "none", "Mounts": [mount]})
    answer = e.post(f"/containers/{identity}/start")
    return {"status": answer.status, "says": "no such file or directory" in answer.body.decode()}


@case("volumes/subpath-outside")
def _(e):
    name = e.volume()
    mount = {"Type": "volume", "Source": name, "Target": "/sub", "VolumeOptions": {"Subpath": "../.."}}
    return e.says("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [mount]}})


@case("volumes/mount-with-labels-and-driver-options")
def _(e):
    e.later("DELETE", "/volumes/suite-by-mount")
    options = {"Labels": {"x": "y"}, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs"}}}
    e.create(host={"NetworkMode": "none", "Mounts": [{"Type": "volume", "Source": "suite-by-mount", "Target": "/data", "VolumeOptions": options}]})
    return pick(e.get("/volumes/suite-by-mount").json, "Labels", "Options", "Driver")


@case("volumes/prune-by-label")
def _(e):
    e.volume("suite-prune-a", Labels={"suite.prune": "1"})
    e.volume("suite-prune-b", Labels={"suite.prune": "1"})
    e.volume("suite-prune-c", Labels={"suite.prune": "2"})
    first = e.post("/volumes/prune", filters={"label": ["suite.prune=1"]}).json
    second = e.post("/volumes/prune", filters={"label": ["suite.prune=1"], "all": ["true"]}).json
    return {"named stay": first, "with all": sorted(second["VolumesDeleted"]), "reclaimed": second["SpaceReclaimed"], "left": e.get("/volumes/suite-prune-c").status}


@case("volumes/prune-not-label")
def _(e):
    e.volume("suite-prune-d", Labels={"suite.keep": "1", "suite.here": "1"})
    e.volume("suite-prune-e", Labels={"suite.here": "1"})
    gone = e.post("/volumes/prune", filters={"label!": ["suite.keep"], "label": ["suite.here"], "all": ["1"]}).json
    return gone["VolumesDeleted"]


@case("volumes/prune-keeps-used")
def _(e):
    e.volume("suite-prune-f", Labels={"suite.used": "1"})
    e.create(host={"NetworkMode": "none", "Binds": ["suite-prune-f:/data"]})
    return e.post("/volumes/prune", filters={"label": ["suite.used"], "all": ["1"]}).json


@case("volumes/volumes-from")
def _(e):
    name = e.volume()
    first = e.create(host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    second = e.create(host={"NetworkMode": "none", "VolumesFrom": [f"{first}:ro"]})
    return plain(e.inspect(second)["Mounts"])


@case("volumes/two-containers-share")
def _(e):
    name = e.volume()
    one = e.run(host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    two = e.run(host={"NetworkMode": "none", "Binds": [f"{name}:/other"]})
    e.exec(one, "sh", "-c", "echo shared > /data/f")
    return e.exec(two, "cat", "/other/f")


for mode in ("z", "rw", "ro", "nocopy", "rslave", "nonsense", "ro,rw"):
    @case(f"volumes/bind-mode-{mode}")
    def _(e, mode=mode):
        name = e.volume("suite-mode")
        answer = e.post("/containers/create", {"Image": "busybox", "HostConfig": {"Binds": [f"{name}:/data:{mode}"]}})
        if answer.status == 201:
            e.later("DELETE", f"/containers/{answer.json['Id']}")
            return {"status": 201, "mounts": plain(e.inspect(answer.json["Id"])["Mounts"])}
        return observation(answer)
