"""A stand-in for Testcontainers' reaper (testcontainers/ryuk), as no registry of images is at hand: it speaks the same protocol.

It listens on port 8080. Each line that a client sends is a query of Docker's filters (`label=KEY=VALUE&label=...`) and is answered with
`ACK`. When no client is connected any more, and none comes back within RYUK_RECONNECTION_TIMEOUT (`10s`), it removes what any of the filters
matches from the engine at /var/run/docker.sock (containers, networks, volumes, images) and ends.
"""

import http.client
import json
import os
import socket
import threading
import urllib.parse

ENGINE = "/var/run/docker.sock"
FIRST = 60.0


def seconds(text):
    """What a Go duration in whole seconds says."""
    return float(text.removesuffix("s"))


class Engine(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def __init__(self):
        super().__init__("docker")

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(ENGINE)


def ask(method, path):
    """One request; what its answer's JSON says, if any."""
    engine = Engine()
    engine.request(method, path)
    answer = engine.getresponse()
    body = answer.read()
    engine.close()
    if answer.status >= 400 and answer.status != 404:
        raise RuntimeError(f"{method} {path}: {answer.status} {body!r}")
    return json.loads(body) if body else None


class Clients:
    """Who is connected, and what they asked for."""

    def __init__(self):
        self.changed = threading.Condition()
        self.connected, self.filters = 0, set()

    def serve(self, stream):
        with stream, stream.makefile("rwb") as lines:
            for line in lines:
                with self.changed:
                    self.filters.add(line.decode().strip())
                lines.write(b"ACK\n")
                lines.flush()
        with self.changed:
            self.connected -= 1
            self.changed.notify()

    def accept(self, listener):
        while True:
            stream, _ = listener.accept()
            with self.changed:
                self.connected += 1
                self.changed.notify()
            threading.Thread(target=self.serve, args=[stream], daemon=True).start()

    def gone(self, patience):
        """Returns when nobody was connected for so many seconds, the first one having FIRST to come."""
        with self.changed:
            self.changed.wait_for(lambda: self.connected, FIRST)
            while True:
                self.changed.wait_for(lambda: not self.connected)
                if not self.changed.wait_for(lambda: self.connected, patience):
                    return


def remove(query):
    """Removes what matches a client's line, but for this container; the networks after their members."""
    filters = urllib.parse.quote(json.dumps(urllib.parse.parse_qs(query)))
    for container in ask("GET", f"/containers/json?all=1&filters={filters}"):
        if not container["Id"].startswith(socket.gethostname()):
            ask("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    for network in ask("GET", f"/networks?filters={filters}"):
        ask("DELETE", f"/networks/{network['Id']}")
    for volume in ask("GET", f"/volumes?filters={filters}")["Volumes"] or []:
        ask("DELETE", f"/volumes/{volume['Name']}?force=1")
    for image in ask("GET", f"/images/json?filters={filters}"):
        ask("DELETE", f"/images/{image['Id']}?force=1")


def main():
    clients = Clients()
    listener = socket.create_server(("", 8080))
    ask("GET", "/version")
    print("reaper: Started!", flush=True)
    threading.Thread(target=clients.accept, args=[listener], daemon=True).start()
    clients.gone(seconds(os.environ.get("RYUK_RECONNECTION_TIMEOUT", "10s")))
    for query in sorted(clients.filters):
        remove(query)


main()
