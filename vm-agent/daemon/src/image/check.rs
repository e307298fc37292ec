//! Whether an image is whole: its manifest, its configuration, every layer, and the snapshots that its containers stand on.

use std::collections::HashSet;

use super::{Images, Platform, StoredImage};

impl Images {
    /// What is missing of an image, a line each; `snapshots` are the names of all that the store has.
    pub async fn missing(&self, image: &StoredImage, snapshots: &HashSet<String>) -> Vec<String> {
        let platform = Platform::host();
        let name = &image.name;
        let parsed = match self.content.image(&image.target, &platform).await {
            Ok(parsed) => parsed,
            Err(error) => return vec![format!("image {name}: {}", error.message)],
        };
        let mut missing = Vec::new();
        for layer in &parsed.layers {
            if !self.content.is_here(&layer.digest).await {
                missing.push(format!("image {name}: layer {} is gone", layer.digest));
            }
        }
        // Images of other platforms are kept without being unpacked.
        if parsed.config.architecture == platform.architecture && parsed.config.os == platform.os {
            let gone = parsed.chain_ids().into_iter();
            missing.extend(
                gone.filter(|chain| !snapshots.contains(chain))
                    .map(|chain| format!("image {name}: snapshot {chain} is gone")),
            );
        }
        missing
    }
}
