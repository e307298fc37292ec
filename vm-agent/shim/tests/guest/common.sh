# What the swap checks share: a containerd of their own, a busybox image, and checks that name what failed.
# Sourced by bash; needs root, Debian's containerd, ctr, runc, busybox-static and python3.
set -u
export CONTAINERD_NAMESPACE=${CONTAINERD_NAMESPACE:-swap}
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
  mkdir -p "$WORK/root/bin" "$WORK/root/tmp" "$WORK/root/etc" "$WORK/image"
  cp "$(command -v busybox)" "$WORK/root/bin/busybox"
  for applet in $("$WORK/root/bin/busybox" --list | grep -vx busybox); do ln -sf busybox "$WORK/root/bin/$applet"; done
  echo 'root:x:0:0:root:/:/bin/sh' >"$WORK/root/etc/passwd"
  tar -C "$WORK/root" -cf "$WORK/image/layer.tar" .
  python3 - "$WORK/image" "$IMAGE" <<'PY'
import hashlib, json, sys
folder, name = sys.argv[1:]
layer = hashlib.sha256(open(folder + "/layer.tar", "rb").read()).hexdigest()
config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + layer]}}
json.dump(config, open(folder + "/config.json", "w"))
json.dump([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}], open(folder + "/manifest.json", "w"))
PY
  tar -C "$WORK/image" -cf "$WORK/busybox.tar" config.json layer.tar manifest.json
  ctr image import "$WORK/busybox.tar" >/dev/null
}

finish() {
  for id in $(ctr task ls -q 2>/dev/null); do ctr task kill -s KILL "$id"; ctr task rm -f "$id"; done >/dev/null 2>&1
  for id in $(ctr container ls -q 2>/dev/null); do ctr container rm "$id"; done >/dev/null 2>&1
  kill "$CONTAINERD" 2>/dev/null; wait "$CONTAINERD" 2>/dev/null
  [ $FAILED == 0 ] && rm -rf "$WORK" && echo "all passed" || echo "failed; logs in $WORK"
  exit $FAILED
}
