"""Images: list, inspect, history, tag, remove, save and load, import, commit, and what is refused."""

import json

from .case import case, requests
from .engine import members, tar
from .observe import observation, pick, plain, shape

requests(
    "images",
    ("inspect-unknown", "GET", "/images/nonsense/json"),
    ("inspect-unknown-tag", "GET", "/images/busybox:nonsense/json"),
    ("inspect-bad-name", "GET", "/images/B@d/json"),
    ("inspect-unknown-digest", "GET", "/images/sha256:" + "0" * 64 + "/json"),
    ("history-unknown", "GET", "/images/nonsense/history"),
    ("remove-unknown", "DELETE", "/images/nonsense"),
    ("remove-bad-name", "DELETE", "/images/B@d"),
    ("tag-unknown", "POST", "/images/nonsense/tag?repo=suite&tag=x"),
    ("tag-bad-repository", "POST", "/images/busybox/tag?repo=Suite&tag=x"),
    ("tag-bad-tag", "POST", "/images/busybox/tag?repo=suite&tag=b@d"),
    ("tag-no-repository", "POST", "/images/busybox/tag"),
    ("push-unknown", "POST", "/images/suite-nonsense/push", None, {"headers": {"X-Registry-Auth": "e30="}}),
    ("push-bad-name", "POST", "/images/B@d/push", None, {"headers": {"X-Registry-Auth": "e30="}}),
    ("save-unknown", "GET", "/images/nonsense/get"),
    ("save-several-unknown", "GET", "/images/get?names=nonsense"),
    ("create-nothing", "POST", "/images/create"),
    ("create-bad-name", "POST", "/images/create?fromImage=B@d"),
    ("create-bad-tag", "POST", "/images/create?fromImage=busybox&tag=b@d"),
    ("create-bad-platform", "POST", "/images/create?fromImage=busybox&platform=nonsense"),
    ("list-bad-filter", "GET", "/images/json", None, {"filters": {"nonsense": ["a"]}}),
    ("list-bad-dangling", "GET", "/images/json", None, {"filters": {"dangling": ["maybe"]}}),
    ("list-before-unknown", "GET", "/images/json", None, {"filters": {"before": ["nonsense"]}}),
    ("list-broken-filters", "GET", "/images/json", None, {"filters": "{"}),
    ("search-without-term", "GET", "/images/search"),
    ("search-bad-limit", "GET", "/images/search?term=x&limit=nonsense"),
    ("search-limit-too-large", "GET", "/images/search?term=x&limit=1000"),
    ("search-bad-filter", "GET", "/images/search", None, {"term": "x", "filters": {"nonsense": ["a"]}}),
    ("distribution-bad-name", "GET", "/distribution/B@d/json"),
    ("import-bad-change", "POST", "/images/create?fromSrc=-&repo=suite&changes=NONSENSE", tar(f="x"), {"headers": {"Content-Type": "application/x-tar"}}),
    ("commit-no-container", "POST", "/commit", {}),
    ("build-bad-remote", "POST", "/build?remote=nonsense"),
    ("build-no-context", "POST", "/build", b"", {"headers": {"Content-Type": "application/x-tar"}}),
    ("build-cancel", "POST", "/build/cancel?id=nonsense"),
    ("build-cancel-without-id", "POST", "/build/cancel"),
)


@case("images/list-shape")
def _(e):
    return shape(e.get("/images/json", filters={"reference": ["busybox"]}).json)


@case("images/list-with-manifests")
def _(e):
    return shape(e.get("/images/json?manifests=1", filters={"reference": ["busybox"]}).json)


@case("images/list-shared-size")
def _(e):
    return e.get("/images/json?shared-size=1", filters={"reference": ["busybox"]}).json[0]["SharedSize"] >= 0


@case("images/list-values")
def _(e):
    found = e.get("/images/json", filters={"reference": ["busybox:latest"]}).json[0]
    return pick(found, "RepoTags", "Labels", "ParentId", "SharedSize", "Containers") | {"size": found["Size"] > 1000000}


FILTERS = ({"reference": ["suite-img"]}, {"reference": ["suite-img:*"]}, {"reference": ["suite-*"]}, {"reference": ["suite-img:one"]}, {"reference": ["nonsense"]}, {"label": ["suite.img"]}, {"dangling": ["true"]}, {"since": ["suite-img:one"]})


@case("images/list-filters")
def _(e):
    for tag in ("one", "two"):
        e.must("POST", f"/images/busybox/tag?repo=suite-img&tag={tag}")
        e.later("DELETE", f"/images/suite-img:{tag}")
    seen = {}
    for filters in FILTERS:
        body = e.get("/images/json", filters=filters).json
        seen[json.dumps(filters)] = sorted(tag for one in body for tag in one["RepoTags"] or [] if tag.startswith("suite-img"))
    return seen


