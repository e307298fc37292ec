"""Networks: kinds, addresses, names, connect and disconnect, ports."""

from .case import case, requests
from .observe import observation, pick, plain, shape

requests(
    "networks",
    ("inspect-unknown", "GET", "/networks/nonsense"),
    ("remove-unknown", "DELETE", "/networks/nonsense"),
    ("remove-bridge", "DELETE", "/networks/bridge"),
    ("remove-host", "DELETE", "/networks/host"),
    ("remove-none", "DELETE", "/networks/none"),
    ("create-without-name", "POST", "/networks/create", {}),
    ("create-bad-name", "POST", "/networks/create", {"Name": "b@d"}),
    ("create-name-with-blank", "POST", "/networks/create", {"Name": " "}),
    ("create-bridge", "POST", "/networks/create", {"Name": "bridge"}),
    ("create-host", "POST", "/networks/create", {"Name": "host"}),
    ("create-none", "POST", "/networks/create", {"Name": "none"}),
    ("create-default", "POST", "/networks/create", {"Name": "default"}),
    ("create-second-host", "POST", "/networks/create", {"Name": "suite-h", "Driver": "host"}),
    ("create-second-null", "POST", "/networks/create", {"Name": "suite-h", "Driver": "null"}),
    ("create-unknown-driver", "POST", "/networks/create", {"Name": "suite-d", "Driver": "nonsense"}),
    ("create-overlay", "POST", "/networks/create", {"Name": "suite-d", "Driver": "overlay"}),
    ("create-unknown-ipam", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Driver": "nonsense"}}),
    ("create-bad-subnet", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "nonsense"}]}}),
    ("create-host-bits", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "10.77.0.5/24"}]}}),
    ("create-bad-gateway", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24", "Gateway": "nonsense"}]}}),
    ("create-gateway-outside", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24", "Gateway": "10.78.0.1"}]}}),
    ("create-bad-range", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24", "IPRange": "nonsense"}]}}),
    ("create-range-outside", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24", "IPRange": "10.78.0.0/25"}]}}),
    ("create-range-host-bits", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24", "IPRange": "10.77.0.5/25"}]}}),
    ("create-aux-outside", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24", "AuxiliaryAddresses": {"a": "10.78.0.9"}}]}}),
    ("create-several-wrongs", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "10.77.0.5/24", "Gateway": "10.78.0.1", "IPRange": "10.79.0.0/25"}]}}),
    ("create-v6-subnet-without-v6", "POST", "/networks/create", {"Name": "suite-d", "EnableIPv6": False, "EnableIPv4": False}),
    ("create-config-only-and-from", "POST", "/networks/create", {"Name": "suite-d", "ConfigOnly": True, "ConfigFrom": {"Network": "x"}}),
    ("create-config-from-unknown", "POST", "/networks/create", {"Name": "suite-d", "ConfigFrom": {"Network": "nonsense"}}),
    ("create-ingress", "POST", "/networks/create", {"Name": "suite-d", "Ingress": True}),
    ("create-swarm-scope", "POST", "/networks/create", {"Name": "suite-d", "Scope": "swarm"}),
    ("create-bad-mtu", "POST", "/networks/create", {"Name": "suite-d", "Options": {"com.docker.network.driver.mtu": "nonsense"}}),
    ("create-bad-icc", "POST", "/networks/create", {"Name": "suite-d", "Options": {"com.docker.network.bridge.enable_icc": "nonsense"}}),
    ("create-bad-binding", "POST", "/networks/create", {"Name": "suite-d", "Options": {"com.docker.network.bridge.host_binding_ipv4": "nonsense"}}),
    ("create-v6-host-bits", "POST", "/networks/create", {"Name": "suite-d", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::1/64"}]}}),
    ("create-v6-range-bigger", "POST", "/networks/create", {"Name": "suite-d", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::/64", "IPRange": "fd00:77::/48"}]}}),
    ("create-v6-range-of-v4", "POST", "/networks/create", {"Name": "suite-d", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::/64", "IPRange": "10.0.0.0/24"}]}}),
    ("create-v6-gateway-of-v4", "POST", "/networks/create", {"Name": "suite-d", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::/64", "Gateway": "10.0.0.1"}]}}),
    ("create-v6-aux-outside", "POST", "/networks/create", {"Name": "suite-d", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::/64", "AuxiliaryAddresses": {"a": "fd00:78::1"}}]}}),
    ("create-config-without-subnet", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Gateway": "10.77.0.1"}]}}),
    ("create-two-subnets", "POST", "/networks/create", {"Name": "suite-d", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24"}, {"Subnet": "10.78.0.0/24"}]}}),
    ("create-bad-v6-option", "POST", "/networks/create", {"Name": "suite-d", "Options": {"com.docker.network.enable_ipv6": "nonsense"}}),
    ("macvlan-bad-parent", "POST", "/networks/create", {"Name": "suite-d", "Driver": "macvlan", "Options": {"parent": "nonsense"}}),
    ("macvlan-parent-of-vlan-missing", "POST", "/networks/create", {"Name": "suite-d", "Driver": "macvlan", "Options": {"parent": "suite9.10"}}),
    ("macvlan-vlan-too-large", "POST", "/networks/create", {"Name": "suite-d", "Driver": "macvlan", "Options": {"parent": "eth0.5000"}}),
    ("macvlan-vlan-of-nonsense", "POST", "/networks/create", {"Name": "suite-d", "Driver": "macvlan", "Options": {"parent": "eth0.x"}}),
    ("macvlan-on-loopback", "POST", "/networks/create", {"Name": "suite-d", "Driver": "macvlan", "Options": {"parent": "lo"}}),
    ("macvlan-bad-mode", "POST", "/networks/create", {"Name": "suite-d", "Driver": "macvlan", "Options": {"macvlan_mode": "nonsense"}}),
    ("ipvlan-bad-mode", "POST", "/networks/create", {"Name": "suite-d", "Driver": "ipvlan", "Options": {"ipvlan_mode": "nonsense"}}),
    ("ipvlan-bad-flag", "POST", "/networks/create", {"Name": "suite-d", "Driver": "ipvlan", "Options": {"ipvlan_flag": "nonsense"}}),
    ("ipvlan-on-loopback", "POST", "/networks/create", {"Name": "suite-d", "Driver": "ipvlan", "Options": {"parent": "lo"}}),
    ("connect-unknown-network", "POST", "/networks/nonsense/connect", {"Container": "nonsense"}),
    ("connect-unknown-container", "POST", "/networks/bridge/connect", {"Container": "nonsense"}),
    ("connect-nothing", "POST", "/networks/bridge/connect", {}),
    ("connect-bad-json", "POST", "/networks/bridge/connect", "{"),
    ("disconnect-unknown-network", "POST", "/networks/nonsense/disconnect", {"Container": "nonsense"}),
    ("disconnect-unknown-container", "POST", "/networks/bridge/disconnect", {"Container": "nonsense"}),
    ("disconnect-unknown-container-force", "POST", "/networks/bridge/disconnect", {"Container": "nonsense", "Force": True}),
    ("list-bad-filter", "GET", "/networks", None, {"filters": {"nonsense": ["a"]}}),
    ("list-bad-type", "GET", "/networks", None, {"filters": {"type": ["nonsense"]}}),
    ("list-bad-dangling", "GET", "/networks", None, {"filters": {"dangling": ["maybe"]}}),
    ("list-broken-filters", "GET", "/networks", None, {"filters": "nonsense"}),
    ("prune-bad-filter", "POST", "/networks/prune", None, {"filters": {"nonsense": ["a"]}}),
    ("prune-bad-until", "POST", "/networks/prune", None, {"filters": {"until": ["nonsense"]}}),
)


@case("networks/predefined")
def _(e):
    found = {network["Name"]: network for network in e.get("/networks").json if network["Name"] in ("bridge", "host", "none")}
    return {name: pick(found[name], "Driver", "Scope", "EnableIPv4", "EnableIPv6", "Internal", "Attachable", "Ingress", "ConfigOnly", "ConfigFrom", "Options", "Labels", "IPAM.Driver", "IPAM.Options") for name in sorted(found)}


@case("networks/list-shape")
def _(e):
    e.network()
    return sorted(e.get("/networks", filters={"name": ["suite-n"]}).json[0])


@case("networks/inspect-shape")
def _(e):
    return shape(e.get(f"/networks/{e.network()}").json)


@case("networks/create")
def _(e):
    answer = e.post("/networks/create", {"Name": "suite-made", "Labels": {"a": "b"}})
    e.later("DELETE", "/networks/suite-made")
    return observation(answer) | pick(e.get("/networks/suite-made").json, "Driver", "Scope", "EnableIPv4", "EnableIPv6", "Internal", "Attachable", "Options", "Labels", "IPAM.Driver", "IPAM.Options", "Containers")


@case("networks/create-twice")
def _(e):
    name = e.network()
    return e.says("POST", "/networks/create", {"Name": name})


@case("networks/inspect-by-id-and-prefix")
def _(e):
    name = e.network()
    identity = e.get(f"/networks/{name}").json["Id"]
    return [e.get(f"/networks/{word}").json["Name"] == name for word in (identity, identity[:12], identity[:5])]


@case("networks/inspect-verbose")
def _(e):
    return e.says("GET", f"/networks/{e.network()}?verbose=true")


@case("networks/inspect-verbose-bad")
def _(e):
    return e.says("GET", f"/networks/{e.network()}?verbose=nonsense")


for scope in ("local", "swarm", "nonsense"):
    @case(f"networks/inspect-scope-{scope}")
    def _(e, scope=scope):
        return {"status": e.get(f"/networks/{e.network()}?scope={scope}").status}


@case("networks/remove")
def _(e):
    name = e.network()
    return [observation(e.delete(f"/networks/{name}")), e.delete(f"/networks/{name}").status]


@case("networks/remove-in-use")
def _(e):
    name = e.network("suite-busy")
    e.run(name="suite-busy-c", host={"NetworkMode": name})
    return e.says("DELETE", f"/networks/{name}")


@case("networks/remove-with-a-stopped-container")
def _(e):
    name = e.network()
    e.create(host={"NetworkMode": name})
    return e.says("DELETE", f"/networks/{name}")


@case("networks/custom-subnet")
def _(e):
    name = e.network(IPAM={"Driver": "default", "Config": [{"Subnet": "10.77.1.0/24", "IPRange": "10.77.1.128/25", "Gateway": "10.77.1.254", "AuxiliaryAddresses": {"router": "10.77.1.200"}}]})
    identity = e.run(host={"NetworkMode": name})
    ends = e.inspect(identity)["NetworkSettings"]["Networks"][name]
    return {"config": e.get(f"/networks/{name}").json["IPAM"], "address": pick(ends, "IPAddress", "Gateway", "IPPrefixLen")}


@case("networks/subnet-gateway-is-filled-in")
def _(e):
    name = e.network(IPAM={"Config": [{"Subnet": "10.77.2.0/24"}]})
    return e.get(f"/networks/{name}").json["IPAM"]


@case("networks/overlapping-subnet")
def _(e):
    e.network(IPAM={"Config": [{"Subnet": "10.77.3.0/24"}]})
    return e.says("POST", "/networks/create", {"Name": "suite-overlap", "IPAM": {"Config": [{"Subnet": "10.77.3.128/25"}]}})


@case("networks/overlapping-the-bridge")
def _(e):
    subnet = e.get("/networks/bridge").json["IPAM"]["Config"][0]["Subnet"]
    return e.says("POST", "/networks/create", {"Name": "suite-overlap", "IPAM": {"Config": [{"Subnet": subnet}]}})


@case("networks/ipv6")
def _(e):
    name = e.network(EnableIPv6=True, IPAM={"Config": [{"Subnet": "10.77.4.0/24"}, {"Subnet": "fd00:77:4::/64"}]})
    identity = e.run(host={"NetworkMode": name})
    ends = e.inspect(identity)["NetworkSettings"]["Networks"][name]
    code = e.exec(identity, "ping", "-6", "-c1", "-W5", "fd00:77:4::1")[1]
    return {"network": pick(e.get(f"/networks/{name}").json, "EnableIPv6", "EnableIPv4", "IPAM.Config"), "end": pick(ends, "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway"), "ping": code}


@case("networks/ipv6-default-pool")
def _(e):
    name = e.network(EnableIPv6=True)
    config = e.get(f"/networks/{name}").json["IPAM"]["Config"]
    return {"pools": len(config), "v6": [entry["Subnet"].startswith("fd") for entry in config if ":" in entry["Subnet"]]}


@case("networks/ipv6-only")
def _(e):
    answer = e.post("/networks/create", {"Name": "suite-v6", "EnableIPv4": False, "EnableIPv6": True})
    e.later("DELETE", "/networks/suite-v6")
    return {"status": answer.status} | (pick(e.get("/networks/suite-v6").json, "EnableIPv4", "EnableIPv6") if answer.status == 201 else {"says": answer.body.decode()})


@case("networks/ipv6-subnet-without-ipv6")
def _(e):
    name = e.network(IPAM={"Config": [{"Subnet": "fd00:77:5::/64"}]})
    found = e.get(f"/networks/{name}").json
    return {"v6": found["EnableIPv6"], "subnets": len(found["IPAM"]["Config"]), "first": found["IPAM"]["Config"][0]}


@case("networks/ipv6-overlap")
def _(e):
    e.network(EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:77:6::/64"}]})
    return e.says("POST", "/networks/create", {"Name": "suite-overlap", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77:6::/80"}]}})


@case("networks/ipv6-range-and-gateway")
def _(e):
    name = e.network(EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:77:7::/64", "IPRange": "fd00:77:7::1000/116", "Gateway": "fd00:77:7::99", "AuxiliaryAddresses": {"router": "fd00:77:7::1000"}}]})
    identity = e.run(host={"NetworkMode": name})
    return pick(e.inspect(identity)["NetworkSettings"]["Networks"][name], "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway")


@case("networks/ipv6-static-address")
def _(e):
    name = e.network("suite-six", EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:77:8::/64"}]})
    ends = {name: {"IPAMConfig": {"IPv6Address": "fd00:77:8::abcd"}}}
    identity = e.run(host={"NetworkMode": name}, networking=ends, Hostname="suite-six-host")
    second = e.create(host={"NetworkMode": name}, networking=ends)
    hosts = [line.split() for line in e.exec(identity, "cat", "/etc/hosts")[0].splitlines() if "suite-six-host" in line and ":" in line]
    return {"end": pick(e.inspect(identity)["NetworkSettings"]["Networks"][name], "GlobalIPv6Address", "IPAMConfig"), "hosts": hosts, "taken": e.says("POST", f"/containers/{second}/start")}


@case("networks/ipv6-static-address-wrong")
def _(e):
    name = e.network("suite-six", EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:77:9::/64"}]})
    ask = lambda mode, **config: e.says("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": {mode: {"IPAMConfig": config}}}})
    return [ask(name, IPv6Address="fd00:78::1"), ask(name, IPv6Address="nonsense"), ask(name, IPv4Address="10.0.0.9"), ask("bridge", IPv6Address="fd00::2"), ask("suite-nowhere", IPv4Address="nonsense")]


@case("networks/ipv6-in-a-container")
def _(e):
    six, four = e.network(EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:77:a::/64"}]}), e.network()
    script = "for f in all default lo eth0; do cat /proc/sys/net/ipv6/conf/$f/disable_ipv6; done"
    seen = [e.output("sh", "-c", script, host={"NetworkMode": name}).split() for name in (six, four)]
    return seen + [[line.split() for line in e.output("ip", "-6", "route", "show", "default", host={"NetworkMode": six}).splitlines() if line.startswith("default")]]


@case("networks/ipv6-names")
def _(e):
    name = e.network("suite-aaaa", EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:77:b::/64"}]})
    e.run(name="suite-sixth", host={"NetworkMode": name}, networking={name: {"IPAMConfig": {"IPv6Address": "fd00:77:b::77"}}})
    identity = e.run(host={"NetworkMode": name})
    return ["fd00:77:b::77" in e.exec(identity, "nslookup", "-type=aaaa", "suite-sixth")[0], "fd00:77:b::77" in e.exec(identity, "nslookup", "-type=a", "suite-sixth")[0], "suite-sixth.suite-aaaa" in e.exec(identity, "nslookup", "fd00:77:b::77")[0]]


@case("networks/connect-moves-the-default-routes")
def _(e):
    name = e.network("suite-zz", EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:77:c::/64"}, {"Subnet": "10.77.12.0/24"}]})
    identity = e.run(host={"NetworkMode": "bridge"}, Hostname="suite-moved")
    routes = lambda: [[line.split()[2] for line in e.exec(identity, "ip", family, "route")[0].splitlines() if line.startswith("default")] for family in ("-4", "-6")]
    lines = lambda: sum("suite-moved" in line for line in e.exec(identity, "cat", "/etc/hosts")[0].splitlines())
    before = lines()
    e.must("POST", f"/networks/{name}/connect", {"Container": identity})
    connected = [routes(), lines() - before, "127.0.0.11" in e.exec(identity, "cat", "/etc/resolv.conf")[0]]
    e.must("POST", f"/networks/{name}/disconnect", {"Container": identity})
    return connected + [len(routes()[0]), routes()[1], lines() - before]


for driver in ("macvlan", "ipvlan"):
    @case(f"networks/{driver}-without-a-parent")
    def _(e, driver=driver):
        name = e.network(Driver=driver)
        e.run(name="suite-island", host={"NetworkMode": name})
        identity = e.run(host={"NetworkMode": name})
        found = e.get(f"/networks/{name}").json
        ends = e.inspect(identity)["NetworkSettings"]["Networks"][name]
        return {"network": pick(found, "Driver", "Internal", "Options"), "gateway": "Gateway" in found["IPAM"]["Config"][0], "end": pick(ends, "Gateway", "IPPrefixLen"), "mac": ends["MacAddress"] != "", "routes": [line for line in e.exec(identity, "ip", "-4", "route")[0].splitlines() if line.startswith("default")], "ping": e.exec(identity, "ping", "-c1", "-W5", "suite-island")[1]}

    @case(f"networks/{driver}-on-a-link")
    def _(e, driver=driver):
        name = e.network(Driver=driver, Options={"parent": "eth0"}, IPAM={"Config": [{"Subnet": "10.77.13.0/24", "IPRange": "10.77.13.64/26", "Gateway": "10.77.13.254", "AuxiliaryAddresses": {"router": "10.77.13.64"}}]})
        identity = e.run(host={"NetworkMode": name, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28400"}]}})
        settings = e.inspect(identity)["NetworkSettings"]
        return {"end": pick(settings["Networks"][name], "IPAddress", "IPPrefixLen", "Gateway"), "ports": settings["Ports"], "routes": [line.split()[:5] for line in e.exec(identity, "ip", "-4", "route")[0].splitlines() if line.startswith("default")]}

    @case(f"networks/{driver}-own-mac")
    def _(e, driver=driver):
        name = e.network("suite-mac", Driver=driver)
        identity = e.create(name="suite-mac-c", host={"NetworkMode": name}, networking={name: {"MacAddress": "02:42:00:00:00:07"}})
        return e.says("POST", f"/containers/{identity}/start")


@case("networks/macvlan-two-subnets")
def _(e):
    name = e.network(Driver="macvlan", Options={"parent": "eth0"}, IPAM={"Config": [{"Subnet": "10.77.14.0/24"}, {"Subnet": "10.77.15.0/24"}]})
    first = e.run(host={"NetworkMode": name})
    second = e.run(host={"NetworkMode": name}, networking={name: {"IPAMConfig": {"IPv4Address": "10.77.15.9"}}})
    return [pick(e.inspect(one)["NetworkSettings"]["Networks"][name], "IPAddress", "Gateway") for one in (first, second)]


@case("networks/ipvlan-routed")
def _(e):
    name = e.network(Driver="ipvlan", Options={"parent": "eth0", "ipvlan_mode": "l3"}, IPAM={"Config": [{"Subnet": "10.77.16.0/24"}]})
    identity = e.run(host={"NetworkMode": name})
    return {"end": pick(e.inspect(identity)["NetworkSettings"]["Networks"][name], "IPAddress", "Gateway"), "routes": [line.split()[:3] for line in e.exec(identity, "ip", "-4", "route")[0].splitlines() if line.startswith("default")]}


@case("networks/internal")
def _(e):
    name = e.network(Internal=True)
    identity = e.run(host={"NetworkMode": name})
    return {"internal": e.get(f"/networks/{name}").json["Internal"], "route": e.exec(identity, "ip", "route", "show", "default")[0], "gateway": pick(e.inspect(identity)["NetworkSettings"]["Networks"][name], "Gateway"), "out": e.exec(identity, "nc", "-w3", "-z", "10.0.2.2", "1")[1] != 0}


@case("networks/internal-members-talk")
def _(e):
    name = e.network(Internal=True)
    e.run(name="suite-inner", host={"NetworkMode": name})
    identity = e.run(host={"NetworkMode": name})
    return e.exec(identity, "ping", "-c1", "-W5", "suite-inner")[1]


@case("networks/isolated-from-each-other")
def _(e):
    one, two = e.network(), e.network()
    first, second = e.run(host={"NetworkMode": one}), e.run(host={"NetworkMode": two})
    address = e.inspect(second)["NetworkSettings"]["Networks"][two]["IPAddress"]
    return {"same subnet": False, "reached": e.exec(first, "ping", "-c1", "-W2", address)[1] == 0}


@case("networks/icc-off")
def _(e):
    name = e.network(Options={"com.docker.network.bridge.enable_icc": "false"})
    first, second = e.run(host={"NetworkMode": name}), e.run(host={"NetworkMode": name})
    address = e.inspect(second)["NetworkSettings"]["Networks"][name]["IPAddress"]
    return e.exec(first, "ping", "-c1", "-W2", address)[1] == 0


@case("networks/mtu")
def _(e):
    name = e.network(Options={"com.docker.network.driver.mtu": "1300"})
    return e.output("cat", "/sys/class/net/eth0/mtu", host={"NetworkMode": name})


@case("networks/bridge-name")
def _(e):
    name = e.network(Options={"com.docker.network.bridge.name": "suitebr0"})
    return e.output("ip", "link", "show", "suitebr0", host={"NetworkMode": "host"}).split(":")[1].strip()


@case("networks/names-resolve")
def _(e):
    name = e.network()
    e.run(name="suite-named", host={"NetworkMode": name}, networking={name: {"Aliases": ["suite-alias"]}}, Hostname="suite-hostname")
    identity = e.run(host={"NetworkMode": name})
    return {word: e.exec(identity, "ping", "-c1", "-W5", word)[1] for word in ("suite-named", "suite-alias", "suite-hostname", "suite-nobody")}


@case("networks/names-resolve-fully")
def _(e):
    name = e.network("suite-dotted")
    e.run(name="suite-full", host={"NetworkMode": name})
    identity = e.run(host={"NetworkMode": name})
    return e.exec(identity, "ping", "-c1", "-W5", "suite-full.suite-dotted")[1]


@case("networks/reverse-lookup")
def _(e):
    name = e.network("suite-rev")
    other = e.run(name="suite-reverse", host={"NetworkMode": name})
    identity = e.run(host={"NetworkMode": name})
    address = e.inspect(other)["NetworkSettings"]["Networks"][name]["IPAddress"]
    return "suite-reverse.suite-rev" in e.exec(identity, "nslookup", address)[0]


@case("networks/round-robin")
def _(e):
    name = e.network()
    for _ in range(3):
        e.run(host={"NetworkMode": name}, networking={name: {"Aliases": ["suite-many"]}})
    identity = e.run(host={"NetworkMode": name})
    text = e.exec(identity, "nslookup", "-type=a", "suite-many")[0]
    return text.split("suite-many", 1)[-1].count("Address: ")


@case("networks/alias-of-a-stopped-container-is-gone")
def _(e):
    name = e.network()
    other = e.run(host={"NetworkMode": name}, networking={name: {"Aliases": ["suite-going"]}})
    identity = e.run(host={"NetworkMode": name})
    before = e.exec(identity, "ping", "-c1", "-W5", "suite-going")[1]
    e.post(f"/containers/{other}/kill")
    e.post(f"/containers/{other}/wait")
    return [before, e.exec(identity, "ping", "-c1", "-W2", "suite-going")[1] != 0]


@case("networks/rename-is-followed-by-names")
def _(e):
    name = e.network()
    e.run(name="suite-before", host={"NetworkMode": name})
    identity = e.run(host={"NetworkMode": name})
    e.post("/containers/suite-before/rename?name=suite-after")
    return [e.exec(identity, "ping", "-c1", "-W5", word)[1] for word in ("suite-after", "suite-before")]


@case("networks/default-bridge-has-no-names")
def _(e):
    e.run(name="suite-unnamed", host={"NetworkMode": "bridge"})
    return e.exec(e.shared(), "ping", "-c1", "-W2", "suite-unnamed")[1] != 0


@case("networks/link-on-the-default-bridge")
def _(e):
    e.run(name="suite-linked", host={"NetworkMode": "bridge"})
    identity = e.run(host={"NetworkMode": "bridge", "Links": ["suite-linked:db"]})
    return [e.exec(identity, "ping", "-c1", "-W5", "db")[1], plain(e.inspect(identity)["HostConfig"]["Links"])]


@case("networks/link-on-a-user-network")
def _(e):
    name = e.network()
    e.run(name="suite-linked", host={"NetworkMode": name})
    identity = e.run(host={"NetworkMode": name}, networking={name: {"Links": ["suite-linked:db"]}})
    return e.exec(identity, "ping", "-c1", "-W5", "db")[1]


@case("networks/static-address")
def _(e):
    name = e.network(IPAM={"Config": [{"Subnet": "10.77.5.0/24"}]})
    identity = e.run(host={"NetworkMode": name}, networking={name: {"IPAMConfig": {"IPv4Address": "10.77.5.99"}}, })
    ends = e.inspect(identity)["NetworkSettings"]["Networks"][name]
    return pick(ends, "IPAddress", "IPAMConfig", "IPPrefixLen", "Gateway")


@case("networks/static-address-taken")
def _(e):
    name = e.network(IPAM={"Config": [{"Subnet": "10.77.6.0/24"}]})
    ends = {name: {"IPAMConfig": {"IPv4Address": "10.77.6.9"}}}
    e.run(host={"NetworkMode": name}, networking=ends)
    second = e.create(host={"NetworkMode": name}, networking=ends)
    return e.says("POST", f"/containers/{second}/start")


@case("networks/static-address-outside")
def _(e):
    name = e.network("suite-outside", IPAM={"Config": [{"Subnet": "10.77.7.0/24"}]})
    # The engine refuses the container itself, not its start.
    return e.says("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": name}, "NetworkingConfig": {"EndpointsConfig": {name: {"IPAMConfig": {"IPv4Address": "10.78.0.9"}}}}})


@case("networks/static-address-without-subnet")
def _(e):
    name = e.network()
    answer = e.post("/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": name}, "NetworkingConfig": {"EndpointsConfig": {name: {"IPAMConfig": {"IPv4Address": "172.30.0.9"}}}}})
    if answer.status != 201:
        return observation(answer)
    e.later("DELETE", f"/containers/{answer.json['Id']}")
    return {"created": 201, "start": e.says("POST", f"/containers/{answer.json['Id']}/start")}


@case("networks/static-address-on-the-bridge")
def _(e):
    answer = e.post("/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": "bridge"}, "NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "172.17.0.99"}}}}})
    if answer.status != 201:
        return observation(answer)
    e.later("DELETE", f"/containers/{answer.json['Id']}")
    return {"created": 201, "start": e.says("POST", f"/containers/{answer.json['Id']}/start")}


@case("networks/static-address-nonsense")
def _(e):
    return e.says("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": "suite-x"}, "NetworkingConfig": {"EndpointsConfig": {"suite-x": {"IPAMConfig": {"IPv4Address": "nonsense"}}}}})


@case("networks/mac-address")
def _(e):
    name = e.network()
    identity = e.run(host={"NetworkMode": name}, networking={name: {"MacAddress": "02:42:ac:11:00:99"}})
    return [e.exec(identity, "cat", "/sys/class/net/eth0/address")[0].strip() == "02:42:ac:11:00:99", e.inspect(identity)["NetworkSettings"]["Networks"][name]["MacAddress"] == "02:42:ac:11:00:99"]


@case("networks/mac-address-nonsense")
def _(e):
    return e.says("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": "bridge"}, "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "nonsense"}}}})


@case("networks/alias-on-the-bridge")
def _(e):
    answer = e.post("/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": "bridge"}, "NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["x"]}}}})
    if answer.status != 201:
        return observation(answer)
    e.later("DELETE", f"/containers/{answer.json['Id']}")
    return {"created": 201, "start": e.says("POST", f"/containers/{answer.json['Id']}/start")}


@case("networks/unknown-mode")
def _(e):
    answer = e.post("/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": "suite-nonsense"}})
    if answer.status != 201:
        return observation(answer)
    e.later("DELETE", f"/containers/{answer.json['Id']}")
    return {"created": 201, "start": e.says("POST", f"/containers/{answer.json['Id']}/start")}


@case("networks/container-mode-unknown")
def _(e):
    answer = e.post("/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": "container:suite-nonsense"}})
    if answer.status != 201:
        return observation(answer)
    e.later("DELETE", f"/containers/{answer.json['Id']}")
    return {"created": 201, "start": e.says("POST", f"/containers/{answer.json['Id']}/start")}


@case("networks/container-mode-not-running")
def _(e):
    other = e.create(name="suite-still")
    identity = e.create(host={"NetworkMode": f"container:{other}"})
    return e.says("POST", f"/containers/{identity}/start")


@case("networks/container-mode-shares")
def _(e):
    name = e.network()
    first = e.run(host={"NetworkMode": name})
    second = e.run(host={"NetworkMode": f"container:{first}"})
    same = e.exec(first, "readlink", "/proc/self/ns/net")[0] == e.exec(second, "readlink", "/proc/self/ns/net")[0]
    return {"same": same, "networks": e.inspect(second)["NetworkSettings"]["Networks"], "hostname": e.exec(first, "hostname")[0] == e.exec(second, "hostname")[0]}


for name, host in (("hostname", {"Hostname": "x"}), ("ports", {"ExposedPorts": {"80/tcp": {}}}), ("publish", {"publish": True}), ("dns", {"dns": True}), ("links", {"links": True}), ("extra-hosts", {"extra": True})):
    @case(f"networks/container-mode-with-{name}")
    def _(e, host=host):
        host = dict(host)
        settings = {"NetworkMode": "container:suite-any"}
        if host.pop("publish", 0):
            settings["PortBindings"] = {"80/tcp": [{"HostPort": "0"}]}
        if host.pop("dns", 0):
            settings["Dns"] = ["1.2.3.4"]
        if host.pop("links", 0):
            settings["Links"] = ["a:b"]
        if host.pop("extra", 0):
            settings["ExtraHosts"] = ["a:1.2.3.4"]
        return e.says("POST", "/containers/create", {"Image": "busybox", **host, "HostConfig": settings})


@case("networks/host-mode")
def _(e):
    identity = e.run(host={"NetworkMode": "host"})
    return {"networks": sorted(e.inspect(identity)["NetworkSettings"]["Networks"]), "ports": e.inspect(identity)["NetworkSettings"]["Ports"], "loopback": e.exec(identity, "ip", "-o", "link", "show", "lo")[1]}


@case("networks/none-mode")
def _(e):
    identity = e.run(host={"NetworkMode": "none"})
    ends = e.inspect(identity)["NetworkSettings"]["Networks"]["none"]
    return {"end": pick(ends, "IPAddress", "Gateway", "MacAddress"), "links": e.exec(identity, "ls", "/sys/class/net")[0].split()}


@case("networks/end-shape")
def _(e):
    name = e.network()
    identity = e.run(host={"NetworkMode": name})
    settings = e.inspect(identity)["NetworkSettings"]
    return {"settings": {key: value for key, value in shape(settings).items() if key != "Networks"}, "end": shape(settings["Networks"][name])}


@case("networks/end-values")
def _(e):
    name = e.network("suite-ends")
    identity = e.run(name="suite-end", host={"NetworkMode": name}, networking={name: {"Aliases": ["one", "two"], "DriverOpts": {"a": "b"}}})
    return pick(e.inspect(identity)["NetworkSettings"]["Networks"][name], "Aliases", "DNSNames", "DriverOpts", "GwPriority", "IPAMConfig", "Links", "IPPrefixLen")


@case("networks/end-of-a-stopped-container")
def _(e):
    name = e.network()
    identity, _ = e.ran("true", host={"NetworkMode": name})
    settings = e.inspect(identity)["NetworkSettings"]
    return pick(settings["Networks"][name], "IPAddress", "Gateway", "EndpointID", "MacAddress", "IPPrefixLen") | pick(settings, "SandboxID", "SandboxKey", "Ports")


@case("networks/inspect-has-containers")
def _(e):
    name = e.network()
    e.run(name="suite-seen", host={"NetworkMode": name})
    containers = e.get(f"/networks/{name}").json["Containers"]
    return shape(containers) | {"name": [entry["Name"] for entry in containers.values()]}


@case("networks/two-at-create")
def _(e):
    one, two = e.network("suite-two-a"), e.network("suite-two-b")
    identity = e.run(host={"NetworkMode": one}, networking={one: {}, two: {"Aliases": ["x"]}})
    return {"networks": sorted(e.inspect(identity)["NetworkSettings"]["Networks"]), "links": e.exec(identity, "ls", "/sys/class/net")[0].split()}


@case("networks/connect-running")
def _(e):
    name = e.network("suite-joined")
    identity = e.run(host={"NetworkMode": "bridge"})
    answer = e.post(f"/networks/{name}/connect", {"Container": identity, "EndpointConfig": {"Aliases": ["joined"]}})
    return observation(answer) | {"networks": sorted(e.inspect(identity)["NetworkSettings"]["Networks"]), "links": e.exec(identity, "ls", "/sys/class/net")[0].split(), "names": plain(e.inspect(identity)["NetworkSettings"]["Networks"][name]["DNSNames"])}


@case("networks/connect-running-resolves")
def _(e):
    name = e.network()
    e.run(name="suite-host-1", host={"NetworkMode": name})
    identity = e.run(host={"NetworkMode": "bridge"})
    e.must("POST", f"/networks/{name}/connect", {"Container": identity})
    return e.exec(identity, "ping", "-c1", "-W5", "suite-host-1")[1]


@case("networks/connect-stopped")
def _(e):
    name = e.network("suite-later")
    identity = e.create(host={"NetworkMode": "bridge"})
    answer = e.post(f"/networks/{name}/connect", {"Container": identity})
    before = sorted(e.inspect(identity)["NetworkSettings"]["Networks"])
    e.must("POST", f"/containers/{identity}/start")
    return observation(answer) | {"before": before, "links": e.exec(identity, "ls", "/sys/class/net")[0].split()}


@case("networks/connect-twice")
def _(e):
    name = e.network("suite-twice")
    identity = e.run(name="suite-twice-c", host={"NetworkMode": name})
    return e.says("POST", f"/networks/{name}/connect", {"Container": identity})


@case("networks/connect-host-mode")
def _(e):
    name = e.network()
    identity = e.run(host={"NetworkMode": "host"})
    return e.says("POST", f"/networks/{name}/connect", {"Container": identity})


@case("networks/connect-to-host")
def _(e):
    identity = e.run(host={"NetworkMode": "bridge"})
    return e.says("POST", "/networks/host/connect", {"Container": identity})


@case("networks/connect-to-none")
def _(e):
    identity = e.run(host={"NetworkMode": "bridge"})
    return e.says("POST", "/networks/none/connect", {"Container": identity})


@case("networks/connect-none-mode")
def _(e):
    name = e.network()
    identity = e.run(host={"NetworkMode": "none"})
    return e.says("POST", f"/networks/{name}/connect", {"Container": identity})


@case("networks/connect-container-mode")
def _(e):
    name = e.network()
    identity = e.run(host={"NetworkMode": f"container:{e.shared()}"})
    return e.says("POST", f"/networks/{name}/connect", {"Container": identity})


@case("networks/connect-static-address")
def _(e):
    name = e.network(IPAM={"Config": [{"Subnet": "10.77.8.0/24"}]})
    identity = e.run(host={"NetworkMode": "bridge"})
    e.must("POST", f"/networks/{name}/connect", {"Container": identity, "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.77.8.77"}}})
    return e.exec(identity, "ip", "-o", "-4", "addr", "show", "eth1")[0].split()[3]


@case("networks/connect-bad-address")
def _(e):
    name = e.network()
    identity = e.run(host={"NetworkMode": "bridge"})
    return e.says("POST", f"/networks/{name}/connect", {"Container": identity, "EndpointConfig": {"IPAMConfig": {"IPv4Address": "nonsense"}}})


@case("networks/disconnect")
def _(e):
    one, two = e.network("suite-left-a"), e.network("suite-left-b")
    identity = e.run(host={"NetworkMode": one}, networking={one: {}, two: {}})
    answer = e.post(f"/networks/{two}/disconnect", {"Container": identity})
    return observation(answer) | {"networks": sorted(e.inspect(identity)["NetworkSettings"]["Networks"]), "links": e.exec(identity, "ls", "/sys/class/net")[0].split()}


@case("networks/disconnect-only-one")
def _(e):
    name = e.network()
    identity = e.run(host={"NetworkMode": name})
    answer = e.post(f"/networks/{name}/disconnect", {"Container": identity})
    return observation(answer) | {"networks": e.inspect(identity)["NetworkSettings"]["Networks"], "links": e.exec(identity, "ls", "/sys/class/net")[0].split()}


@case("networks/disconnect-not-connected")
def _(e):
    name = e.network("suite-apart")
    identity = e.run(name="suite-apart-c", host={"NetworkMode": "bridge"})
    return e.says("POST", f"/networks/{name}/disconnect", {"Container": identity})


@case("networks/disconnect-not-connected-force")
def _(e):
    name = e.network("suite-apart")
    identity = e.run(name="suite-apart-c", host={"NetworkMode": "bridge"})
    return e.says("POST", f"/networks/{name}/disconnect", {"Container": identity, "Force": True})


@case("networks/disconnect-stopped")
def _(e):
    name = e.network("suite-stopped")
    identity = e.create(host={"NetworkMode": name})
    answer = e.post(f"/networks/{name}/disconnect", {"Container": identity})
    return observation(answer) | {"networks": plain(sorted(e.inspect(identity)["NetworkSettings"]["Networks"]))}


@case("networks/disconnect-host")
def _(e):
    identity = e.run(host={"NetworkMode": "host"})
    return e.says("POST", "/networks/host/disconnect", {"Container": identity})


@case("networks/stays-connected-over-restart")
def _(e):
    name = e.network("suite-stays")
    identity = e.run(host={"NetworkMode": "bridge"})
    e.must("POST", f"/networks/{name}/connect", {"Container": identity})
    e.must("POST", f"/containers/{identity}/restart?t=0")
    return [sorted(e.inspect(identity)["NetworkSettings"]["Networks"]), e.exec(identity, "ls", "/sys/class/net")[0].split()]


for query, expected in (({"name": ["suite-find"]}, 2), ({"name": ["suite-find-a"]}, 1), ({"label": ["suite.net"]}, 1), ({"label": ["suite.net=1"]}, 1), ({"label": ["suite.net=2"]}, 0), ({"driver": ["bridge"], "name": ["suite-find"]}, 2), ({"driver": ["host"], "name": ["suite-find"]}, 0), ({"type": ["custom"], "name": ["suite-find"]}, 2), ({"type": ["builtin"], "name": ["suite-find"]}, 0), ({"scope": ["local"], "name": ["suite-find"]}, 2), ({"scope": ["swarm"]}, 0), ({"dangling": ["true"], "name": ["suite-find"]}, 1), ({"dangling": ["false"], "name": ["suite-find"]}, 1)):
    @case("networks/list-by-" + "-".join(f"{key}-{value[0]}" for key, value in query.items()))
    def _(e, query=query):
        e.network("suite-find-a", Labels={"suite.net": "1"})
        busy = e.network("suite-find-b")
        if "dangling" in query:
            e.run(host={"NetworkMode": busy})
        return len(e.get("/networks", filters=query).json)


@case("networks/prune")
def _(e):
    e.network("suite-prune-n1", Labels={"suite.prune": "1"})
    busy = e.network("suite-prune-n2", Labels={"suite.prune": "1"})
    e.network("suite-prune-n3", Labels={"suite.prune": "2"})
    e.run(host={"NetworkMode": busy})
    gone = e.post("/networks/prune", filters={"label": ["suite.prune=1"]})
    return {"gone": gone.json, "left": [e.get(f"/networks/suite-prune-n{index}").status for index in (1, 2, 3)]}


@case("networks/prune-nothing")
def _(e):
    return e.post("/networks/prune", filters={"label": ["suite.nothing"]}).json


@case("networks/prune-until")
def _(e):
    e.network("suite-prune-n4", Labels={"suite.until": "1"})
    return [e.post("/networks/prune", filters={"label": ["suite.until"], "until": ["1h"]}).json, e.get("/networks/suite-prune-n4").status]


# --- files

@case("networks/hosts-file")
def _(e):
    name = e.network(IPAM={"Config": [{"Subnet": "10.77.9.0/24"}]})
    text = e.output("cat", "/etc/hosts", host={"NetworkMode": name, "ExtraHosts": ["extra:1.2.3.4", "v6:::1"]}, Hostname="me", Domainname="example.org")
    return [line.split() for line in text.splitlines()]


@case("networks/hosts-file-without-network")
def _(e):
    return [line.split() for line in e.output("cat", "/etc/hosts", Hostname="me").splitlines()]


@case("networks/host-gateway")
def _(e):
    text = e.output("cat", "/etc/hosts", host={"NetworkMode": "bridge", "ExtraHosts": ["there:host-gateway"]})
    return [line.split()[1] for line in text.splitlines() if "there" in line]


@case("networks/extra-hosts-bad")
def _(e):
    return e.says("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"ExtraHosts": ["nonsense"]}})


@case("networks/extra-hosts-bad-address")
def _(e):
    return e.says("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"ExtraHosts": ["a:nonsense"]}})


@case("networks/resolv-conf-of-a-user-network")
def _(e):
    name = e.network()
    text = e.output("cat", "/etc/resolv.conf", host={"NetworkMode": name, "DnsSearch": ["example.org"], "DnsOptions": ["timeout:3"]})
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@case("networks/resolv-conf-dns-on-the-bridge")
def _(e):
    text = e.output("cat", "/etc/resolv.conf", host={"NetworkMode": "bridge", "Dns": ["9.9.9.9", "8.8.8.8"], "DnsSearch": ["a.example", "b.example"]})
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@case("networks/dns-bad")
def _(e):
    return e.says("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Dns": ["nonsense"]}})


@case("networks/hostname-file")
def _(e):
    return e.output("sh", "-c", "cat /etc/hostname; hostname", Hostname="my-name")


@case("networks/hostname-default-is-the-short-id")
def _(e):
    identity, _ = e.ran("hostname")
    return e.logs(identity)[0][1].decode().strip() == identity[:12]


# --- ports

requests(
    "ports",
    ("bad-number", "POST", "/containers/create", {"Image": "busybox", "ExposedPorts": {"nonsense/tcp": {}}}),
    ("bad-protocol", "POST", "/containers/create", {"Image": "busybox", "ExposedPorts": {"80/nonsense": {}}}),
    ("too-large", "POST", "/containers/create", {"Image": "busybox", "ExposedPorts": {"70000/tcp": {}}}),
    ("bad-binding", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "nonsense"}]}}}),
    ("binding-too-large", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "70000"}]}}}),
    ("binding-of-nonsense", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"PortBindings": {"nonsense": [{"HostPort": "80"}]}}}),
    ("bindings-not-a-list", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": "x"}}}),
)


