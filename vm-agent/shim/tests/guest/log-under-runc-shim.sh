#!/bin/bash
# Debian's containerd-shim-runc-v2 runs our log writer; then our shim does the same in its own process.
# Inside a guest with both installed: bash log-under-runc-shim.sh
. "$(dirname "$0")/common.sh"
ln -s "$(command -v "${RUNTIME:-runc}")" "$WORK/bin/longshore-runtime"
start_containerd
import_busybox
for runtime in io.containerd.runc.v2 io.containerd.longshore.v2; do
  name=$(echo $runtime | cut -d. -f3)
  dir="$WORK/$name"; mkdir "$dir"
  uri="binary:///usr/bin/longshore-log?id=$name&dir=$dir&driver=json-file&max-size=20k&max-file=3"
  ctr run -d --runtime $runtime --log-uri "$uri" $IMAGE $name \
    sh -c 'i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done; echo oops >&2; printf end; while ! [ -e /stop ]; do sleep 0.2; done'
  check "$name: task runs" RUNNING "$(ctr task ls | awk -v n=$name '$1 == n { print $3 }')"
  test -S "$dir/attach.sock"; check "$name: attach socket" 0 $?
  wait_for "grep -q oops $dir/$name-json.log"
  touch "$(awk -v n=$name '$2 ~ "/" n "/rootfs$" { print $2 }' /proc/mounts)/stop"
  wait_for "ctr task ls | grep -q '$name.*STOPPED'"
  ctr task rm $name >/dev/null
  check "$name: rotated" "3" "$(ls "$dir" | grep -c json.log)"
  check "$name: nothing lost, doubled or torn" "402 oops end" "$(python3 - "$dir/$name-json.log" <<'PY'
import json, os, sys
path = sys.argv[1]
files = [p for p in (path + ".2", path + ".1", path) if os.path.exists(p)]
lines = [json.loads(line) for p in files for line in open(p)]
out = [l["log"] for l in lines if l["stream"] == "stdout"]
first = 400 - (len(out) - 1)
assert out[:-1] == [f"line {i}\n" for i in range(first, 400)], out[:3]
err = [l["log"] for l in lines if l["stream"] == "stderr"]
print(len(lines) + first, err[0].strip(), out[-1])
PY
)"
  check "$name: attach socket is gone" 1 "$(test -e "$dir/attach.sock"; echo $?)"
done
check "no logger is left" 0 "$(pgrep -xc longshore-log || true)"
finish
