//! Content digests: `sha256:` and 64 hex digits.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A verified-to-be-well-formed digest; its hex part is safe as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Digest(String);

const PREFIX: &str = "sha256:";

impl Digest {
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::default();
        digester.update(bytes);
        digester.finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex_ok = |hex: &str| {
            hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        match text.strip_prefix(PREFIX) {
            Some(hex) if hex_ok(hex) => Ok(Self(text.into())),
            Some(_) => Err(Error::InvalidArgument(format!(
                "invalid checksum digest format: {text:?}"
            ))),
            None => Err(Error::InvalidArgument(format!(
                "unsupported digest algorithm: {text:?}"
            ))),
        }
    }
}

/// A running sha256.
#[derive(Clone, Default)]
pub struct Digester(sha2::Sha256);

impl Digester {
    pub fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    pub fn current(&self) -> Digest {
        self.clone().finish()
    }

    pub fn finish(self) -> Digest {
        Digest(format!(
            "{PREFIX}{}",
            hex::encode(sha2::Digest::finalize(self.0))
        ))
    }
}

/// The chain id of layers (OCI image specification, "Layer ChainID"): names a stack by its DiffIDs.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digest_and_bad_ones() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert!(empty.parse::<Digest>().is_ok());
        for bad in [
            "",
            "sha256:",
            "sha256:../../x",
            &empty.to_uppercase(),
            "sha512:aa",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn chains() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
        assert!(chain_ids(&[]).is_empty());
    }
}
