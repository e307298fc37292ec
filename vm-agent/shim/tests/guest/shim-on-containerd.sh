#!/bin/bash
# Debian's containerd runs our shim, with the runtime named by RUNTIME (default: Debian's runc).
# On a machine with both installed: [RUNTIME=longshore-runtime] bash shim-on-containerd.sh busybox.tar
. "$(dirname "$0")/common.sh"
# ctr passes runc's options to no other shim, so the runtime takes our default's name.
ln -s "$(command -v "${RUNTIME:-runc}")" "$WORK/bin/longshore-runtime"
run() { ctr run --rm --runtime io.containerd.longshore.v2 "$@"; }
detached() { ctr run -d --null-io --runtime io.containerd.longshore.v2 "$@"; }
state() { ctr task ls | awk -v id="$1" '$1 == id { print $3 }'; }
is() { [ "$(state "$1")" == "$2" ]; }
shims() { pgrep -xc containerd-shim || true; }

start_containerd
import_busybox

check "output" "hello" "$(run $IMAGE one echo hello)"
check "stderr is kept apart" "err" "$(run $IMAGE two sh -c 'echo out; echo err >&2' 2>&1 >/dev/null)"
run $IMAGE three sh -c 'exit 7'; check "exit code" 7 $?
run $IMAGE five /no/such/program 2>"$WORK/err"; check "a missing program fails" 1 $?
grep -q "no such file or directory" "$WORK/err"; check "and says so" 0 $?
# ctr passes an end of its input on only if it comes after the task is known to it.
check "stdin through a pipe" "hello" "$( (echo hello; wait_for "is six RUNNING") | run $IMAGE six cat)"
check "terminal" "/dev/pts/0" "$(script -qec "ctr run --rm -t --runtime io.containerd.longshore.v2 $IMAGE seven tty" /dev/null | tr -d '\r')"

head -c ${BYTES:-100M} /dev/urandom >"$WORK/random"
expected=$(sha256sum <"$WORK/random")
check "much data through stdin" "$expected" "$(run $IMAGE eight sha256sum <"$WORK/random")"
check "much data through stdout" "$expected" "$(run $IMAGE nine cat <"$WORK/random" | sha256sum)"
rm "$WORK/random"
check "no shim is left" 0 "$(shims)"

detached $IMAGE long sleep 1000
check "task runs" RUNNING "$(state long)"
check "exec" "inside" "$(ctr task exec --exec-id e1 long echo inside)"
ctr task exec --exec-id e2 long sh -c 'exit 3'; check "exit code of an exec" 3 $?
check "exec with stdin" "piped" "$(echo piped | ctr task exec --exec-id e3 long cat)"
ctr task exec --exec-id e4 long /no/such 2>"$WORK/err"; check "a missing program in exec fails" 1 $?
check "pids" 1 "$(ctr task ps long | grep -c '^[0-9]')"
ctr task pause long; check "paused" PAUSED "$(state long)"
ctr task resume long; check "resumed" RUNNING "$(state long)"
ctr task metrics long | grep -qE '^memory.usage|^memory.current|usage_in_bytes|memory'; check "metrics" 0 $?
grep -q ' /run/containerd/.*/long/rootfs ' /proc/mounts; check "root file system is mounted" 0 $?
echo "info  PSS of the shim: $(awk '/^Pss:/ { print $2, $3 }' /proc/$(pgrep -x containerd-shim | head -1)/smaps_rollup)"

kill -9 $CONTAINERD; wait $CONTAINERD 2>/dev/null
start_containerd
check "runs on over containerd's death" RUNNING "$(state long)"
check "exec after containerd's death" "again" "$(ctr task exec --exec-id e5 long echo again)"

ctr task kill -s KILL long
wait_for "is long STOPPED"
# ctr tells a task's exit code only in its log.
ctr task rm long 2>&1 | grep -q 'exit code 137'; check "exit code of a kill" 0 $?
check "no shim is left" 0 "$(shims)"
check "no mount is left" 0 "$(grep -c '/rootfs ' /proc/mounts)"

detached $IMAGE doomed sleep 1000
pid=$(ctr task ls | awk '$1 == "doomed" { print $2 }')
kill -9 $(pgrep -x containerd-shim)
wait_for "! kill -0 $pid"
check "the container dies with its shim" 1 "$(kill -0 $pid 2>/dev/null; echo $?)"
wait_for "! is doomed RUNNING"
check "no mount is left after the shim's death" 0 "$(grep -c '/rootfs ' /proc/mounts)"
ls /run/containerd/s 2>/dev/null | wc -l | { read -r n; check "no socket is left" 0 "$n"; }
finish
