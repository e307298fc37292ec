//! One JSON value a line, with a bound on the line's length.

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line that either side accepts, in bytes, with the newline.
pub const MAX_LINE: usize = 256 * 1024;

/// Why a line could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("read a line: {0}")]
    Read(#[source] std::io::Error),
    #[error("write a line: {0}")]
    Write(#[source] std::io::Error),
    #[error("the line is longer than {max} bytes")]
    TooLong { max: usize },
    #[error("the stream ended in the middle of a line")]
    Torn,
    #[error("the line is not the expected JSON: {0}")]
    Parse(#[source] serde_json::Error),
    #[error("make JSON of a message: {0}")]
    Encode(#[source] serde_json::Error),
}

/// Reads one line and parses it; `None` at the end of the stream.
///
/// Takes nothing beyond the newline out of `reader`: raw bytes may follow.
pub async fn read_json<T, R>(reader: &mut R) -> Result<Option<T>, LineError>
where
    T: DeserializeOwned,
    R: AsyncBufRead + Unpin + ?Sized,
{
    match read_line(reader, MAX_LINE).await? {
        Some(line) => serde_json::from_slice(&line)
            .map(Some)
            .map_err(LineError::Parse),
        None => Ok(None),
    }
}

/// Reads one line of at most `max` bytes, without its newline; `None` at the end of the stream.
pub async fn read_line<R>(reader: &mut R, max: usize) -> Result<Option<Vec<u8>>, LineError>
where
    R: AsyncBufRead + Unpin + ?Sized,
{
    let mut line = Vec::new();
    loop {
        let chunk = reader.fill_buf().await.map_err(LineError::Read)?;
        if chunk.is_empty() {
            return if line.is_empty() {
                Ok(None)
            } else {
                Err(LineError::Torn)
            };
        }
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let taken = newline.unwrap_or(chunk.len());
        if line.len() + taken >= max {
            return Err(LineError::TooLong { max });
        }
        line.extend_from_slice(&chunk[..taken]);
        reader.consume(taken + usize::from(newline.is_some()));
        if newline.is_some() {
            return Ok(Some(line));
        }
    }
}

/// Writes one value as a line, in one write, and flushes.
pub async fn write_json<T, W>(writer: &mut W, value: &T) -> Result<(), LineError>
where
    T: Serialize,
    W: AsyncWrite + Unpin + ?Sized,
{
    let mut line = serde_json::to_vec(value).map_err(LineError::Encode)?;
    line.push(b'\n');
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong { max: MAX_LINE });
    }
    writer.write_all(&line).await.map_err(LineError::Write)?;
    writer.flush().await.map_err(LineError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, BufReader};

    #[tokio::test]
    async fn lines_are_bounded_and_raw_bytes_after_them_stay() {
        let mut reader = BufReader::with_capacity(3, &b"{\"a\":1}\nraw"[..]);
        let value: serde_json::Value = read_json(&mut reader).await.unwrap().unwrap();
        assert_eq!(value["a"], 1);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "raw");

        let cases: [(&[u8], &str); 3] = [
            (b"0123456789\n", "the line is longer than 10 bytes"),
            (b"01234", "the stream ended in the middle of a line"),
            (b"012345678901234", "the line is longer than 10 bytes"),
        ];
        for (bytes, message) in cases {
            let error = read_line(&mut &bytes[..], 10).await.unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        assert!(read_line(&mut &b""[..], 10).await.unwrap().is_none());
        assert_eq!(
            read_line(&mut &b"012345678\n"[..], 10)
                .await
                .unwrap()
                .unwrap()
                .len(),
            9
        );
    }
}
