"""Docker's own engine in a VM of the same kind as ours: made once into target/bench, used by scripts/bench and scripts/reference.

The root is Debian sid's docker.io, containerd and runc with the containerd image store; the kernel is our guest's, so the guest image
must have been built before.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target"))
ARCH = os.uname().machine
CPUS, MEMORY = 2, "2G"


def run(command, env=None, timeout=300, **options):
    """Runs to success; its standard output."""
    result = subprocess.run(command, env=env, timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def shell(script):
    return run(["bash", "-euc", f"cd {TOP}; . scripts/lib.sh; {script}"], timeout=1200)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Reference:
    """dockerd, containerd and runc of Debian sid behind a plain shell as PID 1."""

    name = "Docker's engine"
    lists = (50, 200)
    publish = "8080"  # in the guest; QEMU's user network brings it to the host's `web`

    def __init__(self, work, accelerator="tcg", port=None):
        self.work, self.accelerator, self.port, self.qemu = work, accelerator, port or free_port(), None
        self.web = free_port()
        self.image = TARGET / "bench" / "reference.img"
        if not self.image.exists():
            self.make_image()
        self.env = dict(os.environ, DOCKER_HOST=f"tcp://127.0.0.1:{self.port}")

    def make_image(self):
        print("making the reference VM's root (Debian sid, docker.io)", flush=True)
        self.image.parent.mkdir(parents=True, exist_ok=True)
        root = self.work / "reference"
        tar = self.work / "reference.tar"
        shell(f"need_packages mmdebstrap=mmdebstrap /usr/sbin/depmod=kmod cpio=cpio; debian_root sid {tar} docker.io containerd runc iptables busybox-static ca-certificates libc-bin kmod")
        root.mkdir()
        run(["tar", "-C", root, "-xf", tar])
        kernel = next((TARGET / "guest-image/cache" / ARCH / "packages").glob("linux-image-*.deb"))
        run(["dpkg-deb", "-x", kernel, self.work / "kernel"])
        modules = next((self.work / "kernel/usr/lib/modules").iterdir())
        release = modules.name
        shutil.copytree(modules, root / "usr/lib/modules" / release, symlinks=True, dirs_exist_ok=True)
        run(["depmod", "-b", root, release])
        (root / "etc/docker").mkdir(parents=True, exist_ok=True)
        (root / "etc/docker/daemon.json").write_text('{"features": {"containerd-snapshotter": true}}')
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\ndocker:x:999:\n")
        for link in ("iptables", "ip6tables", "iptables-save", "iptables-restore"):
            path = root / "usr/sbin" / link
            if not path.exists():
                path.symlink_to("xtables-nft-multi")
        init = root / "reference-init"
        init.write_text(REFERENCE_INIT)
        init.chmod(0o755)
        partial = self.image.with_suffix(".partial")
        with open(partial, "wb") as disk:
            disk.truncate(16 << 30)
        run(["mkfs.ext4", "-q", "-d", root, "-E", "lazy_itable_init=1", partial])
        busybox = self.work / "initramfs"
        (busybox / "mod").mkdir(parents=True)
        shutil.copy("/bin/busybox", busybox / "busybox")
        order = []
        for name in ("virtio_pci", "virtio_blk", "ext4"):
            listing = run(["modprobe", "-d", root, "-S", release, "--show-depends", name])
            order += [Path(line.split()[1]) for line in listing.splitlines() if line.startswith("insmod")]
        for index, module in enumerate(dict.fromkeys(order)):
            copy = busybox / "mod" / f"{index:02}-{module.name}"
            shutil.copy(module, copy)
            if copy.suffix == ".xz":
                run(["xz", "-d", copy])
        (busybox / "init").write_text(REFERENCE_INITRAMFS)
        (busybox / "init").chmod(0o755)
        run(["bash", "-c", f"cd {busybox} && find . | cpio --quiet -o -H newc > {self.image.with_suffix('.initramfs')}"])
        partial.rename(self.image)

    def prepare(self):
        """All that comes before the first boot that counts: its engine has run once."""
        run(["cp", "--sparse=always", self.image, self.work / "reference.disk"])
        self.boot()
        self.stop()

    def boot(self):
        disk = self.work / "reference.disk"
        kernel = TARGET / "guest-image" / ARCH / "kernel"
        accelerator = ["-accel", "tcg,thread=multi", "-cpu", "max"] if self.accelerator == "tcg" else ["-accel", self.accelerator, "-cpu", "host"]
        self.qemu = subprocess.Popen([
            f"qemu-system-{ARCH}", "-M", "q35", *accelerator, "-smp", str(CPUS), "-m", MEMORY, "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", kernel, "-initrd", self.image.with_suffix(".initramfs"), "-append", "console=ttyS0 quiet panic=-1",
            "-serial", f"file:{self.work}/reference.console", "-drive", f"file={disk},if=virtio,format=raw,cache=writeback,discard=unmap",
            "-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{self.port}-:2375,hostfwd=tcp:127.0.0.1:{self.web}-:8080", "-device", "virtio-net-pci,netdev=n,romfile=",
        ])
        wait_for_version(self.env)

    def stop(self):
        if self.qemu:
            self.qemu.kill()
            self.qemu.wait()
            self.qemu = None

    end = stop

    def guest(self, script):
        """Runs as root in the guest, through a privileged container in the guest's own namespaces."""
        return run(["docker", "run", "--rm", "--privileged", "--pid=host", "-v", "/:/guest", "busybox", "chroot", "/guest", "/usr/bin/busybox", "sh", "-c", script], env=self.env)

    engine = ("dockerd", "containerd")
    shim = "containerd-shim"


def wait_for_version(env):
    deadline = time.monotonic() + 300
    while subprocess.run(["docker", "version"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        if time.monotonic() > deadline:
            sys.exit("the engine does not answer")
        time.sleep(0.05)


REFERENCE_INITRAMFS = """#!/busybox sh
/busybox mkdir -p /dev /new; /busybox mount -t devtmpfs dev /dev
for m in /mod/*.ko; do /busybox insmod $m; done
/busybox mount -t ext4 /dev/vda /new; /busybox mount --move /dev /new/dev; exec /busybox switch_root /new /reference-init
"""

REFERENCE_INIT = """#!/usr/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
B=/usr/bin/busybox
$B mkdir -p /proc /sys /run /tmp /dev/pts /dev/shm /var/lib/docker; $B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t tmpfs tmpfs /run; $B mount -t tmpfs tmpfs /tmp
$B mount -t devpts devpts /dev/pts; $B mount -t tmpfs shm /dev/shm; $B mount -t cgroup2 cgroup /sys/fs/cgroup
for c in $($B cat /sys/fs/cgroup/cgroup.controllers); do echo +$c > /sys/fs/cgroup/cgroup.subtree_control; done
for m in virtio_net overlay veth bridge br_netfilter nf_tables nft_chain_nat nft_compat xt_MASQUERADE xt_conntrack xt_addrtype; do modprobe -q $m 2>/dev/null; done
$B ip link set lo up; $B ip link set eth0 up; $B ip addr add 10.0.2.15/24 dev eth0; $B ip route add default via 10.0.2.2
echo nameserver 10.0.2.3 > /etc/resolv.conf; echo 1 > /proc/sys/net/ipv4/ip_forward
$B rm -rf /var/run; $B ln -s /run /var/run
dockerd -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2375 --tls=false --insecure-registry 10.0.2.2/32 > /dev/ttyS0 2>&1 &
wait; $B poweroff -f
"""
