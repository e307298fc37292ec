"""A Docker socket as the cases see it: requests, streams that take the connection over, and things that are removed after the case."""

import http.client
import io
import json
import socket
import struct
import tarfile
import time
from urllib.parse import quote, urlencode

from .observe import observation

PATIENCE = 60  # seconds that one answer may take; emulation on a loaded machine is slow
VERSION = "v1.51"


class Connection(http.client.HTTPConnection):
    """HTTP over `unix://PATH` or `tcp://HOST:PORT`."""

    def __init__(self, address, timeout):
        super().__init__("docker", timeout=timeout)
        self.address = address

    def connect(self):
        kind, _, where = self.address.partition("://")
        if kind == "unix":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(where)
        else:
            host, _, port = where.rpartition(":")
            self.sock = socket.create_connection((host, int(port)), self.timeout)


class Response:
    """A whole answer: `status`, `headers` (lower case), `body` (bytes)."""

    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.headers = {name.lower(): value for name, value in headers}

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def lines(self):
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


class Wrong(Exception):
    """The engine did not do what the case needs."""


class Engine:
    def __init__(self, address, timeout=PATIENCE):
        self.address, self.timeout = address, timeout
        self.leftovers, self.session, self.count = [], {}, 0

    # --- requests

    def connection(self):
        return Connection(self.address, self.timeout)

    def call(self, method, path, body=None, headers=None, version=VERSION, **query):
        """`body`: an object is sent as JSON, bytes and text as they are; `query` values may be objects (filters)."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        elif isinstance(body, str):
            headers.setdefault("Content-Type", "application/json")
        connection = self.connection()
        try:
            connection.request(method, self.target(path, version, query), body=body, headers=headers)
            answer = connection.getresponse()
            return Response(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    @staticmethod
    def target(path, version, query):
        words = {name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in query.items()}
        prefix = f"/{version}" if version else ""
        return prefix + path + (("&" if "?" in path else "?") + urlencode(words) if words else "")

    def get(self, path, **query):
        return self.call("GET", path, **query)

    def post(self, path, body=None, **query):
        return self.call("POST", path, body, **query)

    def delete(self, path, **query):
        return self.call("DELETE", path, **query)

    def says(self, method, path, body=None, **options):
        """What a request is answered, as an observation: status, then message or shape."""
        answer = self.call(method, path, body, **options)
        if answer.status == 201 and path.endswith("/create"):
            made = answer.json.get("Id") or answer.json["Name"]
            self.later("DELETE", f"{path.removesuffix('/create')}/{made}?force=1&v=1")
        return observation(answer)

    def must(self, method, path, body=None, **options):
        answer = self.call(method, path, body, **options)
        if answer.status >= 400:
            raise Wrong(f"{method} {path}: {answer.status} {answer.body[:300].decode(errors='replace').strip()}")
        return answer

    def hijack(self, method, path, body=None, send=b"", half_close=True, upgrade=True, seconds=None, **query):
        """A request that takes the connection over: status, headers, and all that came until the end."""
        stream = self.open_hijack(method, path, body, upgrade, **query)
        return stream.finish(send, half_close, seconds)

    def open_hijack(self, method, path, body=None, upgrade=True, **query):
        connection = self.connection()
        connection.connect()
        text = json.dumps(body).encode() if body is not None else b""
        head = f"{method} {self.target(path, VERSION, query)} HTTP/1.1\r\nHost: docker\r\n"
        head += "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        connection.sock.sendall(head.encode() + text)
        return Stream(connection.sock)

    def stream(self, path, count, seconds=20, **query):
        """The first `count` JSON lines of a stream."""
        connection = self.connection()
        connection.timeout = seconds
        try:
            connection.request("GET", self.target(path, VERSION, query))
            answer = connection.getresponse()
            return [json.loads(answer.readline()) for _ in range(count)]
        finally:
            connection.close()

    # --- things

    def name(self, kind="c"):
        self.count += 1
        return f"suite-{kind}{self.count}"

    def later(self, method, path):
        self.leftovers.append((method, path))

    def clean(self):
        while self.leftovers:
            method, path = self.leftovers.pop()
            try:
                self.call(method, path)
            except (OSError, http.client.HTTPException):
                pass

    def create(self, cmd=("sleep", "1000"), name=None, start=False, **body):
        """A container of busybox, removed after the case; its id. Host settings go in `host`, networking in `networking`."""
        image = body.pop("Image", "busybox")
        if "host" in body:
            body["HostConfig"] = body.pop("host")
        if "networking" in body:
            body["NetworkingConfig"] = {"EndpointsConfig": body.pop("networking")}
        body.setdefault("HostConfig", {}).setdefault("NetworkMode", "none")
        name = name or self.name()
        answer = self.must("POST", "/containers/create", {"Image": image, "Cmd": list(cmd), **body}, name=name)
        identity = answer.json["Id"]
        self.later("DELETE", f"/containers/{identity}?force=1&v=1")
        if start:
            self.must("POST", f"/containers/{identity}/start")
        return identity

    def run(self, *cmd, **body):
        """A container that is running."""
        return self.create(cmd or ("sleep", "1000"), start=True, **body)

    def ran(self, *cmd, **body):
        """A container that has ended: (id, exit code)."""
        identity = self.create(cmd, **body)
        waiting = self.connection()
        waiting.request("POST", self.target(f"/containers/{identity}/wait", VERSION, {"condition": "next-exit"}))
        self.must("POST", f"/containers/{identity}/start")
        code = json.loads(waiting.getresponse().read())["StatusCode"]
        waiting.close()
        return identity, code

    def output(self, *cmd, **body):
        """What a container of its own writes, both streams."""
        identity, _ = self.ran(*cmd, **body)
        return text_of(self.logs(identity))

    def logs(self, identity, **query):
        query = {"stdout": 1, "stderr": 1, **query}
        return frames(self.get(f"/containers/{identity}/logs", **query).body)

    def inspect(self, identity):
        return self.must("GET", f"/containers/{identity}/json").json

    def exec(self, identity, *cmd, send=b"", **body):
        """Runs in a container: (output of both streams, exit code)."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(cmd), **body}
        made = self.must("POST", f"/containers/{identity}/exec", body).json["Id"]
        got = self.hijack("POST", f"/exec/{made}/start", {"Detach": False, "Tty": body.get("Tty", False)}, send=send)
        code = self.must("GET", f"/exec/{made}/json").json["ExitCode"]
        output = got.body if body.get("Tty") else b"".join(data for _, data in frames(got.body))
        return output.decode(errors="replace"), code

    def network(self, name=None, **body):
        name = name or self.name("n")
        answer = self.must("POST", "/networks/create", {"Name": name, **body})
        self.later("DELETE", f"/networks/{answer.json['Id']}")
        return name

    def volume(self, name=None, **body):
        name = name or self.name("v")
        self.must("POST", "/volumes/create", {"Name": name, **body})
        self.later("DELETE", f"/volumes/{name}?force=1")
        return name

    def shared(self):
        """A running container that the cases of one session share: they may look and exec, not change it."""
        if "shared" not in self.session:
            self.call("DELETE", "/containers/suite-shared?force=1")
            body = {
                "Image": "busybox", "Cmd": ["sh", "-c", "echo out; echo err >&2; exec sleep 100000"], "Env": ["GREETING=hello"],
                "Labels": {"suite": "shared"}, "WorkingDir": "/tmp", "HostConfig": {"NetworkMode": "bridge"},
            }
            self.must("POST", "/containers/create", body, name="suite-shared")
            self.must("POST", "/containers/suite-shared/start")
            self.session["shared"] = "suite-shared"
        return self.session["shared"]

    def end(self):
        if self.session.pop("shared", None):
            self.call("DELETE", "/containers/suite-shared?force=1&v=1")

    def events(self, since, until=None, **filters):
        """Events that have happened, oldest first."""
        until = until or self.now() + 0.000001
        query = {"since": f"{since:.9f}", "until": f"{until:.9f}"}
        if filters:
            query["filters"] = {name: value if isinstance(value, list) else [value] for name, value in filters.items()}
        return self.get("/events", **query).lines

    def now(self):
        """The guest's clock, in seconds; the host's may differ."""
        text = self.get("/info").json["SystemTime"]
        whole, _, fraction = text.rstrip("Z").partition(".")
        whole = whole.split("+")[0]
        return calendar_seconds(whole) + float("0." + (fraction.split("+")[0].split("-")[0] or "0"))