@case("images/inspect-shape")
def _(e):
    return {key: value for key, value in shape(e.get("/images/busybox/json").json).items() if key not in ("GraphDriver",)}


@case("images/inspect-config")
def _(e):
    return plain(e.get("/images/busybox/json").json["Config"])


@case("images/inspect-values")
def _(e):
    return pick(e.get("/images/busybox/json").json, "RepoTags", "Architecture", "Os", "Author", "Comment", "Parent", "RootFS.Type", "Descriptor.mediaType", "GraphDriver.Name")


@case("images/inspect-manifests")
def _(e):
    return {key: value for key, value in shape(e.get("/images/busybox/json?manifests=1").json).items() if key == "Manifests"}


@case("images/inspect-by-every-name")
def _(e):
    identity = e.get("/images/busybox/json").json["Id"]
    return [e.get(f"/images/{name}/json").status for name in (identity, identity[7:], identity[7:19], "busybox:latest", "docker.io/library/busybox", "library/busybox", "index.docker.io/library/busybox:latest")]


@case("images/history")
def _(e):
    body = e.get("/images/busybox/history").json
    return {"shape": shape(body), "tags": body[0]["Tags"], "long": len(body)}


@case("images/tag")
def _(e):
    answer = e.post("/images/busybox/tag?repo=suite-tagged&tag=v1")
    e.later("DELETE", "/images/suite-tagged:v1")
    return observation(answer) | {"there": "suite-tagged:v1" in e.get("/images/busybox/json").json["RepoTags"]}


@case("images/tag-moves")
def _(e):
    e.must("POST", "/images/busybox/tag?repo=suite-moved")
    e.later("DELETE", "/images/suite-moved")
    answer = e.post("/images/busybox/tag?repo=suite-moved")
    return observation(answer)


@case("images/untag")
def _(e):
    e.must("POST", "/images/busybox/tag?repo=suite-untag&tag=v1")
    answer = e.delete("/images/suite-untag:v1")
    return {"status": answer.status, "body": plain(answer.json), "stays": e.get("/images/busybox/json").status}


@case("images/remove-used-by-a-container")
def _(e):
    e.later("DELETE", "/images/suite-used?force=1")
    e.must("POST", "/images/create?fromSrc=-&repo=suite-used", tar(f="x"), headers={"Content-Type": "application/x-tar"})
    identity = e.post("/containers/create", {"Image": "suite-used", "Cmd": ["x"]}).json["Id"]
    e.later("DELETE", f"/containers/{identity}")
    return e.says("DELETE", "/images/suite-used")


@case("images/remove-by-id-with-several-tags")
def _(e):
    e.must("POST", "/images/create?fromSrc=-&repo=suite-multi&tag=a", tar(f="y"), headers={"Content-Type": "application/x-tar"})
    e.must("POST", "/images/suite-multi:a/tag?repo=suite-other&tag=b")
    for name in ("suite-multi:a", "suite-other:b"):
        e.later("DELETE", f"/images/{name}?force=1")
    identity = e.get("/images/suite-multi:a/json").json["Id"]
    return e.says("DELETE", f"/images/{identity}")


@case("images/remove")
def _(e):
    e.must("POST", "/images/create?fromSrc=-&repo=suite-gone", tar(f="z"), headers={"Content-Type": "application/x-tar"})
    answer = e.delete("/images/suite-gone")
    return {"status": answer.status, "keys": [sorted(entry) for entry in answer.json][:2], "after": e.get("/images/suite-gone/json").status}


@case("images/import")
def _(e):
    e.later("DELETE", "/images/suite-import:v1?force=1")
    answer = e.call("POST", "/images/create?fromSrc=-&repo=suite-import&tag=v1&message=hello&changes=CMD%20%5B%22x%22%5D", tar(f="w"), headers={"Content-Type": "application/x-tar"})
    body = e.get("/images/suite-import:v1/json").json
    return {"status": answer.status, "type": answer.headers.get("content-type"), "last": plain(answer.lines[-1]), "image": pick(body, "Config.Cmd", "Comment", "Os", "Architecture", "RepoTags")}


@case("images/save")
def _(e):
    answer = e.get("/images/busybox:latest/get")
    found = members(answer.body)
    return {"status": answer.status, "type": answer.headers.get("content-type"), "has": [name in found for name in ("oci-layout", "index.json", "manifest.json", "blobs/sha256")]}


