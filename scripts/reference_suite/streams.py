"""Logs, attach, exec: framings, connections that are taken over, terminals, resize."""

import time

from .case import case, requests
from .engine import frames, text_of
from .observe import observation, pick, plain, words


def said(found):
    return [[stream, data.decode(errors="replace")] for stream, data in found]


# --- logs

@case("logs/both-streams")
def _(e):
    answer = e.get(f"/containers/{e.shared()}/logs?stdout=1&stderr=1")
    found = dict(frames(answer.body))
    return {"status": answer.status, "type": answer.headers.get("content-type"), "out": found.get(1, b"").decode(), "err": found.get(2, b"").decode()}


@case("logs/only-one-stream")
def _(e):
    return [said(frames(e.get(f"/containers/{e.shared()}/logs?{kind}=1").body)) for kind in ("stdout", "stderr")]


@case("logs/neither")
def _(e):
    return e.says("GET", f"/containers/{e.shared()}/logs")


@case("logs/tty-is-raw")
def _(e):
    identity, _ = e.ran("echo", "raw", Tty=True)
    answer = e.get(f"/containers/{identity}/logs?stdout=1")
    return [answer.headers.get("content-type"), answer.body.decode()]


@case("logs/order-of-lines")
def _(e):
    identity, _ = e.ran("sh", "-c", "for i in 1 2 3 4 5; do echo $i; done")
    return said(e.logs(identity))


@case("logs/tail")
def _(e):
    identity, _ = e.ran("sh", "-c", "for i in 1 2 3 4 5; do echo $i; done")
    return {tail: text_of(e.logs(identity, tail=tail)).split() for tail in ("0", "2", "all", "100", "-1", "nonsense", "")}


@case("logs/timestamps")
def _(e):
    identity, _ = e.ran("echo", "stamped")
    text = text_of(e.logs(identity, timestamps=1))
    return [words(text), len(text.split()[0]), text.split()[0][-1]]


@case("logs/since-until")
def _(e):
    identity, _ = e.ran("sh", "-c", "echo a; sleep 1.1; echo b")
    first = text_of(e.logs(identity, timestamps=1)).split()[2]
    return {"since": text_of(e.logs(identity, since=first)).split(), "until": text_of(e.logs(identity, until=first)).split()[:1], "never": text_of(e.logs(identity, since="4000000000")), "old": text_of(e.logs(identity, since="1")).split()}


for label, query in (("since-bad", "since=nonsense"), ("until-bad", "until=nonsense"), ("follow-bad", "follow=nonsense&until=1")):
    @case(f"logs/{label}")
    def _(e, query=query):
        return {"status": e.get(f"/containers/{e.shared()}/logs?stdout=1&{query}").status}


@case("logs/follow-until-the-end")
def _(e):
    identity = e.run("sh", "-c", "echo first; sleep 1; echo second")
    return text_of(e.logs(identity, follow=1)).split()


@case("logs/follow-of-an-ended-one")
def _(e):
    identity, _ = e.ran("echo", "done")
    return text_of(e.logs(identity, follow=1))


@case("logs/without-line-end")
def _(e):
    identity, _ = e.ran("printf", "no end")
    return said(e.logs(identity))


@case("logs/long-line")
def _(e):
    identity, _ = e.ran("sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo")
    return len(text_of(e.logs(identity)))


@case("logs/binary")
def _(e):
    identity, _ = e.ran("printf", "a\\000b\\377\\n")
    return [list(data) for _, data in e.logs(identity)]


@case("logs/details")
def _(e):
    identity, _ = e.ran("echo", "x", Labels={"l": "v"}, host={"NetworkMode": "none", "LogConfig": {"Type": "json-file", "Config": {"labels": "l"}}})
    return text_of(e.logs(identity, details=1))


@case("logs/of-a-created-one")
def _(e):
    answer = e.get(f"/containers/{e.create()}/logs?stdout=1")
    return [answer.status, len(answer.body)]


@case("logs/driver-none")
def _(e):
    identity, _ = e.ran("echo", "x", host={"NetworkMode": "none", "LogConfig": {"Type": "none"}})
    return e.says("GET", f"/containers/{identity}/logs?stdout=1")


@case("logs/driver-local")
def _(e):
    identity, _ = e.ran("sh", "-c", "echo out; echo err >&2", host={"NetworkMode": "none", "LogConfig": {"Type": "local"}})
    return sorted(said(e.logs(identity)))


@case("logs/over-a-restart")
def _(e):
    identity, _ = e.ran("echo", "again")
    e.must("POST", f"/containers/{identity}/start")
    e.post(f"/containers/{identity}/wait")
    return text_of(e.logs(identity)).split()


