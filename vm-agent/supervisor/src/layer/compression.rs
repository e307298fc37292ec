//! Telling how a stream is compressed by its first bytes, and undoing it.

use std::io::{self, BufRead, BufReader, Read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub fn of(first_bytes: &[u8]) -> Self {
        match first_bytes {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame (RFC 8878, 3.1.2), which zstd streams may begin with.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// Bytes that are looked at.
const PEEK: usize = 4;

/// A reader of what is inside, whatever the compression.
pub fn decompress<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut buffered = BufReader::with_capacity(64 * 1024, Peeked::new(reader)?);
    let kind = Compression::of(buffered.fill_buf()?);
    Ok(match kind {
        Compression::None => Box::new(buffered),
        // Several members one after the other are one stream (RFC 1952, 2.2).
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?),
    })
}

/// Gives the first bytes in one read, even when they arrive one by one.
struct Peeked<R> {
    first: io::Cursor<Vec<u8>>,
    rest: R,
}

impl<R: Read> Peeked<R> {
    fn new(mut rest: R) -> io::Result<Self> {
        let mut first = Vec::with_capacity(PEEK);
        (&mut rest).take(PEEK as u64).read_to_end(&mut first)?;
        Ok(Self {
            first: io::Cursor::new(first),
            rest,
        })
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.first.read(buffer)? {
            0 => self.rest.read(buffer),
            n => Ok(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn finds_out_by_itself() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"hello").unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&b"hello"[..], 1).unwrap();
        for bytes in [b"hello".to_vec(), gzip, zstd] {
            let mut text = String::new();
            decompress(&bytes[..])
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "hello");
        }
        let mut nothing = Vec::new();
        decompress(&b""[..])
            .unwrap()
            .read_to_end(&mut nothing)
            .unwrap();
        assert!(nothing.is_empty());
    }
}
