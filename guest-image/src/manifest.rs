//! `manifest.json`: what is in the image, with sizes and checksums.

use crate::lock::Package;
use serde::Serialize;
use sha2::{Digest, Sha256};

#[derive(Serialize)]
pub struct Manifest {
    pub format: u32,
    pub architecture: String,
    pub kernel_release: String,
    pub files: Vec<ImageFile>,
    /// Sum of the files' compressed sizes.
    pub compressed_size: u64,
    pub binaries: Vec<Binary>,
    pub packages: Vec<Package>,
}

#[derive(Serialize)]
pub struct ImageFile {
    pub name: String,
    pub size: u64,
    pub sha256: String,
    /// As it would travel, packed with zstd.
    pub compressed_size: u64,
}

#[derive(Serialize)]
pub struct Binary {
    pub name: String,
    pub size: u64,
    pub sha256: String,
}

impl ImageFile {
    pub fn new(name: &str, data: &[u8], compressed_size: u64) -> Self {
        Self {
            name: name.into(),
            size: data.len() as u64,
            sha256: sha256(data),
            compressed_size,
        }
    }
}

impl Binary {
    pub fn new(name: &str, data: &[u8]) -> Self {
        Self {
            name: name.into(),
            size: data.len() as u64,
            sha256: sha256(data),
        }
    }
}

fn sha256(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

/// Which sources belong to the image, for those who have a right to them (GPL, section 3; LGPL, section 4).
pub fn sources_text(packages: &[Package], suite: &str) -> String {
    let mut text = format!(
        "This guest image contains programs from Debian {suite}, most of them under the GNU GPL or LGPL.\n\
         The complete corresponding source of each is Debian's source package of the version below,\n\
         from any Debian mirror or from Debian's snapshot archive. Each package's licences are in licences/.\n\n"
    );
    for package in packages {
        text.push_str(&format!(
            "{} {}: source {} {}\n",
            package.name, package.version, package.source, package.source_version
        ));
    }
    text
}
