"""Events: which come, in which order, with which attributes; filters, times, streams."""

import json
import time

from .case import case
from .observe import observation, plain, shape


def told(found, *attributes):
    return [[event["Type"], event["Action"], *[event["Actor"]["Attributes"].get(name) for name in attributes]] for event in found]


def of(e, since, identity):
    return [event for event in e.events(since) if event["Actor"]["ID"] == identity or event["Actor"]["Attributes"].get("container") == identity]


def settled(e, since, identity, action):
    """The events until `action` has come, which may be a moment after the request that caused it."""
    for _ in range(30):
        found = of(e, since, identity)
        if any(event["Action"].startswith(action) for event in found):
            return found
        time.sleep(0.1)
    return found


@case("events/of-a-container's-life")
def _(e):
    since = e.now()
    identity, _ = e.ran("true", host={"NetworkMode": "bridge"})
    settled(e, since, identity, "disconnect")
    e.must("DELETE", f"/containers/{identity}")
    return told(settled(e, since, identity, "destroy"))


@case("events/shape-of-a-container-event")
def _(e):
    since = e.now()
    identity = e.create(Labels={"suite.label": "x"}, name="suite-event")
    event = of(e, since, identity)[0]
    return {"shape": shape(event), "attributes": plain(event["Actor"]["Attributes"]), "scope": event["scope"], "legacy": [event["status"], event["from"], event["id"] == identity]}


@case("events/die-has-exit-code")
def _(e):
    since = e.now()
    identity, _ = e.ran("sh", "-c", "exit 9")
    die = [event for event in settled(e, since, identity, "die") if event["Action"] == "die"][0]
    return {"code": die["Actor"]["Attributes"]["exitCode"], "keys": sorted(die["Actor"]["Attributes"])}


@case("events/kill-and-stop")
def _(e):
    identity = e.run()
    since = e.now()
    e.post(f"/containers/{identity}/stop?t=0")
    return told(settled(e, since, identity, "stop"), "signal")


@case("events/kill")
def _(e):
    identity = e.run()
    since = e.now()
    e.post(f"/containers/{identity}/kill?signal=KILL")
    e.post(f"/containers/{identity}/wait")
    return told(settled(e, since, identity, "die"), "signal")


@case("events/restart")
def _(e):
    identity = e.run()
    since = e.now()
    e.post(f"/containers/{identity}/restart?t=0")
    return told(settled(e, since, identity, "restart"))


@case("events/pause")
def _(e):
    identity = e.run()
    since = e.now()
    e.post(f"/containers/{identity}/pause")
    e.post(f"/containers/{identity}/unpause")
    return told(settled(e, since, identity, "unpause"))


@case("events/rename")
def _(e):
    identity = e.create(name="suite-evold")
    since = e.now()
    e.post(f"/containers/{identity}/rename?name=suite-evnew")
    return told(of(e, since, identity), "name", "oldName")


@case("events/update")
def _(e):
    identity = e.create()
    since = e.now()
    e.post(f"/containers/{identity}/update", {"CpuShares": 100})
    return told(of(e, since, identity))


@case("events/exec")
def _(e):
    identity = e.run()
    since = e.now()
    e.exec(identity, "sh", "-c", "exit 2")
    found = settled(e, since, identity, "exec_die")
    return [told(found, "exitCode"), ["execID" in event["Actor"]["Attributes"] for event in found]]


@case("events/attach-and-resize")
def _(e):
    identity = e.create(["sleep", "1"], Tty=True)
    since = e.now()
    stream = e.open_hijack("POST", f"/containers/{identity}/attach?stream=1&stdout=1")
    e.must("POST", f"/containers/{identity}/start")
    e.post(f"/containers/{identity}/resize?h=20&w=30")
    stream.finish(half_close=False)
    return told(settled(e, since, identity, "die"), "height", "width")


@case("events/copy-and-export")
def _(e):
    identity = e.create()
    since = e.now()
    e.get(f"/containers/{identity}/archive?path=/etc/group")
    e.get(f"/containers/{identity}/export")
    return told(of(e, since, identity))


@case("events/top")
def _(e):
    since = e.now()
    e.get(f"/containers/{e.shared()}/top")
    return told(e.events(since, container="suite-shared", event="top"))


@case("events/prune")
def _(e):
    since = e.now()
    for kind in ("containers", "volumes", "networks", "images"):
        e.post(f"/{kind}/prune", filters={"label": ["suite.nothing"]})
    return [[event["Type"], event["Action"], event["Actor"]["ID"], event["Actor"]["Attributes"]] for event in e.events(since, event="prune")]


