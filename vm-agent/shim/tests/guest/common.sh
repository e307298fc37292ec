# What the swap checks share: a containerd of their own, a busybox image, and checks that name what failed.
# Sourced by bash; needs root, Debian's containerd, ctr and runc. Argument: an image archive of busybox:latest.
set -u
export CONTAINERD_NAMESPACE=swap-$$
ARCHIVE=$1
IMAGE=docker.io/library/busybox:latest
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
  for _ in $(seq 1200); do eval "$1" >/dev/null 2>&1 && return 0; sleep 0.1; done
  echo "FAIL  waited in vain for: $1"; FAILED=1; return 1
}

import_busybox() { ctr image import "$ARCHIVE" >/dev/null; }

finish() {
  for id in $(ctr task ls -q 2>/dev/null); do ctr task kill -s KILL "$id"; ctr task rm -f "$id"; done >/dev/null 2>&1
  for id in $(ctr container ls -q 2>/dev/null); do ctr container rm "$id"; done >/dev/null 2>&1
  kill "$CONTAINERD" 2>/dev/null; wait "$CONTAINERD" 2>/dev/null
  [ $FAILED == 0 ] && rm -rf "$WORK" && echo "all passed" || echo "failed; logs in $WORK"
  exit $FAILED
}
