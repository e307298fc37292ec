#!/bin/sh
# A small Debian machine in the guest, with Debian's containerd and our programs: in-peers.sh PEERS IMAGES VM-AGENT COMMAND...
#
# PEERS is a folder with the files of `scripts/images peers`, IMAGES the folder of the test images (there: /images), VM-AGENT the
# repository's (there: /vm-agent). The command has mounts, processes, network and a cgroup of its own, so that neither the product's
# services nor another check can disturb it, and nothing of it is left.
set -eu
if [ -z "${INSIDE:-}" ]; then
  # overlayfs refuses an upper folder that is on overlayfs itself; the data disk is ext4.
  INSIDE=$(mktemp -d /var/lib/longshore/joint.XXXXXX); export INSIDE
  code=0; busybox unshare --mount --propagation private --net --pid --fork sh "$0" "$@" || code=$?
  rm -rf "$INSIDE"
  rmdir "/sys/fs/cgroup/$(basename "$INSIDE")" 2>/dev/null || true
  exit $code
fi

peers=$1 images=$2 vm_agent=$3; shift 3
root=$INSIDE/root
mkdir -p "$INSIDE/upper" "$INSIDE/work" "$INSIDE/root" "$INSIDE/disk/lib" "$INSIDE/disk/tmp"
mount -t overlay -o "lowerdir=$peers,upperdir=$INSIDE/upper,workdir=$INSIDE/work" joint "$root"
mkdir -p "$root/outside" "$root/vm-agent" "$root/images"
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
mount -t tmpfs run "$root/run"
busybox mount --rbind /dev "$root/dev"
mount --bind "$INSIDE/disk/tmp" "$root/tmp"
mount --bind "$INSIDE/disk/lib" "$root/var/lib"
mount --bind "$vm_agent" "$root/vm-agent"
mount --bind "$images" "$root/images"
for program in /usr/bin/longshore-* /usr/bin/containerd-shim-longshore-v2; do
  touch "$root$program"
  mount --bind "$program" "$root$program"
done
# A leaf at the top, as an init gives its services; runtimes make theirs beside it.
cgroup=/sys/fs/cgroup/$(basename "$INSIDE")
mkdir "$cgroup"
echo 0 > "$cgroup/cgroup.procs"
busybox ip link set lo up

cd "$root"
busybox pivot_root . outside
umount -l /outside
exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"
