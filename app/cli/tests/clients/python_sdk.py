"""Docker's SDK for Python against one engine: python_sdk.py REGISTRY, with DOCKER_HOST set. REGISTRY has busybox:1."""

import io
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

REGISTRY = sys.argv[1]
IMAGE = f"{REGISTRY}/busybox:1"


def images(client):
    told = client.images.get_registry_data(IMAGE)
    assert told.has_platform("linux/amd64"), told.attrs
    image = client.images.pull(f"{REGISTRY}/busybox", tag="1")
    assert IMAGE in image.tags and told.id in image.attrs["RepoDigests"][0]
    assert image.tag("sdk", tag="copy")
    image.reload()
    saved = b"".join(image.save(named="sdk:copy"))
    client.images.remove("sdk:copy")
    (loaded,) = client.images.load(saved)
    assert "sdk:copy" in loaded.tags, loaded.tags
    try:
        client.images.get("sdk:nothing")
        raise AssertionError("an image that is not there was found")
    except ImageNotFound:
        pass


def running(client):
    assert client.containers.run(IMAGE, "echo out", remove=True) == b"out\n"
    try:
        client.containers.run(IMAGE, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
        raise AssertionError("an exit code was lost")
    except ContainerError as error:
        assert error.exit_status == 3 and error.stderr == b"bad\n", error
    one = client.containers.run(IMAGE, ["sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.2; done"], detach=True)
    assert list(one.logs(stream=True, follow=True)) == [b"line 1\n", b"line 2\n", b"line 3\n"]
    assert one.wait()["StatusCode"] == 0
    one.remove()


def living(client):
    one = client.containers.run(IMAGE, "sleep 1000", detach=True, name="living", labels={"sdk": "1"}, mem_limit="64m")
    code, (out, err) = one.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (code, out, err) == (4, b"out\n", b"err\n")
    stats = one.stats(stream=False)
    assert stats["memory_stats"]["limit"] == 64 << 20, stats["memory_stats"]
    assert any("sleep" in row[-1] for row in one.top()["Processes"])
    assert [c.name for c in client.containers.list(filters={"label": "sdk=1"})] == ["living"]
    one.pause()
    one.reload()
    assert one.status == "paused"
    one.unpause()
    one.rename("renamed")
    try:
        client.containers.create(IMAGE, name="renamed")
        raise AssertionError("a name was given twice")
    except APIError as error:
        assert error.status_code == 409 and "already in use" in error.explanation
    one.stop(timeout=0)
    one.remove()
    try:
        one.reload()
        raise AssertionError("a removed container is still there")
    except NotFound:
        pass


def attached(client):
    one = client.containers.create(IMAGE, "cat", stdin_open=True, tty=False)
    socket = one.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    one.start()
    socket._sock.sendall(b"through the socket\n")
    socket._sock.shutdown(1)
    answer = b""
    while len(answer) < 8 + 19:
        answer += socket.read(64)
    assert answer == b"\1\0\0\0\0\0\0\x13through the socket\n", answer
    assert one.wait()["StatusCode"] == 0
    one.remove()


def events(client):
    seen, ended = [], threading.Event()
    stream = client.events(decode=True, filters={"container": "watched"})

    def watch():
        for event in stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                ended.set()
                return

    threading.Thread(target=watch, daemon=True).start()
    client.containers.run(IMAGE, "true", name="watched", remove=True)
    assert ended.wait(60), seen
    assert [action for action in seen if action != "attach"] == ["create", "start", "die", "destroy"], seen


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def files(client):
    client.volumes.create("kept", labels={"sdk": "1"})
    one = client.containers.create(IMAGE, "cat /data/file", volumes={"kept": {"bind": "/data", "mode": "rw"}})
    assert one.put_archive("/data", archive({"file": b"in a volume"}))
    one.start()
    one.wait()
    assert one.logs() == b"in a volume"
    stream, stat = one.get_archive("/data/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.extractfile("file").read() == b"in a volume" and stat["size"] == 11
    one.remove()
    assert [volume.name for volume in client.volumes.list(filters={"label": "sdk"})] == ["kept"]
    client.volumes.get("kept").remove()


def networks(client):
    network = client.networks.create("sdk-net", driver="bridge", labels={"sdk": "1"})
    server = client.containers.run(IMAGE, "sleep 1000", detach=True, name="server")
    network.connect(server, aliases=["service"])
    assert client.containers.run(IMAGE, "ping -c1 -W5 service", network="sdk-net", remove=True)
    network.reload()
    assert [c.name for c in network.containers] == ["server"]
    network.disconnect(server)
    server.remove(force=True)
    network.remove()


def building(client):
    with tempfile.TemporaryDirectory() as context:
        Path(context, "Dockerfile").write_text(f"FROM {IMAGE}\nARG WHO\nCOPY file /file\nRUN echo $WHO >> /file\nCMD cat /file\n")
        Path(context, "file").write_text("copied\n")
        image, log = client.images.build(path=context, tag="sdk:built", buildargs={"WHO": "me"}, rm=True)
        assert any("Step 5/5" in line.get("stream", "") for line in log)
        assert client.containers.run("sdk:built", remove=True) == b"copied\nme\n"
        Path(context, "Dockerfile").write_text(f"FROM {IMAGE}\nRUN exit 7\n")
        try:
            client.images.build(path=context, forcerm=True)
            raise AssertionError("a build that failed was reported as done")
        except docker.errors.BuildError as error:
            assert "returned a non-zero code: 7" in error.msg, error.msg
    image.tag(f"{REGISTRY}/built", tag="1")
    pushed = list(client.images.push(f"{REGISTRY}/built", tag="1", stream=True, decode=True))
    assert not any("error" in line for line in pushed), pushed


def main():
    client = docker.from_env(timeout=90)
    assert client.ping() and client.version()["ApiVersion"]
    for scenario in (images, running, living, attached, events, files, networks, building):
        scenario(client)
        print(f"{scenario.__name__}: fine", flush=True)


main()
