//! Cuts one output stream into the lines that are logged.

/// Docker logs longer lines in pieces of this size, without a line feed but in the last.
const MAX_LINE: usize = 16 << 10;

/// Holds the line that is not finished yet.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Calls `emit` for each finished line, with its line feed, and for each full piece of a long
    /// one.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            let line = window.iter().position(|b| *b == b'\n').map(|at| at + 1);
            let take = line.unwrap_or(window.len());
            let done = line.is_some() || take == room;
            match (done, self.partial.is_empty()) {
                (true, true) => emit(&bytes[..take]),
                (true, false) => {
                    self.partial.extend_from_slice(&bytes[..take]);
                    emit(&self.partial);
                    self.partial.clear();
                }
                (false, _) => self.partial.extend_from_slice(&bytes[..take]),
            }
            bytes = &bytes[take..];
        }
        if self.partial.is_empty() && self.partial.capacity() > 1024 {
            self.partial = Vec::new();
        }
    }

    /// The unfinished line at the end of the output.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(writes: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        for bytes in writes {
            splitter.push(bytes, |line| out.push(line.to_vec()));
        }
        out.push(splitter.finish());
        out
    }

    #[test]
    fn splits() {
        assert_eq!(
            lines(&[b"a\nb", b"c\n", b"d"]),
            [&b"a\n"[..], b"bc\n", b"d"]
        );
        assert_eq!(lines(&[b"\n\n"]), [&b"\n"[..], b"\n", b""]);
        let long = vec![b'x'; MAX_LINE + 5];
        assert_eq!(
            lines(&[&long, b"\n"])
                .iter()
                .map(Vec::len)
                .collect::<Vec<_>>(),
            [MAX_LINE, 6, 0]
        );
        let exact = [vec![b'x'; MAX_LINE], b"\n".to_vec()].concat();
        assert_eq!(
            lines(&[&exact]).iter().map(Vec::len).collect::<Vec<_>>(),
            [MAX_LINE, 1, 0]
        );
    }
}
