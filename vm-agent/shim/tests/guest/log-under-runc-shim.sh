#!/bin/bash
# Debian's containerd-shim-runc-v2 runs our log writer; then our shim does the same in its own process.
# On a machine with both installed: bash log-under-runc-shim.sh busybox.tar
. "$(dirname "$0")/common.sh"
ln -s "$(command -v "${RUNTIME:-runc}")" "$WORK/bin/longshore-runtime"

messages() { # messages LOG STREAM: what was written, one message a line, oldest first
  cat "$1.2" "$1.1" "$1" | sed -nE 's/^\{"log":"(.*)","stream":"'"$2"'","time":"[^"]+"\}$/\1/p'
}

start_containerd
import_busybox
for runtime in io.containerd.runc.v2 io.containerd.longshore.v2; do
  name=$(echo $runtime | cut -d. -f3)
  dir="$WORK/$name"; mkdir "$dir"
  uri="binary:///usr/bin/longshore-log?id=$name&dir=$dir&driver=json-file&max-size=10k&max-file=3"
  ctr run -d --runtime $runtime --log-uri "$uri" $IMAGE $name \
    sh -c 'i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done; while ! [ -e /go ]; do sleep 0.2; done; echo oops >&2; printf end; while ! [ -e /stop ]; do sleep 0.2; done'
  check "$name: task runs" RUNNING "$(ctr task ls | awk -v n=$name '$1 == n { print $3 }')"
  test -S "$dir/attach.sock"; check "$name: attach socket" 0 $?
  # Two pipes have no order between them: stderr is written when stdout is in the log, or rotation could take it away.
  wait_for "grep -q 'line 399' $dir/$name-json.log*"
  root=$(awk -v n=$name '$2 ~ "/" n "/rootfs$" { print $2 }' /proc/mounts)
  touch "$root/go"
  wait_for "grep -q oops $dir/$name-json.log*"
  touch "$root/stop"
  wait_for "ctr task ls | grep -q '$name.*STOPPED'"
  ctr task rm $name >/dev/null
  check "$name: rotated" "3" "$(ls "$dir" | grep -c json.log)"
  # The oldest file is gone; what is left ends as the container ended, each line whole.
  messages "$dir/$name-json.log" stdout >"$WORK/got"
  { seq -f 'line %g\n' 0 399; printf end; } | tail -n "$(grep -c . "$WORK/got")" >"$WORK/wanted"
  check "$name: nothing lost, doubled or torn" "$(cat "$WORK/wanted")" "$(cat "$WORK/got")"
  check "$name: stderr" 'oops\n' "$(messages "$dir/$name-json.log" stderr)"
  check "$name: no other line" "$(($(wc -l <"$WORK/got") + 1))" "$(cat "$dir/$name"-json.log* | wc -l)"
  check "$name: attach socket is gone" 1 "$(test -e "$dir/attach.sock"; echo $?)"
done
check "no logger is left" 0 "$(pgrep -xc longshore-log || true)"
finish
