"""Testcontainers for Python, its reaper off: testcontainers_python.py REGISTRY, with DOCKER_HOST set. REGISTRY has busybox:1."""

import os
import sys
import urllib.request

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
# Where this itself runs in a container, Testcontainers would look for ports at a gateway.
os.environ["TESTCONTAINERS_HOST_OVERRIDE"] = "localhost"
os.environ["TESTCONTAINERS_CONNECTION_MODE"] = "docker_host"

from testcontainers.core.container import DockerContainer  # noqa: E402 (reads the environment)
from testcontainers.core.network import Network  # noqa: E402
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy  # noqa: E402

IMAGE = f"{sys.argv[1]}/busybox:1"
SERVE = "mkdir /www; echo served > /www/index.html; echo ready; exec httpd -f -p 8080 -h /www"


def web():
    """A server of its own port, waited for by its log, then by its answer."""
    return DockerContainer(IMAGE).with_command(["sh", "-c", SERVE]).with_exposed_ports(8080)


with web().waiting_for(HttpWaitStrategy(8080, "/").for_status_code(200)) as server:
    address = f"http://{server.get_container_host_ip()}:{server.get_exposed_port(8080)}/"
    assert urllib.request.urlopen(address, timeout=30).read() == b"served\n"
print("http: fine", flush=True)

with web().waiting_for(LogMessageWaitStrategy("ready")) as server:
    result = server.exec(["cat", "/www/index.html"])
    assert (result.exit_code, result.output) == (0, b"served\n"), result
    out, _ = server.get_logs()
    assert b"ready" in out
print("log: fine", flush=True)

with Network() as network:
    with web().with_network(network).with_network_aliases("web").waiting_for(LogMessageWaitStrategy("ready")):
        fetch = ["sh", "-c", "wget -q -O- http://web:8080/ && sleep 1000"]
        with DockerContainer(IMAGE).with_command(fetch).with_network(network).waiting_for(LogMessageWaitStrategy("served")):
            pass
print("network: fine", flush=True)
