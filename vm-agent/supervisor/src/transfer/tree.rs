//! What an image is made of in the content store: its indexes, manifests, configurations and layers.

use std::collections::HashSet;

use longshore_supervisor_api::types::{Descriptor, Platform};

use super::manifest::{Link, Manifest, Node};
use crate::core::Core;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Manifests are small; more is a mistake or an attack.
pub const SMALL: u64 = 8 * 1024 * 1024;
/// An index in an index is allowed; deeper nesting is nobody's.
const DEPTH: usize = 3;

/// Everything under one manifest or index that is to travel, each piece once, children before what names them.
#[derive(Default)]
pub struct Tree {
    /// Configurations and layers.
    pub blobs: Vec<Link>,
    /// Manifests and indexes with their text.
    pub manifests: Vec<(Link, Vec<u8>)>,
    /// The images in it, in the index's order.
    pub images: Vec<(Link, Manifest)>,
    seen: HashSet<String>,
}

/// Which of an index's manifests count.
pub enum Wanted<'a> {
    /// Those of these platforms; all when there are none. What is not in the store is left out.
    Present(&'a [Platform]),
    /// Every one; what is not in the store is an error.
    Complete,
}

impl Tree {
    pub fn of(
        core: &Core,
        namespace: &str,
        target: &Descriptor,
        wanted: &Wanted<'_>,
    ) -> Result<Self> {
        let mut tree = Self::default();
        tree.add(core, namespace, &Link::from(target), wanted, 0)?;
        Ok(tree)
    }

    fn add(
        &mut self,
        core: &Core,
        namespace: &str,
        link: &Link,
        wanted: &Wanted<'_>,
        depth: usize,
    ) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::InvalidArgument(
                "indexes are nested too deeply".into(),
            ));
        }
        if self.seen.contains(&link.digest) {
            return Ok(());
        }
        let digest: Digest = link.digest.parse()?;
        core.content_info(namespace, digest.as_str())?;
        let bytes = core.content.read_small(&digest, SMALL)?;
        match Node::parse(&link.media_type, &bytes)? {
            Node::Manifest(manifest) => {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    // Also what is not in this namespace does not travel.
                    core.content_info(namespace, &blob.digest)?;
                    if self.seen.insert(blob.digest.clone()) {
                        self.blobs.push(blob.clone());
                    }
                }
                self.images.push((link.clone(), manifest));
            }
            Node::Index(index) => {
                for child in &index.manifests {
                    if let Wanted::Present(platforms) = wanted {
                        let fits = platforms.is_empty()
                            || platforms.iter().any(|platform| child.is_for(platform));
                        if !fits || core.content_info(namespace, &child.digest).is_err() {
                            continue;
                        }
                    }
                    self.add(core, namespace, child, wanted, depth + 1)?;
                }
            }
        }
        self.seen.insert(link.digest.clone());
        self.manifests.push((link.clone(), bytes));
        Ok(())
    }
}
