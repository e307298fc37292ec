#!/bin/bash
# The swap check of the joint daemon → supervisor: our daemon on Debian's containerd and runc shim.
# Runs as root on a machine that has containerd, runc, the docker command, nothing of it started, and our
# longshore-daemon and longshore-log in /usr/bin. Argument: an image archive (`docker save`) of busybox:latest.
set -eu
archive=$1
image=busybox
socket=/run/longshore-check.sock
export DOCKER_HOST=unix://$socket
work=$(mktemp -d /var/tmp/daemon-check.XXXXXX)

finish() {
  status=$?
  [ $status = 0 ] || { echo "--- containerd"; tail -20 "$work/containerd.log"; echo "--- daemon"; tail -20 "$work/daemon.log"; }
  docker rm -f check-long check-short >/dev/null 2>&1 || true
  kill "$daemon" "$containerd" 2>/dev/null || true
  rm -rf "$work"
  exit $status
}
expect() { # what, wanted, got
  [ "$2" = "$3" ] || { echo "not ok - $1: expected '$2', got '$3'"; exit 1; }
  echo "ok - $1"
}
wait_for() { # command: at most two minutes: emulated machines are slow
  for _ in $(seq 1200); do eval "$1" >/dev/null 2>&1 && return 0; sleep 0.1; done
  echo "not ok - waited in vain for: $1"; exit 1
}
start_daemon() {
  rm -f "$socket"
  longshore-daemon --address "$DOCKER_HOST" --data-root "$work/docker" --exec-root "$work/run" \
    --default-shim io.containerd.runc.v2 >>"$work/daemon.log" 2>&1 &
  daemon=$!
  wait_for "test -S $socket"
}

# Without Kubernetes' plugins it starts in half the time.
printf 'version = 3\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]\n' >"$work/config.toml"
daemon=; containerd -c "$work/config.toml" >"$work/containerd.log" 2>&1 &
containerd=$!
trap finish EXIT
wait_for "ctr version"
start_daemon
docker load -q -i "$archive" >/dev/null

expect "input and output" hi "$(echo hi | docker run -i --rm $image cat)"
code=0; docker run --rm $image sh -c 'exit 3' || code=$?
expect "exit code" 3 "$code"
code=0; docker run --rm $image /nope 2>/dev/null || code=$?
expect "no such command" 127 "$code"
docker run -d --name check-long $image sleep 1000 >/dev/null
expect "exec" inside "$(docker exec check-long echo inside)"
docker run -d --name check-short $image sh -c 'trap "echo bye; exit 7" TERM; echo ready; while :; do sleep 0.1; done' >/dev/null
wait_for "docker logs check-short | grep ready"
pids=$(docker inspect -f '{{.State.Pid}}' check-long check-short)

kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
short=$(echo "$pids" | tail -1)
kill -TERM "$short"
wait_for "! kill -0 $short"
start_daemon
expect "same process after kill -9" "$(echo "$pids" | head -1)" "$(docker inspect -f '{{.State.Pid}}' check-long)"
expect "exit code of what ended meanwhile" 7 "$(docker wait check-short)"
expect "log of what ended meanwhile" "ready bye" "$(docker logs check-short | xargs)"
docker stop -t 0 check-long >/dev/null
expect "stopped" "exited 137" "$(docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' check-long)"
echo "all passed"