@case("events/network")
def _(e):
    since = e.now()
    name = e.network("suite-evn")
    e.delete(f"/networks/{name}")
    found = e.events(since, type="network")
    return [[event["Action"], plain(event["Actor"]["Attributes"])] for event in found if event["Actor"]["Attributes"]["name"] == "suite-evn"]


@case("events/network-connect")
def _(e):
    name = e.network("suite-evc")
    identity = e.run(host={"NetworkMode": "bridge"})
    since = e.now()
    e.post(f"/networks/{name}/connect", {"Container": identity})
    e.post(f"/networks/{name}/disconnect", {"Container": identity})
    return [[event["Action"], plain(event["Actor"]["Attributes"])] for event in of(e, since, identity)]


@case("events/volume")
def _(e):
    since = e.now()
    name = e.volume("suite-evv")
    identity = e.run("sleep", "1", host={"NetworkMode": "none", "Binds": [f"{name}:/data"]})
    e.post(f"/containers/{identity}/wait")
    settled(e, since, name, "unmount")
    e.delete(f"/containers/{identity}")
    e.delete(f"/volumes/{name}")
    return [[event["Action"], plain(event["Actor"]["Attributes"])] for event in settled(e, since, name, "destroy")]


@case("events/image")
def _(e):
    since = e.now()
    e.must("POST", "/images/busybox/tag?repo=suite-evi&tag=v1")
    e.must("DELETE", "/images/suite-evi:v1")
    return [[event["Action"], plain(event["Actor"]["Attributes"])] for event in e.events(since, type="image")]


@case("events/filters")
def _(e):
    since = e.now()
    e.ran("true", name="suite-evf", Labels={"suite.ev": "1"})
    settled(e, since, e.inspect("suite-evf")["Id"], "die")
    wanted = ({"container": "suite-evf"}, {"event": "create"}, {"event": ["create", "die"]}, {"type": "container"}, {"type": "volume"}, {"label": "suite.ev"}, {"label": "suite.ev=1"}, {"label": "suite.ev=2"}, {"image": "busybox"}, {"scope": "local"}, {"scope": "swarm"}, {"daemon": "nonsense"})
    return {json.dumps(filters): [event["Action"] for event in e.events(since, **filters) if event["Actor"]["Attributes"].get("name") == "suite-evf"] for filters in wanted}


@case("events/followed-live")
def _(e):
    connection = e.connection()
    connection.timeout = 20
    connection.request("GET", e.target("/events", "v1.51", {"filters": {"type": ["container"], "label": ["suite.live"]}}))
    answer = connection.getresponse()
    e.create(Labels={"suite.live": "1"})
    line = json.loads(answer.readline())
    connection.close()
    return {"status": answer.status, "type": answer.headers.get("content-type"), "action": line["Action"]}


@case("events/until-in-the-future-ends")
def _(e):
    started = time.monotonic()
    e.get("/events", until=f"{e.now() + 1.5:.3f}")
    return 0.5 < time.monotonic() - started < 15


@case("events/nothing-is-lost-between-two-subscriptions")
def _(e):
    since = e.now()
    made = [e.create(Labels={"suite.cont": "1"}) for _ in range(3)]
    middle = e.now()
    made += [e.create(Labels={"suite.cont": "1"}) for _ in range(3)]
    first = e.events(since, middle, label="suite.cont", event="create")
    second = e.events(middle, label="suite.cont", event="create")
    return [event["Actor"]["ID"] for event in first + second] == made


@case("events/many-are-kept")
def _(e):
    since = e.now()
    for _ in range(60):
        e.must("POST", "/images/busybox/tag?repo=suite-evmany&tag=v1")
    e.later("DELETE", "/images/suite-evmany:v1")
    return len(e.events(since, type="image", event="tag"))


@case("events/times")
def _(e):
    since = e.now()
    identity = e.create()
    event = of(e, since, identity)[0]
    return [event["time"] == event["timeNano"] // 10**9, event["timeNano"] / 1e9 >= since]


for label, value in (("rfc3339", "2020-01-01T00:00:00Z"), ("date", "2020-01-01"), ("minutes", "2020-01-01T00:00"), ("duration", "10m"), ("nanoseconds", "1577836800.000000001")):
    @case(f"events/since-as-{label}")
    def _(e, value=value):
        answer = e.get("/events", since=value, until=f"{e.now():.3f}", filters={"type": ["plugin"]})
        return observation(answer)