def ports_of(e, identity):
    found = e.inspect(identity)["NetworkSettings"]["Ports"]
    return {port: None if bound is None else sorted({("v6" if ":" in one["HostIp"] else one["HostIp"], one["HostPort"] if int(one["HostPort"]) < 32768 else "random") for one in bound}) for port, bound in found.items()}


@case("ports/published")
def _(e):
    identity = e.run(ExposedPorts={"80/tcp": {}}, host={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28080"}]}})
    return plain(ports_of(e, identity))


@case("ports/published-udp")
def _(e):
    identity = e.run(host={"NetworkMode": "bridge", "PortBindings": {"53/udp": [{"HostIp": "127.0.0.1", "HostPort": "28053"}]}})
    return plain(ports_of(e, identity))


@case("ports/tcp-and-udp-of-one-number")
def _(e):
    bound = [{"HostIp": "127.0.0.1", "HostPort": "28054"}]
    identity = e.run(host={"NetworkMode": "bridge", "PortBindings": {"53/udp": bound, "53/tcp": bound}})
    return plain(ports_of(e, identity))


@case("ports/random")
def _(e):
    identity = e.run(host={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}})
    return plain(ports_of(e, identity))


@case("ports/random-zero")
def _(e):
    identity = e.run(host={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}})
    return plain(ports_of(e, identity))


