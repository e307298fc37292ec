//! Repository checks (dependency direction, maps) and test images.

mod dependencies;
mod image_archive;
mod maps;

use anyhow::{Result, bail};

const USAGE: &str = "usage: xtask check
       xtask image-archive --tag NAME:TAG --out FILE [--cmd WORD]... [--env K=V]... LAYER.tar...";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("check") => {
            dependencies::check()?;
            maps::check()?;
            println!("xtask check: dependency direction and maps hold");
            Ok(())
        }
        Some("image-archive") => image_archive::write(arguments),
        _ => bail!("{USAGE}"),
    }
}