@case("logs/rotation")
def _(e):
    identity, _ = e.ran("sh", "-c", "for i in $(seq 300); do echo line-$i-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", host={"NetworkMode": "none", "LogConfig": {"Type": "json-file", "Config": {"max-size": "4k", "max-file": "2"}}})
    lines = text_of(e.logs(identity)).split()
    return [lines[-1], len(lines) < 150, lines == [f"line-{index}-{'x' * 40}" for index in range(301 - len(lines), 301)]]


# --- attach

def attach(e, identity, query="stream=1&stdout=1&stderr=1", **options):
    return e.open_hijack("POST", f"/containers/{identity}/attach?{query}", **options)


@case("attach/upgrade")
def _(e):
    identity = e.create(["sh", "-c", "echo out; echo err >&2"])
    stream = attach(e, identity)
    e.must("POST", f"/containers/{identity}/start")
    head = {"status": stream.status, **{name: stream.headers.get(name) for name in ("content-type", "connection", "upgrade")}}
    found = dict(frames(stream.finish(half_close=False).body))
    return head | {"out": found.get(1, b"").decode(), "err": found.get(2, b"").decode()}


@case("attach/without-upgrade")
def _(e):
    identity = e.create(["echo", "out"])
    stream = attach(e, identity, upgrade=False)
    e.must("POST", f"/containers/{identity}/start")
    return {"status": stream.status, "type": stream.headers.get("content-type"), "said": said(frames(stream.finish(half_close=False).body))}


@case("attach/tty")
def _(e):
    identity = e.create(["echo", "out"], Tty=True)
    stream = attach(e, identity)
    e.must("POST", f"/containers/{identity}/start")
    return {"status": stream.status, "type": stream.headers.get("content-type"), "said": stream.finish(half_close=False).body.decode()}


@case("attach/stdin-half-close")
def _(e):
    identity = e.create(["cat"], OpenStdin=True, StdinOnce=True, AttachStdin=True)
    stream = attach(e, identity, "stream=1&stdin=1&stdout=1&stderr=1")
    e.must("POST", f"/containers/{identity}/start")
    return said(frames(stream.finish(b"one\ntwo\n").body))


@case("attach/large-input")
def _(e):
    identity = e.create(["wc", "-c"], OpenStdin=True, StdinOnce=True, AttachStdin=True)
    stream = attach(e, identity, "stream=1&stdin=1&stdout=1&stderr=1")
    e.must("POST", f"/containers/{identity}/start")
    return said(frames(stream.finish(b"x" * 1000000).body))


@case("attach/logs-first")
def _(e):
    identity, _ = e.ran("echo", "earlier")
    return said(frames(attach(e, identity, "logs=1&stdout=1&stderr=1").finish(half_close=False, seconds=5).body))


@case("attach/logs-and-stream")
def _(e):
    identity = e.run("sh", "-c", "echo earlier; sleep 2; echo later")
    time.sleep(0.5)
    return text_of(frames(attach(e, identity, "logs=1&stream=1&stdout=1").finish(half_close=False).body)).split()


@case("attach/only-stderr")
def _(e):
    identity = e.create(["sh", "-c", "echo out; echo err >&2"])
    stream = attach(e, identity, "stream=1&stderr=1")
    e.must("POST", f"/containers/{identity}/start")
    return said(frames(stream.finish(half_close=False).body))


@case("attach/detach-keys")
def _(e):
    identity = e.create(["cat"], OpenStdin=True, Tty=True)
    stream = attach(e, identity, "stream=1&stdin=1&stdout=1&detachKeys=ctrl-a")
    e.must("POST", f"/containers/{identity}/start")
    stream.send(b"hi\n")
    stream.until(b"hi")
    rest = stream.finish(b"\x01", half_close=False, seconds=10).body.decode()
    return {"running": e.inspect(identity)["State"]["Running"], "read": "read escape sequence" in rest or "hi" in rest}


@case("attach/detach-keys-bad")
def _(e):
    return e.says("POST", f"/containers/{e.shared()}/attach?stream=1&stdout=1&detachKeys=nonsense")


@case("attach/not-running-without-stream")
def _(e):
    stream = attach(e, e.create(), "stdout=1")
    return {"status": stream.status, "body": len(stream.finish(half_close=False, seconds=5).body)}


@case("attach/paused")
def _(e):
    identity = e.run(name="suite-pa")
    e.must("POST", f"/containers/{identity}/pause")
    return e.says("POST", f"/containers/{identity}/attach?stream=1&stdout=1")


# --- exec