@case("images/save-and-load")
def _(e):
    e.must("POST", "/images/create?fromSrc=-&repo=suite-saved&tag=v1", tar(f="saved"), headers={"Content-Type": "application/x-tar"})
    e.later("DELETE", "/images/suite-saved:v1?force=1")
    archive = e.get("/images/get?names=suite-saved:v1").body
    e.must("DELETE", "/images/suite-saved:v1?force=1")
    answer = e.call("POST", "/images/load", archive, headers={"Content-Type": "application/x-tar"})
    return {"status": answer.status, "type": answer.headers.get("content-type"), "last": plain(answer.lines[-1]), "there": e.get("/images/suite-saved:v1/json").status}


@case("images/load-quiet")
def _(e):
    archive = e.get("/images/busybox:latest/get").body
    answer = e.call("POST", "/images/load?quiet=1", archive, headers={"Content-Type": "application/x-tar"})
    return {"status": answer.status, "lines": plain(answer.lines)}


@case("images/load-nonsense")
def _(e):
    answer = e.call("POST", "/images/load", b"nonsense" * 200, headers={"Content-Type": "application/x-tar"})
    return {"status": answer.status, "error": "message" in answer.body.decode() or "error" in answer.body.decode()}


@case("images/pull-from-nobody")
def _(e):
    answer = e.post("/images/create?fromImage=localhost:1/suite/nothing&tag=latest")
    return {"status": answer.status, "refused": "connection refused" in answer.body.decode()}


@case("images/push-to-nobody")
def _(e):
    e.must("POST", "/images/busybox/tag?repo=localhost:1/suite&tag=x")
    e.later("DELETE", "/images/localhost:1/suite:x")
    answer = e.call("POST", "/images/localhost:1/suite/push?tag=x", headers={"X-Registry-Auth": "e30="})
    return {"status": answer.status, "first": plain(answer.lines[0].get("status", "")), "error": "connection refused" in answer.body.decode()}


@case("images/push-without-auth")
def _(e):
    e.must("POST", "/images/busybox/tag?repo=localhost:1/suite&tag=y")
    e.later("DELETE", "/images/localhost:1/suite:y")
    return {"status": e.post("/images/localhost:1/suite/push?tag=y").status}


@case("images/commit")
def _(e):
    identity, _ = e.ran("sh", "-c", "echo kept > /file")
    e.later("DELETE", "/images/suite-commit:v1?force=1")
    answer = e.post(f"/commit?container={identity}&repo=suite-commit&tag=v1&comment=hello&author=me&changes=ENV%20A%3Db", {})
    body = e.get("/images/suite-commit:v1/json").json
    return observation(answer) | {"image": pick(body, "Author", "Comment", "Config.Cmd"), "env": "A=b" in (body["Config"].get("Env") or []), "file": e.output("cat", "/file", Image="suite-commit:v1")}


@case("images/commit-of-a-running-one")
def _(e):
    identity = e.run()
    e.exec(identity, "sh", "-c", "echo live > /file")
    e.later("DELETE", "/images/suite-live?force=1")
    e.must("POST", f"/commit?container={identity}&repo=suite-live", {"Cmd": ["cat", "/file"]})
    return e.output("cat", "/file", Image="suite-live")


@case("images/commit-bad-change")
def _(e):
    return e.says("POST", f"/commit?container={e.create(name='suite-cc')}&repo=suite-x&changes=NONSENSE", {})


@case("images/build-from-a-context")
def _(e):
    e.later("DELETE", "/images/suite-built?force=1")
    context = tar(Dockerfile="FROM busybox\nENV A=1\nCOPY file /file\nRUN cat /file > /copy\nCMD [\"cat\", \"/copy\"]\n", file="built\n")
    answer = e.call("POST", "/build?t=suite-built&version=1", context, headers={"Content-Type": "application/x-tar"})
    text = "".join(line.get("stream", "") for line in answer.lines)
    return {"status": answer.status, "type": answer.headers.get("content-type"), "tagged": "Successfully tagged suite-built:latest" in text, "steps": [line.split(" : ")[1] for line in text.splitlines() if line.startswith("Step ")], "runs": e.output(*[], Image="suite-built", cmd=["cat", "/copy"]) if False else e.output("cat", "/copy", Image="suite-built")}


@case("images/build-that-fails")
def _(e):
    answer = e.call("POST", "/build?version=1", tar(Dockerfile="FROM busybox\nRUN exit 3\n"), headers={"Content-Type": "application/x-tar"})
    return {"status": answer.status, "error": plain(answer.lines[-1])}


@case("images/build-bad-dockerfile")
def _(e):
    answer = e.call("POST", "/build?version=1", tar(Dockerfile="NONSENSE\n"), headers={"Content-Type": "application/x-tar"})
    return {"status": answer.status, "says": plain(answer.body.decode())}


@case("images/build-without-dockerfile")
def _(e):
    answer = e.call("POST", "/build?version=1", tar(other="x"), headers={"Content-Type": "application/x-tar"})
    return {"status": answer.status, "says": plain(answer.body.decode())}
