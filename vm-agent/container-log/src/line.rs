//! One line of Docker's json-file format: `{"log":"…","stream":"stdout","attrs":{…},"time":"…"}`; without `attrs` when there are none.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;

use crate::attach_protocol::StreamKind;
use crate::time::Timestamp;

/// The member that carries the attributes, ready for [`encode`]; empty when there are none.
pub(crate) fn encode_attributes(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    if attributes.is_empty() {
        return Vec::new();
    }
    let mut out = b",\"attrs\":{".to_vec();
    for (at, (key, value)) in attributes.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        encode_text(&mut out, key);
        out.extend_from_slice(b"\":\"");
        encode_text(&mut out, value);
        out.push(b'"');
    }
    out.push(b'}');
    out
}

/// Appends one record. Bytes that are not UTF-8 become U+FFFD, as under Docker.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    log: &[u8],
    stream: StreamKind,
    attributes: &[u8],
    time: &str,
) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in log.utf8_chunks() {
        encode_text(out, chunk.valid());
        // Docker writes one replacement for each bad byte.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.push(b'"');
    out.extend_from_slice(attributes);
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

fn encode_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, byte) in bytes.iter().enumerate() {
        // Most bytes need no escape: copy them in runs.
        if *byte >= 0x20 && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&') {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            // Writing to a Vec does not fail.
            other => drop(write!(out, "\\u{other:04x}")),
        }
    }
    out.extend_from_slice(&bytes[plain..]);
}

/// A decoded record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub log: Vec<u8>,
    pub stream: StreamKind,
    pub attributes: BTreeMap<String, String>,
    pub time: Timestamp,
}

/// Decodes one record, with or without its line feed; `None` for a torn or foreign line.
pub(crate) fn decode(line: &[u8]) -> Option<Record> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(default, borrow)]
        log: Cow<'a, str>,
        #[serde(default, borrow)]
        stream: Cow<'a, str>,
        #[serde(default, rename = "attrs")]
        attributes: BTreeMap<String, String>,
        #[serde(borrow)]
        time: Cow<'a, str>,
    }
    let raw: Raw = serde_json::from_slice(line).ok()?;
    Some(Record {
        log: raw.log.into_owned().into_bytes(),
        stream: match &*raw.stream {
            "stderr" => StreamKind::Stderr,
            _ => StreamKind::Stdout,
        },
        attributes: raw.attributes,
        time: Timestamp::parse(&raw.time).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-23T18:30:00.5Z";

    #[test]
    fn encoding() {
        for (log, json) in [
            (&b"hello\n"[..], r"hello\n"),
            (b"a\"b\\c\td\r", r#"a\"b\\c\u0009d\r"#),
            (b"<&>", r"\u003c\u0026\u003e"),
            (b"x\xff\xfey", r"x\ufffd\ufffdy"),
            ("\u{e4}\u{1f600}".as_bytes(), "\u{e4}\u{1f600}"),
        ] {
            let mut out = Vec::new();
            encode(&mut out, log, StreamKind::Stderr, b"", TIME);
            let expected =
                format!("{{\"log\":\"{json}\",\"stream\":\"stderr\",\"time\":\"{TIME}\"}}\n");
            assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
            let record = decode(&out).unwrap();
            assert_eq!(record.log, String::from_utf8_lossy(log).as_bytes());
            assert_eq!(
                (record.stream, record.time.to_string().as_str()),
                (StreamKind::Stderr, TIME)
            );
        }
    }

    #[test]
    fn attributes() {
        let attributes = [("b", "\"x\""), ("a", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let attributes = BTreeMap::from(attributes);
        let mut out = Vec::new();
        let member = encode_attributes(&attributes);
        encode(&mut out, b"x", StreamKind::Stdout, &member, TIME);
        let expected = r#"{"log":"x","stream":"stdout","attrs":{"a":"1","b":"\"x\""},"time":"2026-11-23T18:30:00.5Z"}"#;
        assert_eq!(
            String::from_utf8(out.clone()).unwrap(),
            format!("{expected}\n")
        );
        assert_eq!(decode(&out).unwrap().attributes, attributes);
    }

    #[test]
    fn torn_lines() {
        for line in [&b""[..], b"{\"log\":\"x", b"null", b"{}", b"\0\0\0"] {
            assert_eq!(decode(line), None);
        }
    }
}