def made(e, *cmd, identity=None, **body):
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(cmd), **body}
    return e.must("POST", f"/containers/{identity or e.shared()}/exec", body).json["Id"]


@case("exec/create")
def _(e):
    answer = e.post(f"/containers/{e.shared()}/exec", {"Cmd": ["true"]})
    return observation(answer) | {"long": len(answer.json["Id"])}


for label, body in (("no-command", {}), ("empty-command", {"Cmd": []}), ("bad-json", "{"), ("bad-keys", {"Cmd": ["true"], "DetachKeys": "nonsense"}), ("bad-console-size", {"Cmd": ["true"], "ConsoleSize": [1]}), ("env-bad", {"Cmd": ["true"], "Env": [""]})):
    @case(f"exec/create-{label}")
    def _(e, body=body):
        return e.says("POST", f"/containers/{e.shared()}/exec", body)


@case("exec/create-not-running")
def _(e):
    return e.says("POST", f"/containers/{e.create(name='suite-noexec')}/exec", {"Cmd": ["true"]})


@case("exec/inspect-before-start")
def _(e):
    return plain(e.get(f"/exec/{made(e, 'sh', '-c', 'true')}/json").json)


@case("exec/inspect-after-end")
def _(e):
    identity = made(e, "sh", "-c", "exit 3")
    e.hijack("POST", f"/exec/{identity}/start", {})
    body = e.get(f"/exec/{identity}/json").json
    return pick(body, "Running", "ExitCode", "ProcessConfig", "OpenStdin", "OpenStdout", "OpenStderr", "CanRemove", "DetachKeys") | {"pid": body["Pid"] > 0}


@case("exec/output-upgraded")
def _(e):
    stream = e.open_hijack("POST", f"/exec/{made(e, 'sh', '-c', 'echo out; echo err >&2')}/start", {})
    head = {"status": stream.status, **{name: stream.headers.get(name) for name in ("content-type", "connection", "upgrade")}}
    found = dict(frames(stream.finish().body))
    return head | {"out": found.get(1, b"").decode(), "err": found.get(2, b"").decode()}


@case("exec/output-not-upgraded")
def _(e):
    stream = e.open_hijack("POST", f"/exec/{made(e, 'echo', 'out')}/start", {}, upgrade=False)
    return {"status": stream.status, "type": stream.headers.get("content-type"), "said": said(frames(stream.finish().body))}


@case("exec/tty")
def _(e):
    stream = e.open_hijack("POST", f"/exec/{made(e, 'sh', '-c', 'tty; echo $TERM', Tty=True)}/start", {"Tty": True})
    return {"status": stream.status, "type": stream.headers.get("content-type"), "said": stream.finish(half_close=False).body.decode()}


@case("exec/tty-size")
def _(e):
    stream = e.open_hijack("POST", f"/exec/{made(e, 'stty', 'size', Tty=True, ConsoleSize=[31, 77])}/start", {"Tty": True, "ConsoleSize": [31, 77]})
    return stream.finish(half_close=False).body.decode().split()


@case("exec/input")
def _(e):
    identity = made(e, "cat", AttachStdin=True)
    return said(frames(e.hijack("POST", f"/exec/{identity}/start", {}, send=b"through\n").body))


@case("exec/large-both-ways")
def _(e):
    identity = made(e, "sh", "-c", "cat | wc -c; head -c 300000 /dev/zero", AttachStdin=True)
    return len(text_of(frames(e.hijack("POST", f"/exec/{identity}/start", {}, send=b"y" * 300000).body)))


@case("exec/detached")
def _(e):
    identity = e.run()
    process = made(e, "sh", "-c", "echo x > /tmp/done", identity=identity)
    answer = e.post(f"/exec/{process}/start", {"Detach": True})
    for _ in range(50):
        if not e.get(f"/exec/{process}/json").json["Running"]:
            break
        time.sleep(0.1)
    return observation(answer) | {"there": e.exec(identity, "cat", "/tmp/done")}


@case("exec/start-twice")
def _(e):
    identity = made(e, "true")
    e.hijack("POST", f"/exec/{identity}/start", {})
    return e.says("POST", f"/exec/{identity}/start", {"Detach": True})


@case("exec/start-running-twice")
def _(e):
    identity = made(e, "sleep", "2")
    e.post(f"/exec/{identity}/start", {"Detach": True})
    return e.says("POST", f"/exec/{identity}/start", {"Detach": True})


@case("exec/not-found")
def _(e):
    identity = made(e, "nonsense-program")
    answer = e.hijack("POST", f"/exec/{identity}/start", {})
    return {"status": answer.status, "says": words(answer.body.decode(errors="replace")), "code": e.get(f"/exec/{identity}/json").json["ExitCode"]}


