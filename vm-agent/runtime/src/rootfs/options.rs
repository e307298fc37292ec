//! Mount options as words (config.md, "Linux mount options") sorted into what each system call takes.

use crate::sys::MountAttr;

const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;
const ATTR_NOEXEC: u64 = 0x8;
const ATTR_ATIME: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// A mount's options, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// MS_* for mount(2) of a new file system.
    pub flags: u64,
    /// Attributes of this mount alone: what a bind mount gets.
    pub attr: MountAttr,
    /// Attributes for this mount and all below it.
    pub recursive: MountAttr,
    /// MS_SHARED and so on, with MS_REC.
    pub propagation: Vec<u64>,
    pub bind: bool,
    pub bind_recursive: bool,
    pub copy_up: bool,
    pub idmap: bool,
    /// What is left for the file system itself.
    pub data: Vec<String>,
}

/// (word, MS_* bit, attribute to set, attributes to clear)
const FLAGS: &[(&str, u64, u64, u64)] = &[
    ("ro", libc::MS_RDONLY, ATTR_RDONLY, 0),
    ("rw", 0, 0, ATTR_RDONLY),
    ("nosuid", libc::MS_NOSUID, ATTR_NOSUID, 0),
    ("suid", 0, 0, ATTR_NOSUID),
    ("nodev", libc::MS_NODEV, ATTR_NODEV, 0),
    ("dev", 0, 0, ATTR_NODEV),
    ("noexec", libc::MS_NOEXEC, ATTR_NOEXEC, 0),
    ("exec", 0, 0, ATTR_NOEXEC),
    ("noatime", libc::MS_NOATIME, ATTR_NOATIME, ATTR_ATIME),
    ("atime", 0, 0, ATTR_ATIME),
    ("relatime", libc::MS_RELATIME, 0, ATTR_ATIME),
    ("norelatime", 0, 0, ATTR_ATIME),
    (
        "strictatime",
        libc::MS_STRICTATIME,
        ATTR_STRICTATIME,
        ATTR_ATIME,
    ),
    ("nostrictatime", 0, 0, ATTR_ATIME),
    ("nodiratime", libc::MS_NODIRATIME, ATTR_NODIRATIME, 0),
    ("diratime", 0, 0, ATTR_NODIRATIME),
    ("nosymfollow", 0x100, ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, 0, ATTR_NOSYMFOLLOW),
];

/// Words of mount(2) alone.
const SUPERBLOCK: &[(&str, u64, bool)] = &[
    ("sync", libc::MS_SYNCHRONOUS, true),
    ("async", libc::MS_SYNCHRONOUS, false),
    ("dirsync", libc::MS_DIRSYNC, true),
    ("mand", libc::MS_MANDLOCK, true),
    ("nomand", libc::MS_MANDLOCK, false),
    ("iversion", libc::MS_I_VERSION, true),
    ("noiversion", libc::MS_I_VERSION, false),
    ("lazytime", libc::MS_LAZYTIME, true),
    ("nolazytime", libc::MS_LAZYTIME, false),
    ("silent", libc::MS_SILENT, true),
    ("loud", libc::MS_SILENT, false),
    ("remount", libc::MS_REMOUNT, true),
    ("defaults", 0, true),
];

/// The propagation that a word stands for.
pub fn propagation(word: &str) -> Option<u64> {
    Some(match word {
        "private" => libc::MS_PRIVATE,
        "rprivate" => libc::MS_PRIVATE | libc::MS_REC,
        "shared" => libc::MS_SHARED,
        "rshared" => libc::MS_SHARED | libc::MS_REC,
        "slave" => libc::MS_SLAVE,
        "rslave" => libc::MS_SLAVE | libc::MS_REC,
        "unbindable" => libc::MS_UNBINDABLE,
        "runbindable" => libc::MS_UNBINDABLE | libc::MS_REC,
        _ => return None,
    })
}

fn apply(attr: &mut MountAttr, set: u64, clear: u64) {
    attr.set &= !clear;
    attr.clear &= !set;
    attr.set |= set;
    attr.clear |= clear;
}

