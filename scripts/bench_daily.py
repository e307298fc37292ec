"""What people do each day, measured on one engine: containers, logs, copies, ports, compose projects, builds. Part of scripts/bench."""

import http.client
import os
import subprocess
import tempfile
import time
from pathlib import Path

from reference_engine import run

BIG = 128  # MiB of what is copied and downloaded
LOGGED = 16  # MiB, in lines of 64 bytes
LINE = "0123456789" * 6 + "abc"  # with its line end 64 bytes
REQUESTS = 200
PROJECT = """
services:
  data: {image: busybox, command: sleep 1000, init: true, networks: [back], volumes: ["kept:/kept"]}
  work: {image: busybox, command: sleep 1000, init: true, networks: [back], depends_on: [data], environment: {MODE: work}}
  web: {image: busybox, command: sleep 1000, init: true, networks: [back, front], depends_on: [work], ports: ["127.0.0.1::80"]}
  side: {image: busybox, command: sleep 1000, init: true, networks: [front], depends_on: [web]}
networks: {back: {}, front: {}}
volumes: {kept: {}}
"""
DOCKERFILE = """
FROM busybox
ARG GREETING=hello
COPY files /files
RUN cat /files/* | wc -c > /size
RUN echo $GREETING > /greeting
WORKDIR /work
RUN touch a b c
CMD ["cat", "/greeting"]
"""


def seconds(action):
    start = time.monotonic()
    action()
    return time.monotonic() - start


def list_of(count):
    return f"ps -a of {count} containers [s]"


class Daily:
    """The measures of one side; each gives what it is called and its samples."""

    def __init__(self, side, rounds, images):
        self.side, self.rounds, self.few, self.images = side, rounds, max(1, min(3, rounds)), images

    def docker(self, *words, **options):
        return run(["docker", *map(str, words)], env=self.side.env, **options)

    def times(self, count, action):
        return [seconds(action) for _ in range(count)]

    def start_and_stop(self):
        self.docker("create", "--name", "often", "--init", "busybox", "sleep", "1000")
        starts, stops = [], []
        for _ in range(self.rounds):
            starts.append(seconds(lambda: self.docker("start", "often")))
            stops.append(seconds(lambda: self.docker("stop", "often")))
        self.docker("rm", "-f", "often")
        yield "start of a container [s]", starts
        yield "stop of one that obeys [s]", stops

    def lists(self):
        """The engine's answer, not the client's start: what grows with the containers."""
        made = 0
        for count in self.side.lists:
            for number in range(made, count):
                self.docker("create", "--name", f"listed-{number}", "--label", f"number={number}", "busybox", "true")
            made = count
            yield list_of(count), self.times(self.rounds, lambda: self.docker("ps", "-a"))
        self.docker("container", "prune", "-f", timeout=900)

    def logs(self):
        lines = LOGGED * (1 << 20) // 64
        with open(os.devnull, "w") as nowhere:
            write = ["docker", "run", "--name", "talker", "busybox", "sh", "-c", f"yes {LINE} | head -n {lines}"]
            wrote = seconds(lambda: subprocess.run(write, env=self.side.env, stdout=nowhere, check=True))
            read = ["docker", "logs", "talker"]
            reads = self.times(self.few, lambda: subprocess.run(read, env=self.side.env, stdout=nowhere, check=True))
        self.docker("rm", "talker")
        yield f"run that prints {LOGGED} MB, attached [s]", [wrote]
        yield f"logs of {LOGGED} MB [s]", reads

    def copies(self):
        with tempfile.TemporaryDirectory() as folder:
            there, back = Path(folder, "there"), Path(folder, "back")
            there.write_bytes(os.urandom(BIG << 20))
            self.docker("run", "-d", "--name", "copied", "--init", "busybox", "sleep", "1000")
            into = self.times(self.few, lambda: self.docker("cp", there, "copied:/there"))
            out = self.times(self.few, lambda: self.docker("cp", "copied:/there", back))
            assert back.read_bytes() == there.read_bytes(), "what came back is another file"
            self.docker("rm", "-f", "copied")
        yield f"cp of {BIG} MB into a container [s]", into
        yield f"cp of {BIG} MB out of one [s]", out

    def port(self):
        """A published port from the host: ours through the channel, the reference's through QEMU's user network, its only way."""
        self.docker("load", "-q", "-i", self.images / "nginx.tar")
        self.docker("run", "-d", "--name", "web", "-p", f"{self.side.publish}:80", "nginx")
        with tempfile.TemporaryDirectory() as folder:
            for name, size in (("big", BIG << 20), ("small", 6)):
                Path(folder, name).write_bytes(bytes(size))
                self.docker("cp", Path(folder, name), "web:/usr/share/nginx/html/")
        self.wait_for_web()

        def get(path, count):
            connection = http.client.HTTPConnection("127.0.0.1", self.side.web, timeout=120)
            for _ in range(count):
                connection.request("GET", path)
                answer, size = connection.getresponse(), 0
                while part := answer.read(1 << 20):
                    size += len(part)
                assert answer.status == 200 and size, f"{path}: {answer.status}, {size} bytes"
            connection.close()

        def connections():
            for _ in range(REQUESTS):
                get("/small", 1)

        yield f"{BIG} MB from a published port [s]", self.times(self.few, lambda: get("/big", 1))
        yield "request on a kept connection [ms]", [1000 * value / REQUESTS for value in self.times(self.few, lambda: get("/small", REQUESTS))]
        yield "request on a new connection [ms]", [1000 * value / REQUESTS for value in self.times(self.few, connections)]
        self.docker("rm", "-f", "web")

    def wait_for_web(self):
        deadline = time.monotonic() + 60
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.side.web, timeout=10)
            try:
                connection.request("GET", "/small")
                return connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            finally:
                connection.close()

    def compose(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "compose.yaml")
            file.write_text(PROJECT)
            project = ["compose", "--progress", "quiet", "-p", "bench", "-f", file]
            ups, downs = [], []
            for _ in range(self.few):
                ups.append(seconds(lambda: self.docker(*project, "up", "-d")))
                downs.append(seconds(lambda: self.docker(*project, "down", "-v")))
        yield "compose up -d, four services [s]", ups
        yield "compose down -v [s]", downs

    def build(self):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "Dockerfile").write_text(DOCKERFILE)
            files = Path(folder, "files")
            files.mkdir()
            for number in range(500):
                (files / f"file-{number}").write_text(LINE * 20)
            self.side.env["DOCKER_BUILDKIT"] = "0"
            full = self.times(self.few, lambda: self.docker("build", "-q", "--no-cache", "-t", "built", folder))
            cached = self.times(self.few, lambda: self.docker("build", "-q", "-t", "built", folder))
            del self.side.env["DOCKER_BUILDKIT"]
        self.docker("rmi", "-f", "built")
        yield "classic build, 500 files, three RUNs [s]", full
        yield "the same from the cache [s]", cached

    ALL = {"daily": start_and_stop, "lists": lists, "logs": logs, "cp": copies, "port": port, "compose": compose, "build": build}
