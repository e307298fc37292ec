//! Rotated files packed with gzip: `x.1.gz` in the place of `x.1`.
//!
//! A packed file names the inode that it was packed from, so that a reader that still has that one open knows it again.

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use flate2::{Compression, GzBuilder};

/// Name of the packed form of a rotated file.
pub(crate) fn name(plain: &Path) -> PathBuf {
    with(plain, ".gz")
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Packs a file and removes the plain one; until then the packed one is not to be seen.
pub(crate) fn pack(plain: &Path) -> io::Result<()> {
    let mut source = File::open(plain)?;
    let unfinished = with(plain, ".gz.tmp");
    let target = File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o640)
        .open(&unfinished)?;
    let packed = || -> io::Result<()> {
        let origin = source.metadata()?.ino().to_string();
        let mut encoder = GzBuilder::new()
            .comment(origin)
            .write(target, Compression::fast());
        io::copy(&mut source, &mut encoder)?;
        encoder.finish()?.flush()
    };
    let done = { packed }().and_then(|()| fs::rename(&unfinished, name(plain)));
    match done {
        Ok(()) => fs::remove_file(plain),
        Err(error) => {
            drop(fs::remove_file(&unfinished));
            Err(error)
        }
    }
}

/// The inode that a packed file was packed from.
pub(crate) fn origin(packed: &File) -> Option<u64> {
    let mut packed = BufReader::with_capacity(512, packed.try_clone().ok()?);
    packed.rewind().ok()?;
    let mut decoder = MultiGzDecoder::new(packed);
    // The header is read with the first byte.
    io::Read::read(&mut decoder, &mut [0]).ok()?;
    std::str::from_utf8(decoder.header()?.comment()?)
        .ok()?
        .parse()
        .ok()
}

/// What a packed file holds, in a file without a name beside it.
pub(crate) fn unpack(packed: &File, folder: &Path) -> io::Result<File> {
    let mut packed = BufReader::new(packed.try_clone()?);
    packed.rewind()?;
    let mut plain = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(folder)?;
    io::copy(&mut MultiGzDecoder::new(packed), &mut plain)?;
    plain.rewind()?;
    Ok(plain)
}
