//! Which Debian packages the guest is made of, and which of their files.

use crate::deb::{Node, Tree};
use crate::elf;
use std::collections::BTreeMap;

pub const SUITE: &str = "trixie";
/// Stands for the newest kernel of the suite.
pub const KERNEL_META: &str = "linux-image-cloud-amd64";

/// A package that programs are taken from: (path in the package, path in the guest).
pub struct Programs {
    pub package: &'static str,
    pub files: &'static [(&'static str, &'static str)],
}

pub const PROGRAMS: &[Programs] = &[
    Programs {
        // The data disk: made, checked, grown.
        package: "e2fsprogs",
        files: &[
            ("usr/sbin/mke2fs", "usr/sbin/mke2fs"),
            ("usr/sbin/e2fsck", "usr/sbin/e2fsck"),
            ("usr/sbin/resize2fs", "usr/sbin/resize2fs"),
            ("usr/sbin/dumpe2fs", "usr/sbin/dumpe2fs"),
            ("usr/sbin/tune2fs", "usr/sbin/tune2fs"),
            ("etc/mke2fs.conf", "etc/mke2fs.conf"),
        ],
    },
    Programs {
        package: "nftables",
        files: &[("usr/sbin/nft", "usr/sbin/nft")],
    },
    // For people who look around.
    Programs {
        package: "busybox-static",
        files: &[("usr/bin/busybox", "usr/bin/busybox")],
    },
];

/// The runtimes that `docker run --runtime=…` may choose instead of ours.
pub const RUNTIMES: &[Programs] = &[
    Programs {
        package: "runc",
        files: &[
            ("usr/bin/runc", "usr/bin/runc"),
            ("usr/sbin/runc", "usr/bin/runc"),
        ],
    },
    Programs {
        package: "crun",
        files: &[("usr/bin/crun", "usr/bin/crun")],
    },
];

/// Its certificates become one bundle.
pub const CERTIFICATES: &str = "ca-certificates";
pub const CERTIFICATE_FOLDER: &str = "usr/share/ca-certificates/mozilla/";
pub const CERTIFICATE_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// Where libraries come from; only those that a program needs are taken.
pub const LIBRARIES: &[&str] = &[
    "libc6",
    "libgcc-s1",
    "libext2fs2t64",
    "libcom-err2",
    "libss2",
    "libblkid1",
    "libuuid1",
    "libnftables1",
    "libnftnl11",
    "libmnl0",
    "libjansson4",
    "libxtables12",
    "libgmp10",
    "libedit2",
    "libtinfo6",
    "libbsd0",
    "libmd0",
    "libseccomp2",
    "libcap2",
    "libyajl2",
    "libsystemd0",
];

/// Loaded before the root can be mounted.
pub const INITRAMFS_MODULES: &[&str] = &["virtio_blk", "erofs", "overlay"];

/// Loaded by name or, when the kernel asks, by alias; what they depend on comes with them.
/// `vsock_loopback` is left out on purpose: containers shall not reach the agent's ports through it.
pub const ROOT_MODULES: &[&str] = &[
    // Devices of the VM.
    "virtio_net",
    "virtio_balloon",
    "virtio-rng",
    "virtio_scsi",
    "vmw_vsock_virtio_transport",
    "button",
    "evdev",
    // Container networks.
    "veth",
    "bridge",
    "br_netfilter",
    "macvlan",
    "ipvlan",
    "dummy",
    "tun",
    "vxlan",
    "8021q",
    "wireguard",
    // nftables, and what iptables-nft in a container asks for.
    "nf_tables",
    "nf_conntrack_netlink",
    "nft_chain_nat",
    "nft_compat",
    "nft_connlimit",
    "nft_ct",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_hash",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_quota",
    "nft_redir",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nf_log_syslog",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_comment",
    "xt_conntrack",
    "xt_mark",
    "xt_multiport",
    "xt_nat",
    "xt_tcpudp",
    // Looking around, and the rest that containers commonly want.
    "inet_diag",
    "tcp_diag",
    "unix_diag",
    "loop",
    "binfmt_misc",
    "squashfs",
    "sch_htb",
    "sch_netem",
    "sch_ingress",
    "cls_u32",
];

/// Adds every library that the tree's programs need, from `pool` (all library packages' files).
/// Gives the names that nobody has.
pub fn add_libraries(tree: &mut Tree, pool: &Tree) -> Vec<String> {
    let by_name: BTreeMap<&str, &String> = pool
        .keys()
        .filter(|path| path.starts_with("usr/lib"))
        .map(|path| (path.rsplit('/').next().unwrap_or(path), path))
        .collect();
    let mut missing = Vec::new();
    let mut open: Vec<String> = needs(tree.values());
    while let Some(name) = open.pop() {
        let Some(path) = by_name.get(name.as_str()) else {
            missing.push(name);
            continue;
        };
        if tree.contains_key(*path) {
            continue;
        }
        let node = pool[*path].clone();
        match &node {
            Node::Symlink { target } => {
                open.push(target.rsplit('/').next().unwrap_or(target).into());
            }
            _ => open.extend(needs([&node])),
        }
        tree.insert((*path).clone(), node);
    }
    missing.sort();
    missing.dedup();
    missing
}

fn needs<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<String> {
    let mut names = Vec::new();
    for node in nodes {
        if let Node::File { data, .. } = node {
            let needed = elf::needed(data);
            names.extend(needed);
        }
    }
    names
}
