//! Amounts of memory and disk as people write them: `2g`, `512m`, `64GiB`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes. Units are powers of 1024, as in Docker's `--memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(char, u64); 4] = [
    ('t', 1 << 40),
    ('g', 1 << 30),
    ('m', 1 << 20),
    ('k', 1 << 10),
];

impl Size {
    pub const fn gib(n: u64) -> Self {
        Size(n << 30)
    }

    pub const fn mib(n: u64) -> Self {
        Size(n << 20)
    }

    pub fn bytes(self) -> u64 {
        self.0
    }

    pub fn as_mib(self) -> u64 {
        self.0 >> 20
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid size {0:?}: write a number and a unit, such as 512m, 2g or 64GiB")]
pub struct BadSize(String);

impl FromStr for Size {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let bad = || BadSize(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let digits_end = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits_end);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let unit = unit.trim_start();
        let factor = match unit {
            "" | "b" => 1,
            _ => {
                let letter = unit.chars().next().ok_or_else(bad)?;
                let &(_, factor) = UNITS.iter().find(|(u, _)| *u == letter).ok_or_else(bad)?;
                if !["", "b", "ib"].contains(&&unit[1..]) {
                    return Err(bad());
                }
                factor
            }
        };
        let bytes = number * factor as f64;
        // Above 2^53 a float no longer counts single bytes; no disk is that large.
        if !(0.0..9e15).contains(&bytes) {
            return Err(bad());
        }
        Ok(Size(bytes as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, factor) in UNITS {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{letter}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Bytes(u64),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Bytes(bytes) => Ok(Size(bytes)),
            Raw::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let table = [
            ("2g", Some(2 << 30)),
            ("2G", Some(2 << 30)),
            ("2GiB", Some(2 << 30)),
            ("512 mb", Some(512 << 20)),
            ("1.5g", Some(3 << 29)),
            ("64k", Some(65536)),
            ("1024", Some(1024)),
            ("7b", Some(7)),
            ("", None),
            ("g", None),
            ("-2g", None),
            ("2x", None),
            ("2gx", None),
            ("1e9", None),
            ("99999999t", None),
            ("2é", None),
            ("2gé", None),
        ];
        for (text, want) in table {
            assert_eq!(text.parse::<Size>().ok().map(Size::bytes), want, "{text:?}");
        }
    }

    #[test]
    fn writes_the_largest_whole_unit() {
        for (bytes, want) in [
            (2 << 30, "2g"),
            (1536 << 20, "1536m"),
            (1000, "1000"),
            (0, "0"),
        ] {
            assert_eq!(Size(bytes).to_string(), want);
        }
    }
}