@case("ports/range-of-the-host")
def _(e):
    bound = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28100-28105"}]}
    first = e.run(host={"NetworkMode": "bridge", "PortBindings": bound})
    second = e.run(host={"NetworkMode": "bridge", "PortBindings": bound})
    return plain([ports_of(e, first), ports_of(e, second)])


@case("ports/several-bindings-of-one-port")
def _(e):
    identity = e.run(host={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28201"}, {"HostIp": "127.0.0.1", "HostPort": "28202"}]}})
    return plain(ports_of(e, identity))


@case("ports/exposed-only")
def _(e):
    identity = e.run(ExposedPorts={"80/tcp": {}, "81/udp": {}}, host={"NetworkMode": "bridge"})
    return plain(ports_of(e, identity))


@case("ports/publish-all")
def _(e):
    identity = e.run(ExposedPorts={"80/tcp": {}, "81/udp": {}}, host={"NetworkMode": "bridge", "PublishAllPorts": True})
    return {port: len(bound) > 0 and bound[0][1] for port, bound in ports_of(e, identity).items()}


@case("ports/taken")
def _(e):
    bound = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28300"}]}
    e.run(host={"NetworkMode": "bridge", "PortBindings": bound})
    second = e.create(name="suite-taken", host={"NetworkMode": "bridge", "PortBindings": bound})
    answer = e.post(f"/containers/{second}/start")
    state = e.inspect(second)["State"]
    return {"status": answer.status, "allocated": "Bind for 127.0.0.1:28300 failed: port is already allocated" in answer.body.decode(), "state": state["Status"], "code": state["ExitCode"]}


@case("ports/taken-message")
def _(e):
    bound = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28301"}]}
    e.run(host={"NetworkMode": "bridge", "PortBindings": bound})
    second = e.create(name="suite-taken", host={"NetworkMode": "bridge", "PortBindings": bound})
    return e.says("POST", f"/containers/{second}/start")


@case("ports/free-again")
def _(e):
    bound = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28302"}]}
    first = e.run(host={"NetworkMode": "bridge", "PortBindings": bound})
    e.must("DELETE", f"/containers/{first}?force=1")
    second = e.create(host={"NetworkMode": "bridge", "PortBindings": bound})
    return e.post(f"/containers/{second}/start").status


@case("ports/in-the-list")
def _(e):
    identity = e.run(ExposedPorts={"81/tcp": {}}, host={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28303"}]}})
    listed = e.get("/containers/json", filters={"id": [identity]}).json[0]["Ports"]
    return sorted(listed, key=lambda port: port["PrivatePort"])


@case("ports/of-a-stopped-container")
def _(e):
    identity = e.create(ExposedPorts={"80/tcp": {}}, host={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28304"}]}})
    return {"ports": e.inspect(identity)["NetworkSettings"]["Ports"], "bindings": e.inspect(identity)["HostConfig"]["PortBindings"], "listed": e.get("/containers/json?all=1", filters={"id": [identity]}).json[0]["Ports"]}


@case("ports/answer-inside")
def _(e):
    e.run("sh", "-c", "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www", host={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28305"}]}})
    return e.output("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://127.0.0.1:28305/ && break; sleep 0.2; done", host={"NetworkMode": "host"})


@case("ports/none-with-host-mode")
def _(e):
    answer = e.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "9"], "HostConfig": {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "28306"}]}}})
    e.later("DELETE", f"/containers/{answer.json['Id']}?force=1")
    return {"status": answer.status, "warnings": answer.json["Warnings"]}


@case("ports/on-an-internal-network")
def _(e):
    name = e.network(Internal=True)
    identity = e.run(host={"NetworkMode": name, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28307"}]}})
    return ports_of(e, identity)
