//! The root's folders, links and few configuration files that no package brings.

use crate::deb::{Node, Tree};

const FOLDERS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/ssl", 0o755),
    ("etc/ssl/certs", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib64", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/lib/longshore", 0o711),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("sbin", "usr/sbin"),
    ("etc/mtab", "../proc/self/mounts"),
    ("usr/sbin/init", "../bin/longshore-init"),
    ("usr/sbin/modprobe", "../bin/longshore-init"),
    ("usr/sbin/mkfs.ext4", "mke2fs"),
    ("usr/sbin/fsck.ext4", "e2fsck"),
    ("var/run", "../run"),
    ("var/lib/containerd", "longshore/containerd"),
    ("var/lib/docker", "longshore/docker"),
];

const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/profile", "export PS1='\\h:\\w\\$ '\n"),
    (
        "etc/os-release",
        "NAME=Longshore\nID=longshore\nID_LIKE=debian\nPRETTY_NAME=\"Longshore guest (Debian 13)\"\n",
    ),
];

/// Commands that busybox is linked as, in `/usr/bin`.
const APPLETS: &[&str] = &[
    "ash",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "clear",
    "cmp",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "diff",
    "dirname",
    "dmesg",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "hostname",
    "id",
    "ip",
    "kill",
    "killall",
    "less",
    "ln",
    "ls",
    "lsmod",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "more",
    "mount",
    "mv",
    "nc",
    "netstat",
    "nice",
    "nproc",
    "nslookup",
    "od",
    "pgrep",
    "pidof",
    "ping",
    "pkill",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "reset",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "strings",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "time",
    "timeout",
    "top",
    "touch",
    "tr",
    "traceroute",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "vi",
    "watch",
    "wc",
    "wget",
    "which",
    "xargs",
    "yes",
    "zcat",
];

pub fn skeleton() -> Tree {
    let mut tree = Tree::new();
    for (path, mode) in FOLDERS {
        tree.insert((*path).into(), Node::Folder { mode: *mode });
    }
    for (path, target) in LINKS {
        tree.insert(
            (*path).into(),
            Node::Symlink {
                target: (*target).into(),
            },
        );
    }
    for (path, text) in FILES {
        tree.insert(
            (*path).into(),
            Node::File {
                mode: 0o644,
                data: text.as_bytes().to_vec(),
            },
        );
    }
    for applet in APPLETS {
        tree.insert(
            format!("usr/bin/{applet}"),
            Node::Symlink {
                target: "busybox".into(),
            },
        );
    }
    tree
}