def calendar_seconds(text):
    import calendar
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


class Stream:
    """A connection that was taken over."""

    def __init__(self, sock):
        self.sock, self.rest = sock, b""
        head = b""
        while b"\r\n\r\n" not in head:
            more = sock.recv(65536)
            if not more:
                break
            head += more
        head, _, self.rest = head.partition(b"\r\n\r\n")
        lines = head.decode(errors="replace").split("\r\n")
        self.status = int(lines[0].split()[1]) if lines and len(lines[0].split()) > 1 else 0
        self.headers = {line.partition(":")[0].strip().lower(): line.partition(":")[2].strip() for line in lines[1:]}

    def send(self, data):
        self.sock.sendall(data)

    def until(self, wanted, seconds=20):
        """Reads until the bytes are there; all so far."""
        self.sock.settimeout(seconds)
        while wanted not in self.rest:
            more = self.sock.recv(65536)
            if not more:
                break
            self.rest += more
        return self.rest

    def finish(self, send=b"", half_close=True, seconds=None):
        if seconds:
            self.sock.settimeout(seconds)
        length = self.headers.get("content-length")
        body = self.rest
        try:
            if send:
                self.sock.sendall(send)
            if half_close and length is None:
                self.sock.shutdown(socket.SHUT_WR)
            while length is None or len(body) < int(length):
                more = self.sock.recv(65536)
                if not more:
                    break
                body += more
        except (TimeoutError, ConnectionError, BrokenPipeError):
            pass
        self.sock.close()
        if self.headers.get("transfer-encoding") == "chunked":
            body = unchunk(body)
        answer = Response(self.status, self.headers.items(), body)
        return answer

    def close(self):
        self.sock.close()


def unchunk(body):
    whole, at = b"", 0
    while at < len(body):
        end = body.find(b"\r\n", at)
        size = int(body[at:end] or b"0", 16)
        if size == 0:
            break
        whole += body[end + 2:end + 2 + size]
        at = end + 2 + size + 2
    return whole


def frames(body):
    """Docker's framing: [(stream, bytes)], streams of one kind that follow each other joined."""
    found, at = [], 0
    while at + 8 <= len(body):
        kind, size = body[at], struct.unpack(">I", body[at + 4:at + 8])[0]
        data = body[at + 8:at + 8 + size]
        if found and found[-1][0] == kind:
            found[-1] = (kind, found[-1][1] + data)
        else:
            found.append((kind, data))
        at += 8 + size
    return found


def text_of(found, kind=None):
    return b"".join(data for stream, data in found if kind in (None, stream)).decode(errors="replace")


def tar(**files):
    """An archive; names with `__` for `/`, values: text or bytes, None for a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/").replace("_dot_", "."))
            entry.mtime, entry.uid, entry.gid = 1700000000, 1000, 1000
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                data = content.encode() if isinstance(content, str) else content
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def members(body):
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return {member.name.rstrip("/"): (member.type.decode(), member.size) for member in archive.getmembers()}


def escaped(text):
    return quote(text, safe="")
