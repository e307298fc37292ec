"""Docker's binaries under our init and image: what of the start's time is the engine, and what is the VM around it.

Our guest's root with Debian sid's dockerd, containerd and runc in the place of our daemon and supervisor, made
once into target/bench; used by scripts/bench.
"""

import hashlib
import json
import shutil
from pathlib import Path

from reference_engine import ARCH, TARGET, run

IMAGE = TARGET / "guest-image" / ARCH
SWAPPED = TARGET / "bench" / "swapped-image"

# Our init runs them under our programs' names and hands them the sockets that it holds.
SUPERVISOR = """#!/bin/sh
# containerd makes its socket itself.
rm -f /run/containerd/containerd.sock /run/containerd/containerd.sock.ttrpc
exec /usr/bin/containerd
"""
DAEMON = """#!/bin/sh
while ! [ -S /run/containerd/containerd.sock ]; do sleep 0.01; done
exec /usr/sbin/dockerd -H fd:// --containerd /run/containerd/containerd.sock --data-root /var/lib/longshore/docker
"""


def make(reference_disk):
    """The folder of the swapped image; made anew when ours has changed since."""
    stamp = hashlib.sha256((IMAGE / "manifest.json").read_bytes()).hexdigest()
    if (SWAPPED / "stamp").exists() and (SWAPPED / "stamp").read_text() == stamp:
        return SWAPPED
    print("making our guest image with Docker's binaries in it", flush=True)
    shutil.rmtree(SWAPPED, ignore_errors=True)
    work = SWAPPED / "work"
    (work / "theirs").mkdir(parents=True)
    root = work / "root"
    run(["fsck.erofs", f"--extract={root}", IMAGE / "root.erofs"])
    run(["debugfs", "-R", f"rdump /usr {work}/theirs", reference_disk])
    # Our modules are all that their rules need.
    shutil.rmtree(work / "theirs/usr/lib/modules")
    for folder in ("bin", "sbin", "lib", "lib64"):
        merge(work / "theirs/usr" / folder, root / "usr" / folder)
    for name, script in (("longshore-supervisor", SUPERVISOR), ("longshore-daemon", DAEMON)):
        (root / "usr/bin" / name).write_text(script)
    (root / "etc/docker").mkdir(exist_ok=True)
    (root / "etc/docker/daemon.json").write_text('{"features": {"containerd-snapshotter": true}}')
    # As our builder writes it: what is read is as costly to decompress.
    run(["mkfs.erofs", "--quiet", "-zlz4hc,12", "-C65536", "-T0", "-x-1", "--all-root", SWAPPED / "root.erofs", root], timeout=1200)
    for name in ("kernel", "initramfs"):
        shutil.copy(IMAGE / name, SWAPPED / name)
    manifest = json.loads((IMAGE / "manifest.json").read_text())
    data = (SWAPPED / "root.erofs").read_bytes()
    for file in manifest["files"]:
        if file["name"] == "root.erofs":
            file.update(size=len(data), compressed_size=len(data), sha256=hashlib.sha256(data).hexdigest())
    (SWAPPED / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(work)
    (SWAPPED / "stamp").write_text(stamp)
    return SWAPPED


def merge(theirs: Path, ours: Path):
    """Adds what ours does not have."""
    for source in sorted(theirs.rglob("*")):
        target = ours / source.relative_to(theirs)
        if source.is_symlink() or not source.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() and not target.is_symlink():
                shutil.copy2(source, target, follow_symlinks=False)
