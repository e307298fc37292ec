//! A file system of a few megabytes, which root may mount.

use std::path::Path;
use std::process::Command;

use super::expect_success;

/// One in memory at a folder, for as long as this lives.
pub struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// `size` as mount(8) takes it, such as `700m`.
    pub fn mount(folder: &'a Path, size: &str) -> Self {
        mount(&["-t", "tmpfs", "tmpfs"], folder, size);
        Self(folder)
    }

    /// Takes room away, or gives some: not less than what is used.
    pub fn resize(&self, size: &str) {
        mount(&[], self.0, &format!("{size},remount"));
    }
}

fn mount(what: &[&str], folder: &Path, size: &str) {
    let output = Command::new("mount")
        .args(["-o", &format!("mode=700,size={size}")])
        .args(what)
        .arg(folder)
        .output();
    expect_success(&output.expect("mount"), "mount, which root may");
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: what was started from there may be on its way down.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
