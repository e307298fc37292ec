#!/bin/sh
# Swap check of the joint "client → supervisor → shim": Debian's ctr drives our supervisor, which runs Debian's
# containerd-shim-runc-v2 (or the shim named by RUNTIME).
#
# Run as root on a machine that has ctr, runc and containerd-shim-runc-v2, with an image archive of busybox:latest:
#   ctr.sh /path/to/longshore-supervisor busybox.tar
set -eu
supervisor=$1
archive=$2
runtime=${RUNTIME:-io.containerd.runc.v2}
work=$(mktemp -d)
socket=$work/run/containerd.sock
trap 'status=$?; kill $pid 2>/dev/null || true; [ $status = 0 ] || tail -20 "$work/log"; exit $status' EXIT

start() {
    "$supervisor" --root "$work/lib" --state "$work/run" --address "$socket" >>"$work/log" 2>&1 &
    pid=$!
    # The socket is there before the process is ready, and a client that connects waits.
    while [ ! -S "$socket" ]; do sleep 0.1; done
}
stop() { kill -9 $pid; wait $pid 2>/dev/null || true; rm -f "$socket"; }
c() { ctr -a "$socket" -n moby "$@"; }
say() { echo "== $*"; }
expect() { [ "$2" = "$3" ] || { echo "$1: want '$2', got '$3'"; exit 1; }; }

image=docker.io/library/busybox:latest
start
say version; c version
say import; c images import "$archive" >/dev/null
c images ls -q | grep -qx "$image"
say run; expect output hello "$(c run --rm --runtime "$runtime" "$image" one echo hello)"
set +e; c run --rm --runtime "$runtime" "$image" two sh -c 'exit 7'; code=$?; set -e
expect "exit code" 7 $code
say detached; c run -d --runtime "$runtime" "$image" long sleep 1000
expect exec inside "$(c tasks exec --exec-id e1 long echo inside)"
c tasks ls | grep -q "long.*RUNNING"
before=$(c tasks ls | awk '$1 == "long" {print $2}')
say pause; c tasks pause long; c tasks ls | grep -q "long.*PAUSED"; c tasks resume long
c tasks metrics long >/dev/null
say "kill -9 of the supervisor"; stop; start
expect "process after a restart" "$before" "$(c tasks ls | awk '$1 == "long" {print $2}')"
expect "exec after a restart" again "$(c tasks exec --exec-id e2 long echo again)"
say "exit while the supervisor is away"; stop; kill -9 "$before"; start
c tasks ls | grep -q "long.*STOPPED"
c tasks delete long || expect "exit code" 137 $?
c containers delete long
say "nothing left"; c images rm --sync "$image"
expect snapshots 0 "$(c snapshots ls | tail -n +2 | wc -l)"
expect content 0 "$(c content ls -q | wc -l)"
expect blobs 0 "$(ls "$work/lib/io.containerd.content.v1.content/blobs/sha256" | wc -l)"
echo "all passed"
