"""Many clients at once: load.py IMAGE CLIENTS [storm], with DOCKER_HOST set, until standard input ends.

Each client keeps two containers alive all the time and goes through scenarios beside them. Prints what was done; fails at the first
wrong answer. In a storm (somebody kills the engine's processes meanwhile) a connection may break, and answers may be 5xx: then the
request is made again. What was acknowledged must be true all the same, and no answer may stay out.
"""

import builtins
import io
import json
import os
import random
import socket
import sys
import tarfile
import threading
import time
from collections import Counter, defaultdict

import docker
from docker.errors import APIError, NotFound
from requests.exceptions import ChunkedEncodingError, ConnectionError

IMAGE, CLIENTS, STORM = sys.argv[1], int(sys.argv[2]), "storm" in sys.argv[3:]
# Seconds after which an answer counts as never coming; a hundred clients on two emulated CPUs wait for one another.
HANG = 300
DONE, BROKEN, WRONG = Counter(), Counter(), []
OVER = threading.Event()
# Containers that exist or existed, by id: whether they were started.
MADE = {}
EVENTS = defaultdict(Counter)
SLOWEST = [0.0, ""]


def check(what, fine, *more):
    if not fine:
        raise AssertionError(f"{what}: {more}")


def insist(what, call):
    """The answer to a request that may be made twice."""
    while True:
        begun = time.monotonic()
        try:
            return call()
        except (ConnectionError, ChunkedEncodingError, APIError) as error:
            away = not isinstance(error, APIError) or error.response.status_code >= 500
            if not (STORM and away):
                raise
            BROKEN[what] += 1
            time.sleep(0.05)  # nobody may be there yet who would serve the socket
        finally:
            SLOWEST[:] = max(SLOWEST, [time.monotonic() - begun, what])


def made(create, find):
    """What `create` makes or, where its name is taken in a storm, what a request made whose answer was lost. That one may still be
    under way, or be taken back as nobody waits for it; a name that stays taken is wrong."""
    deadline = time.monotonic() + HANG
    while True:
        try:
            return create()
        except APIError as error:
            if not STORM or error.response.status_code != 409 or time.monotonic() > deadline:
                raise
        if found := find():
            return found
        time.sleep(0.2)


def found_or_none(find):
    try:
        return find()
    except NotFound:
        return None


def make(client, name, command, **options):
    """A container that is acknowledged."""

    def create():
        return made(
            lambda: client.containers.create(IMAGE, command, name=name, **options),
            lambda: found_or_none(lambda: client.containers.get(name)),
        )

    one = insist("create", create)
    MADE[one.id] = False
    return one


def start(one):
    asked = []

    def once():
        if asked:
            one.reload()
            if one.status != "created":
                return
        asked.append(True)
        one.start()

    insist("start", once)
    MADE[one.id] = True
    return one


def remove(one):
    def once():
        try:
            one.remove(force=True)
        except NotFound:
            check("removed by itself", STORM)

    insist("remove", once)


def run(client, name, script, **options):
    return start(make(client, name, ["sh", "-c", script], **options))


def execute(client, one, script):
    """A command in a container: exit code and raw output. By hand, since the SDK loses output that comes with the answer's head."""
    command = insist("exec create", lambda: client.api.exec_create(one.id, ["sh", "-c", script]))["Id"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(HANG)
        body = json.dumps({"Detach": False, "Tty": False})
        head = f"POST /v1.51/exec/{command}/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = b""
        try:
            connection.connect(os.environ["DOCKER_HOST"].removeprefix("unix://"))
            connection.sendall((head + body).encode())
            while part := connection.recv(65536):
                answer += part
        except (builtins.ConnectionError, FileNotFoundError):
            check("connection", STORM)
    head, _, output = answer.partition(b"\r\n\r\n")
    try:
        shown = insist("exec inspect", lambda: client.api.exec_inspect(command))
        while STORM and shown["Running"]:  # its stream broke before it ended
            time.sleep(0.2)
            shown = insist("exec inspect", lambda: client.api.exec_inspect(command))
    except NotFound:
        check("exec is forgotten", STORM)
        return None, b""
    return shown["ExitCode"], output


def counts(client, name):
    """A short-lived container: its output and exit code."""
    word = f"{name}-{random.random()}"
    one = run(client, name, f"echo {word}; echo {word} >&2; exit 5")
    status = insist("wait", lambda: one.wait(timeout=HANG)["StatusCode"])
    check("exit code", status == 5, status)
    for stream in "stdout", "stderr":
        wanted = {"stdout": stream == "stdout", "stderr": stream == "stderr"}
        log = insist("logs", lambda: one.logs(**wanted))
        # A start whose answer was lost may have been made again after the end.
        again = log.count(b"\n") if STORM else 1
        check(stream, log == f"{word}\n".encode() * again and again > 0, log)
    remove(one)


def execs(client, name):
    """A living one with commands inside, followed logs, and a violent end."""
    one = run(client, name, "echo up; exec sleep 1000")
    line = insist("follow", lambda: next(one.logs(stream=True, follow=True), None))
    check("followed log", line == b"up\n" or (STORM and line is None), line)
    for number in range(3):
        code, output = execute(client, one, f"echo {number}; exit {number}")
        wanted = b"\x01\0\0\0\0\0\0\x02" + f"{number}\n".encode()
        # One that a kill kept from starting has no code, or that of an unknown end, or that of a failed start.
        never = STORM and output != wanted and code in (None, 255, 128)
        check("exit code of a command", code == number or never, code, number)
        check("output of a command", output == wanted or STORM, output, wanted)
    insist("inspect", one.reload)
    check("state", one.status == "running", one.status)
    remove(one)


def files(client, name):
    """A file into a volume through a container that does not run, and back out of one that does."""
    insist("volume", lambda: client.volumes.create(name))
    one = make(client, name, ["sleep", "1000"], volumes={name: {"bind": "/data"}})
    content = random.randbytes(200_000)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo("file")
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))
    check("put", insist("put", lambda: one.put_archive("/data", buffer.getvalue())))
    start(one)
    archive = insist("get", lambda: b"".join(one.get_archive("/data/file")[0]))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        check("content", tar.extractfile("file").read() == content)
    remove(one)
    leave("volume rm", lambda: client.api.remove_volume(name))


