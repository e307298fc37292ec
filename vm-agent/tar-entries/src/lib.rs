//! Going through a tar archive whose headers are bounded.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use tar::{Archive, Entry, Header};

/// Go's archive/tar, and so Docker, takes no more for an entry's long names and PAX records (`maxSpecialFileSize`). The
/// tar library reads them whole into memory: without a bound, a few compressed kilobytes could fill it.
const MAX_HEADERS: u64 = 1 << 20;

/// A reader that fails when an entry's headers do not end.
pub struct Bounded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the names and attributes of an entry are larger than 1 MiB",
            ));
        }
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

/// Calls `each` with every entry in order; `bad` words what is wrong with the archive itself.
pub fn for_each<R: Read, E>(
    archive: R,
    bad: impl Fn(io::Error) -> E,
    mut each: impl FnMut(&mut Entry<'_, Bounded<R>>) -> Result<(), E>,
) -> Result<(), E> {
    let left = Rc::new(Cell::new(u64::MAX));
    let mut archive = Archive::new(Bounded {
        inner: archive,
        left: left.clone(),
    });
    let mut entries = archive.entries().map_err(&bad)?;
    loop {
        left.set(MAX_HEADERS);
        let Some(entry) = entries.next() else {
            return Ok(());
        };
        left.set(u64::MAX);
        let mut entry = entry.map_err(&bad)?;
        each(&mut entry)?;
        // What nobody read of it is no header of the next.
        io::copy(&mut entry, &mut io::sink()).map_err(&bad)?;
    }
}

/// Who owns an entry, its mode, and its time in seconds of the epoch.
pub struct Attributes {
    pub uid: u64,
    pub gid: u64,
    pub mode: u32,
    pub mtime: i64,
}

/// A field that the archive left empty is zero, as Go's archive/tar has it; the tar library refuses it.
pub fn attributes(header: &Header) -> io::Result<Attributes> {
    let raw = header.as_old();
    let is_empty = |field: &[u8]| field.iter().all(|byte| matches!(byte, 0 | b' '));
    let number = |field: &[u8], read: io::Result<u64>| match is_empty(field) {
        true => Ok(0),
        false => read,
    };
    Ok(Attributes {
        uid: number(&raw.uid, header.uid())?,
        gid: number(&raw.gid, header.gid())?,
        mode: number(&raw.mode, header.mode().map(u64::from))? as u32,
        mtime: number(&raw.mtime, header.mtime())? as i64,
    })
}
