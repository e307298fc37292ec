//! The layer that Docker puts between an image and a container's own: it holds what every container has and no image gets by
//! `commit`. Here it is one folder for all, and only a further layer of their mounts.

use super::Containers;
use super::output::OUR_SHIM;
use crate::supervisor::api::types::Mount;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// containerd's shims mount through one page of options, which they shorten by what the folders' names have in common; ours
/// gives the kernel each folder by itself.
const LONGEST_FOR_OTHERS: usize = 3 << 10;

/// Makes the folder, with the file by which programs notice that they run in a container.
pub fn make(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let file = folder.join(".dockerenv");
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o755).open(file) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Containers {
    /// The mounts of a container's snapshot with the layer on its image. A snapshot without an image is as it was.
    pub fn with_init_layer(&self, mut mounts: Vec<Mount>, shim: &str) -> Vec<Mount> {
        let folder = self.config.data("init-layer");
        add(&mut mounts, &folder.to_string_lossy(), shim == OUR_SHIM);
        mounts
    }
}

fn add(mounts: &mut [Mount], folder: &str, any_length: bool) {
    let [mount] = mounts else { return };
    let options = mount.options.iter_mut();
    for option in options {
        if let Some(layers) = option.strip_prefix("lowerdir=")
            && (any_length || layers.len() + folder.len() < LONGEST_FOR_OTHERS)
        {
            *option = format!("lowerdir={folder}:{layers}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(layers: &str) -> Vec<Mount> {
        let options = ["workdir=/w", "upperdir=/u", layers];
        vec![Mount {
            r#type: "overlay".to_owned(),
            options: options.map(str::to_owned).to_vec(),
            ..Mount::default()
        }]
    }

    #[test]
    fn it_lies_on_the_image_and_below_the_containers_own() {
        let mut mounts = overlay("lowerdir=/top:/base");
        add(&mut mounts, "/init", true);
        let expected = ["workdir=/w", "upperdir=/u", "lowerdir=/init:/top:/base"];
        assert_eq!(mounts[0].options, expected);
    }

    #[test]
    fn other_shims_get_no_more_layers_than_they_can_mount() {
        let many = format!("lowerdir={}", ["/snapshots/1234/fs"; 200].join(":"));
        let mut mounts = overlay(&many);
        add(&mut mounts, "/init", false);
        assert_eq!(mounts[0].options[2], many);
        add(&mut mounts, "/init", true);
        assert!(mounts[0].options[2].starts_with("lowerdir=/init:/snapshots"));
    }

    #[test]
    fn the_file_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let layer = folder.path().join("layer");
        make(&layer).unwrap();
        make(&layer).unwrap();
        assert!(layer.join(".dockerenv").is_file());
    }
}