@case("exec/not-found-detached")
def _(e):
    identity = made(e, "nonsense-program")
    return e.says("POST", f"/exec/{identity}/start", {"Detach": True}) | {"code": e.get(f"/exec/{identity}/json").json["ExitCode"]}


@case("exec/not-executable")
def _(e):
    identity = made(e, "/etc/passwd")
    answer = e.hijack("POST", f"/exec/{identity}/start", {})
    return {"status": answer.status, "says": words(answer.body.decode(errors="replace")), "code": e.get(f"/exec/{identity}/json").json["ExitCode"]}


@case("exec/environment")
def _(e):
    text, _ = e.exec(e.shared(), "env", Env=["MORE=1", "GREETING=changed"])
    return sorted(line for line in text.splitlines() if not line.startswith("HOSTNAME"))


@case("exec/working-dir")
def _(e):
    return [e.exec(e.shared(), "pwd"), e.exec(e.shared(), "pwd", WorkingDir="/etc")]


@case("exec/working-dir-missing")
def _(e):
    identity = made(e, "pwd", WorkingDir="/nonsense")
    answer = e.hijack("POST", f"/exec/{identity}/start", {})
    return {"status": answer.status, "code": e.get(f"/exec/{identity}/json").json["ExitCode"]}


@case("exec/user")
def _(e):
    return [e.exec(e.shared(), "id", User=user) for user in ("daemon", "1000", "1000:33", "nobody:daemon")]


@case("exec/user-unknown")
def _(e):
    identity = made(e, "id", User="nonsense")
    answer = e.hijack("POST", f"/exec/{identity}/start", {})
    return {"status": answer.status, "says": words(answer.body.decode(errors="replace"))}


@case("exec/privileged")
def _(e):
    return [e.exec(e.shared(), "grep", "CapEff", "/proc/self/status", Privileged=value)[0].split()[1] for value in (False, True)]


@case("exec/exit-codes")
def _(e):
    return [e.exec(e.shared(), "sh", "-c", command)[1] for command in ("exit 0", "exit 42", "kill -9 $$", "kill -15 $$")]


@case("exec/resize")
def _(e):
    identity = made(e, "sh", "-c", "sleep 1.5; stty size", Tty=True)
    stream = e.open_hijack("POST", f"/exec/{identity}/start", {"Tty": True})
    time.sleep(0.5)
    answer = e.post(f"/exec/{identity}/resize?h=40&w=100")
    return observation(answer) | {"size": stream.finish(half_close=False).body.decode().split()}


for label, query in (("resize-bad", "h=x&w=1"), ("resize-missing", ""), ("resize-not-started", "h=1&w=1")):
    @case(f"exec/{label}")
    def _(e, query=query):
        return e.says("POST", f"/exec/{made(e, 'true')}/resize?{query}")


@case("exec/ids-in-inspect")
def _(e):
    identity = e.run()
    process = made(e, "sleep", "5", identity=identity)
    e.post(f"/exec/{process}/start", {"Detach": True})
    return e.inspect(identity)["ExecIDs"] == [process]


@case("exec/of-a-container-that-ended")
def _(e):
    identity = e.run()
    process = made(e, "true", identity=identity)
    e.post(f"/containers/{identity}/kill")
    e.post(f"/containers/{identity}/wait")
    return e.says("POST", f"/exec/{process}/start", {"Detach": True})


@case("resize/container")
def _(e):
    identity = e.create(["sh", "-c", "sleep 1.5; stty size"], Tty=True)
    stream = attach(e, identity)
    e.must("POST", f"/containers/{identity}/start")
    answer = e.post(f"/containers/{identity}/resize?h=50&w=132")
    return observation(answer) | {"size": stream.finish(half_close=False).body.decode().split()}


@case("resize/console-size-of-create")
def _(e):
    identity = e.create(["stty", "size"], Tty=True, host={"NetworkMode": "none", "ConsoleSize": [33, 99]})
    stream = attach(e, identity)
    e.must("POST", f"/containers/{identity}/start")
    return stream.finish(half_close=False).body.decode().split()


for label, query in (("bad", "h=x&w=1"), ("missing", ""), ("zero", "h=0&w=0")):
    @case(f"resize/{label}")
    def _(e, query=query):
        return e.says("POST", f"/containers/{e.shared()}/resize?{query}")


@case("resize/not-running")
def _(e):
    return e.says("POST", f"/containers/{e.create(Tty=True)}/resize?h=1&w=1")


requests("attach", ("websocket-plain-get", "GET", "/containers/suite-none/attach/ws?stream=1"))
