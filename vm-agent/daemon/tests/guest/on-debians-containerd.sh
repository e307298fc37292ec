#!/bin/sh
# The swap check of the joint daemon → supervisor: our daemon on Debian's containerd and runc shim.
# Runs as root in a guest that has containerd, runc, the docker command, nothing of it started, and our
# longshore-daemon and longshore-log in /usr/bin. Argument: an image archive (`docker save`) with a shell.
set -eu
archive=$1
image=${2:-busybox}
export DOCKER_HOST=unix:///run/longshore-check.sock
data=$(mktemp -d /var/tmp/daemon-check.XXXXXX)

cleanup() {
  docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1 || true
  kill "$daemon" "$containerd" 2>/dev/null || true
  rm -rf "$data"
}
expect() { # what, wanted, got
  [ "$2" = "$3" ] || { echo "not ok - $1: expected '$2', got '$3'"; exit 1; }
  echo "ok - $1"
}

containerd >"$data/containerd.log" 2>&1 &
containerd=$!
trap cleanup EXIT
start_daemon() {
  longshore-daemon --address "$DOCKER_HOST" --data-root "$data/docker" --exec-root "$data/run" \
    --default-shim io.containerd.runc.v2 >>"$data/daemon.log" 2>&1 &
  daemon=$!
  for _ in $(seq 100); do docker version >/dev/null 2>&1 && return; sleep 0.1; done
  cat "$data/daemon.log"; exit 1
}
start_daemon
docker load -q -i "$archive" >/dev/null

expect "output" hello "$(docker run --rm "$image" echo hello)"
expect "input" hi "$(echo hi | docker run -i --rm "$image" cat)"
code=0; docker run --rm "$image" sh -c 'exit 3' || code=$?
expect "exit code" 3 "$code"
code=0; docker run --rm "$image" /nope 2>/dev/null || code=$?
expect "no such command" 127 "$code"
docker run -d --name check-long "$image" sleep 1000 >/dev/null
expect "exec" inside "$(docker exec check-long echo inside)"
pid=$(docker inspect -f '{{.State.Pid}}' check-long)
docker run -d --name check-short "$image" sh -c 'sleep 2; echo bye; exit 7' >/dev/null
kill -9 "$daemon"
sleep 3
start_daemon
expect "same process after kill -9" "$pid" "$(docker inspect -f '{{.State.Pid}}' check-long)"
expect "exit code of what ended meanwhile" 7 "$(docker wait check-short)"
expect "log of what ended meanwhile" bye "$(docker logs check-short)"
docker stop -t 1 check-long >/dev/null
expect "stopped" exited "$(docker inspect -f '{{.State.Status}}' check-long)"
