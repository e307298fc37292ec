//! Identifiers: random 64-digit ids as Docker's, and which of them a prefix means.

use rand::Rng;

/// 64 hexadecimal digits; not all decimal, so that a short id is never read as a number (as Docker's).
pub fn new_id() -> String {
    loop {
        let id = hex::encode(rand::rng().random::<[u8; 32]>());
        if id[..12].bytes().any(|b| b.is_ascii_alphabetic()) {
            return id;
        }
    }
}

/// The form that lists show.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// What a prefix stands for among `ids`.
#[derive(Debug, PartialEq, Eq)]
pub enum PrefixMatch<'a> {
    None,
    One(&'a str),
    Several,
}

pub fn by_prefix<'a>(ids: impl Iterator<Item = &'a str>, prefix: &str) -> PrefixMatch<'a> {
    let mut found = PrefixMatch::None;
    if prefix.is_empty() {
        return found;
    }
    for id in ids.filter(|id| id.starts_with(prefix)) {
        if id == prefix {
            return PrefixMatch::One(id);
        }
        found = match found {
            PrefixMatch::None => PrefixMatch::One(id),
            _ => PrefixMatch::Several,
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_name_one_none_or_several() {
        let ids = ["abc1", "abd2", "abc"];
        assert_eq!(by_prefix(ids.into_iter(), "abc"), PrefixMatch::One("abc"));
        assert_eq!(by_prefix(ids.into_iter(), "abd"), PrefixMatch::One("abd2"));
        assert_eq!(by_prefix(ids.into_iter(), "ab"), PrefixMatch::Several);
        assert_eq!(by_prefix(ids.into_iter(), "x"), PrefixMatch::None);
        assert_eq!(by_prefix(ids.into_iter(), ""), PrefixMatch::None);
    }
}