def leave(what, call):
    """Removes what a lost answer may have removed already."""

    def once():
        try:
            call()
        except NotFound:
            check(what, STORM)

    insist(what, once)


def networks(client, name):
    """Two containers on a network of their own, a published port, and a name."""

    def create():
        return made(
            lambda: client.networks.create(name).id,
            lambda: next((network["Id"] for network in client.api.networks(names=[name])), None),
        )

    network = insist("network", create)
    one = start(make(client, name, ["sleep", "1000"], network=name, ports={"80/tcp": None}))
    insist("inspect", one.reload)
    check("port", one.ports["80/tcp"], one.ports)
    other = start(make(client, f"{name}-other", ["ping", "-c1", "-W30", name], network=name))
    status = insist("wait", lambda: other.wait(timeout=HANG)["StatusCode"])
    # Names are the daemon's to answer: they may be asked for while it is away.
    check("ping by name", status == 0 or STORM, status)
    remove(other)
    remove(one)
    leave("network rm", lambda: client.api.remove_network(network))


def looks(client, _):
    """Lists and descriptions while everything changes."""
    for one in insist("list", lambda: client.api.containers(all=True)):
        try:
            check("inspect", insist("inspect", lambda: client.api.inspect_container(one["Id"]))["Id"] == one["Id"])
        except NotFound:
            pass
    check("info", insist("info", client.info)["Images"] > 0)


def keep(client, name):
    """A container that lives as long as the load, with what must not change about it."""
    one = run(client, name, "i=0; while :; do echo $i; i=$((i+1)); sleep 10; done")
    insist("inspect", one.reload)
    return one, [one.attrs["State"][key] for key in ("Pid", "StartedAt")]


def still_there(one, before):
    insist("inspect", one.reload)
    now = [one.attrs["State"][key] for key in ("Pid", "StartedAt")]
    check("it lived on", one.status == "running" and now == before, one.attrs["State"], before)
    lines = insist("logs", one.logs).split()
    check("its lines", lines and lines == [b"%d" % number for number in range(len(lines))], lines)
    remove(one)


def client_loop(number, ready):
    try:
        client = docker.from_env(timeout=HANG, max_pool_size=2)
        kept = [keep(client, f"keep-{number}-{copy}") for copy in range(2)]
        ready.wait()
        count = 0
        while not (OVER.is_set() or WRONG):
            scenario = random.choice([counts, counts, execs, execs, files, networks, looks])
            count += 1
            scenario(client, f"load-{number}-{count}")
            DONE[scenario.__name__] += 1
        for one, before in kept:
            still_there(one, before)
        client.close()
    except Exception as error:  # noqa: BLE001 (every failure is the test's)
        ready.abort()
        WRONG.append(f"client {number}: {type(error).__name__}: {error}")


def follow_events(since):
    """All events on containers, over any number of connections: each goes on where the one before broke."""
    client = docker.from_env(timeout=None)
    wanted = {"type": "container", "event": ["create", "start", "die", "destroy"]}
    last = set()
    while True:
        try:
            for event in client.events(since=since, decode=True, filters=wanted):
                key = (event["timeNano"], event["id"], event["Action"])
                if key not in last:
                    EVENTS[event["id"]][event["Action"]] += 1
                time_nano = event["timeNano"]
                stamp = f"{time_nano // 10**9}.{time_nano % 10**9:09}"
                last = {key} if stamp != since else last | {key}
                since = stamp
        except (ConnectionError, ChunkedEncodingError, APIError):
            if not STORM:
                return
            BROKEN["events"] += 1
            time.sleep(0.05)


def check_events(client):
    """Each container was made, started, ended and removed once; in a storm a start whose answer was lost may have been made again."""
    last = run(client, "last", "true")
    remove(last)
    deadline = time.monotonic() + HANG
    while not EVENTS[last.id]["destroy"] and time.monotonic() < deadline:
        time.sleep(0.2)
    lost = []
    for number, (one, started) in enumerate(MADE.items()):
        for action in ["create", "destroy"] + ["start", "die"] * started:
            seen = EVENTS[one][action]
            if seen == 0:
                lost.append(f"{action} of container {number} of {len(MADE)}")
            again = STORM and action in ("start", "die")
            check("an event came twice", again or seen <= 1, one, EVENTS[one])
    check("events are lost", not lost, lost)


def main():
    watcher = docker.from_env(timeout=HANG)
    # From the beginning of the journal: the guest's clock may be behind ours.
    threading.Thread(target=follow_events, args=("1.000000000",), daemon=True).start()
    ready = threading.Barrier(CLIENTS + 1)
    threads = [threading.Thread(target=client_loop, args=(number, ready)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        ready.wait()
        print(f"{2 * CLIENTS} containers live", flush=True)
        sys.stdin.read()
    except threading.BrokenBarrierError:
        pass
    OVER.set()
    for thread in threads:
        thread.join()
    slow = f"slowest request {SLOWEST[0]:.1f} s ({SLOWEST[1]})"
    print(f"{sum(DONE.values())} scenarios: {dict(DONE)}; {len(MADE)} containers; broken {dict(BROKEN)}; {slow}", flush=True)
    check("; ".join(WRONG), not WRONG)
    check_events(watcher)


main()
