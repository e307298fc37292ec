//! Where the guest image is.

use std::path::PathBuf;

pub const FILES: [&str; 4] = ["kernel", "initramfs", "root.erofs", "manifest.json"];

/// The folder of the image: `LONGSHORE_GUEST_IMAGE`, beside the programs, or beside cargo's `target/`.
///
/// The error names every place that was looked at.
pub fn find() -> Result<PathBuf, String> {
    let mut places = Vec::new();
    if let Some(path) = std::env::var_os("LONGSHORE_GUEST_IMAGE").filter(|p| !p.is_empty()) {
        places.push(PathBuf::from(path));
    } else if let Some(folder) = std::env::current_exe()
        .ok()
        .and_then(|p| Some(p.parent()?.to_owned()))
    {
        let image = PathBuf::from("guest-image").join(std::env::consts::ARCH);
        // `target/debug` and `target/TRIPLE/debug` are two and three below the folder with `target/guest-image`.
        places.extend(folder.ancestors().take(3).map(|f| f.join(&image)));
    }
    let found = places.iter().find(|p| p.join("manifest.json").is_file());
    match found {
        Some(path) => Ok(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        None => Err(format!(
            "no guest image: looked for manifest.json in {}",
            places
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}