pub fn parse(words: &[String]) -> Options {
    let mut options = Options::default();
    for word in words {
        if let Some((_, flag, set, clear)) = FLAGS.iter().find(|(name, ..)| name == word) {
            apply(&mut options.attr, *set, *clear);
            options.flags |= flag;
            options.flags &= !cleared_flags(*set, *clear);
        } else if let Some((_, set, clear)) = recursive(word) {
            apply(&mut options.recursive, set, clear);
        } else if let Some((_, flag, on)) = SUPERBLOCK.iter().find(|(name, ..)| name == word) {
            options.flags = if *on {
                options.flags | flag
            } else {
                options.flags & !flag
            };
        } else if let Some(flags) = propagation(word) {
            options.propagation.push(flags);
        } else {
            match word.as_str() {
                "bind" => options.bind = true,
                "rbind" => (options.bind, options.bind_recursive) = (true, true),
                "tmpcopyup" => options.copy_up = true,
                "idmap" | "ridmap" => options.idmap = true,
                _ => options.data.push(word.clone()),
            }
        }
    }
    options
}

/// The MS_* bits that a word takes away.
fn cleared_flags(set: u64, clear: u64) -> u64 {
    let pairs = [
        (ATTR_RDONLY, libc::MS_RDONLY),
        (ATTR_NOSUID, libc::MS_NOSUID),
        (ATTR_NODEV, libc::MS_NODEV),
        (ATTR_NOEXEC, libc::MS_NOEXEC),
        (ATTR_NODIRATIME, libc::MS_NODIRATIME),
    ];
    pairs
        .iter()
        .filter(|(attr, _)| clear & !set & attr != 0)
        .map(|(_, flag)| flag)
        .sum()
}

/// "rro", "rnosuid" …: an "r" before a word of [`FLAGS`].
fn recursive(word: &str) -> Option<(&'static str, u64, u64)> {
    let plain = word.strip_prefix('r')?;
    FLAGS
        .iter()
        .find(|(name, ..)| *name == plain)
        .map(|(name, _, set, clear)| (*name, *set, *clear))
}

/// The words that `features` lists.
pub fn known_words() -> Vec<String> {
    let mut words: Vec<String> = FLAGS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    words.extend(FLAGS.iter().map(|(name, ..)| format!("r{name}")));
    words.extend(SUPERBLOCK.iter().map(|(name, ..)| (*name).to_owned()));
    let propagations = ["private", "shared", "slave", "unbindable"];
    words.extend(
        propagations
            .iter()
            .flat_map(|name| [(*name).to_owned(), format!("r{name}")]),
    );
    words.extend(["bind", "rbind", "tmpcopyup"].map(str::to_owned));
    words.sort();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Options {
        parse(&line.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn docker_tmpfs() {
        let options = of("nosuid,strictatime,mode=755,size=65536k");
        assert_eq!(options.flags, libc::MS_NOSUID | libc::MS_STRICTATIME);
        assert_eq!(options.data, ["mode=755", "size=65536k"]);
        assert!(!options.bind);
    }

    #[test]
    fn bind_with_attributes() {
        let options = of("rbind,rro,nodev,rprivate");
        assert!(options.bind && options.bind_recursive);
        assert_eq!(options.recursive.set, ATTR_RDONLY);
        assert_eq!(options.attr.set, ATTR_NODEV);
        assert_eq!(options.propagation, [libc::MS_PRIVATE | libc::MS_REC]);
    }

    #[test]
    fn later_words_win() {
        assert_eq!(
            of("ro,rw").attr,
            MountAttr {
                clear: ATTR_RDONLY,
                ..MountAttr::default()
            }
        );
        assert_eq!(of("ro,rw").flags, 0);
        assert_eq!(of("noexec,exec,nodev").flags, libc::MS_NODEV);
        assert_eq!(of("rw,ro").attr.set, ATTR_RDONLY);
        let atime = of("noatime,strictatime").attr;
        // The kernel wants all access-time bits cleared when one is set.
        assert_eq!((atime.set, atime.clear), (ATTR_STRICTATIME, ATTR_ATIME));
    }
}
