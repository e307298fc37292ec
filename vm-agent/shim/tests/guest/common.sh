# What the swap checks share: a containerd of their own, a busybox image, and checks that name what failed.
# Sourced by bash; needs root, Debian's containerd, ctr, runc, busybox-static and python3.
set -u
export CONTAINERD_NAMESPACE=swap-$$
IMAGE=swap.test/busybox:latest
WORK=$(mktemp -d /tmp/swap.XXXXXX)
FAILED=0
mkdir "$WORK/bin"

check() { # check NAME EXPECTED ACTUAL
  if [ "$2" == "$3" ]; then echo "ok    $1"; else echo "FAIL  $1: expected '$2', got '$3'"; FAILED=1; fi
}

start_containerd() {
  # Without the plugins that nobody here uses it starts in half the time.
  printf 'version = 3\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri", "io.containerd.podsandbox.controller.v1.podsandbox"]\n' >"$WORK/config.toml"
  PATH="$WORK/bin:$PATH" setsid containerd -c "$WORK/config.toml" >>"$WORK/containerd.log" 2>&1 &
  CONTAINERD=$!
  wait_for "ctr version"
}

wait_for() { # wait_for COMMAND: at most two minutes: emulated machines are slow
  for _ in $(seq 240); do eval "$1" >/dev/null 2>&1 && return 0; sleep 0.5; done
  echo "FAIL  waited in vain for: $1"; FAILED=1; return 1
}

import_busybox() {
  local busybox; busybox=$(command -v busybox)
  "$busybox" --list >"$WORK/applets"
  python3 - "$WORK" "$busybox" "$IMAGE" <<'PY'
import hashlib, io, json, sys, tarfile
work, busybox, name = sys.argv[1:]
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as tar:
    for folder in ("bin", "tmp", "etc"):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)
    tar.add(busybox, "bin/busybox")
    for applet in open(work + "/applets").read().split():
        if applet != "busybox":
            entry = tarfile.TarInfo("bin/" + applet)
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
layer = layer.getvalue()
config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
with tarfile.open(work + "/busybox.tar", "w") as tar:
    for path, data in (("config.json", json.dumps(config).encode()), ("layer.tar", layer),
                       ("manifest.json", json.dumps(manifest).encode())):
        entry = tarfile.TarInfo(path)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
PY
  ctr image import "$WORK/busybox.tar" >/dev/null
}

finish() {
  for id in $(ctr task ls -q 2>/dev/null); do ctr task kill -s KILL "$id"; ctr task rm -f "$id"; done >/dev/null 2>&1
  for id in $(ctr container ls -q 2>/dev/null); do ctr container rm "$id"; done >/dev/null 2>&1
  kill "$CONTAINERD" 2>/dev/null; wait "$CONTAINERD" 2>/dev/null
  [ $FAILED == 0 ] && rm -rf "$WORK" && echo "all passed" || echo "failed; logs in $WORK"
  exit $FAILED
}
