//! Seccomp: the OCI configuration compiled to a classic BPF program, kept by content, installed.

mod assembler;
mod compile;
#[cfg(test)]
mod interpreter;
pub mod syscalls;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::spec::Seccomp;
use crate::{state, sys};

pub use compile::compile;

/// A program ready for seccomp(2).
pub struct Filter {
    pub program: Vec<libc::sock_filter>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u64,
}

const INSTRUCTION_SIZE: usize = 8;

impl Filter {
    pub fn install(&self) -> Result<()> {
        sys::seccomp_set_filter(self.flags, &self.program)
            .map_err(|errno| Error::Seccomp(format!("error loading seccomp filter: {errno}")))?;
        Ok(())
    }

    /// The program as the kernel takes it: struct sock_filter after struct sock_filter.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.program.len() * INSTRUCTION_SIZE);
        for one in &self.program {
            bytes.extend(one.code.to_ne_bytes());
            bytes.extend([one.jt, one.jf]);
            bytes.extend(one.k.to_ne_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8], flags: u64) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<INSTRUCTION_SIZE>();
        if words.is_empty() || !rest.is_empty() {
            return None;
        }
        let program = words
            .iter()
            .map(|word| libc::sock_filter {
                code: u16::from_ne_bytes([word[0], word[1]]),
                jt: word[2],
                jf: word[3],
                k: u32::from_ne_bytes([word[4], word[5], word[6], word[7]]),
            })
            .collect();
        Some(Filter { program, flags })
    }
}

/// The filter for a configuration, compiled once for each distinct text: nearly all containers
/// have the same default profile of several hundred calls.
pub fn load(root: &str, config: &RawValue) -> Result<Filter> {
    let cache = Path::new(root)
        .join(".seccomp")
        .join(format!("{:016x}", hash(config.get())));
    if let Some(filter) = read_cache(&cache, config.get()) {
        return Ok(filter);
    }
    let parsed: Seccomp = serde_json::from_str(config.get())
        .map_err(|error| Error::Seccomp(format!("linux.seccomp: {error}")))?;
    let filter = compile(&parsed)?;
    // The cache only saves time: a full disk must not stop the container.
    let _ = write_cache(&cache, config.get(), &filter);
    Ok(filter)
}

/// FNV-1a over 8-byte words: only finds the file, the content is compared whole.
fn hash(text: &str) -> u64 {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let tail = rest.iter().map(|byte| u64::from(*byte));
    words
        .iter()
        .map(|word| u64::from_ne_bytes(*word))
        .chain(tail)
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
            (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
        })
}

/// The key names the compiler too, so that an upgraded runtime does not use an old program.
const CACHE_MAGIC: &str = concat!("longshore seccomp 1 ", env!("CARGO_PKG_VERSION"), "\n");

fn write_cache(path: &Path, text: &str, filter: &Filter) -> Result<()> {
    let _ = fs::create_dir_all(path.parent().map_or_else(PathBuf::new, Path::to_path_buf));
    let mut content = CACHE_MAGIC.as_bytes().to_vec();
    content.extend(filter.flags.to_ne_bytes());
    content.extend((text.len() as u64).to_ne_bytes());
    content.extend(text.as_bytes());
    content.extend(filter.to_bytes());
    state::write_atomically(path, &content)
}

fn read_cache(path: &Path, text: &str) -> Option<Filter> {
    let content = fs::read(path).ok()?;
    let rest = content.strip_prefix(CACHE_MAGIC.as_bytes())?;
    let (flags, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    if u64::from_ne_bytes(*length) != text.len() as u64 {
        return None;
    }
    let program = rest.strip_prefix(text.as_bytes())?;
    Filter::from_bytes(program, u64::from_ne_bytes(*flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_returns_the_program_of_exactly_this_text() {
        let directory =
            std::env::temp_dir().join(format!("longshore-seccomp-{}", std::process::id()));
        let path = directory.join("x");
        let filter = compile(&Seccomp {
            default_action: "SCMP_ACT_ALLOW".to_owned(),
            ..Seccomp::default()
        })
        .unwrap();
        write_cache(&path, "{\"a\":1}", &filter).unwrap();
        let read = read_cache(&path, "{\"a\":1}").unwrap();
        assert_eq!(read.to_bytes(), filter.to_bytes());
        assert!(read_cache(&path, "{\"a\":2}").is_none());
        fs::remove_dir_all(directory).unwrap();
    }
}
