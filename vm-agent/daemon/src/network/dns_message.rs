//! The little of DNS that the embedded name service speaks itself (RFC 1035 section 4, RFC 3596 for IPv6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const TYPE_A: u16 = 1;
pub const TYPE_PTR: u16 = 12;
pub const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
const HEADER: usize = 12;
/// Short, since a name moves with its container.
const TTL: u32 = 600;

pub const SERVER_FAILURE: u8 = 2;
pub const NO_ERROR: u8 = 0;

/// The one question of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Lower case, without the final dot.
    pub name: String,
    pub kind: u16,
    /// Where the question ends in the message.
    end: usize,
}

/// Reads a standard query with one question; `None` for everything else, which is for the upstream to judge.
pub fn parse(message: &[u8]) -> Option<Question> {
    let header = message.get(..HEADER)?;
    let is_query = header[2] & 0xf8 == 0;
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if !is_query || questions != 1 {
        return None;
    }
    let (mut at, mut name) = (HEADER, String::new());
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        match len {
            0 => break,
            // A compressed name makes no sense in the first question.
            64.. => return None,
            _ => {
                let label = message.get(at..at + len)?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(
                    label
                        .iter()
                        .map(|byte| char::from(byte.to_ascii_lowercase())),
                );
                at += len;
            }
        }
        if name.len() > 255 {
            return None;
        }
    }
    let tail = message.get(at..at + 4)?;
    let kind = u16::from_be_bytes([tail[0], tail[1]]);
    let class = u16::from_be_bytes([tail[2], tail[3]]);
    (class == CLASS_IN).then_some(Question {
        name,
        kind,
        end: at + 4,
    })
}

/// The address that a reverse question asks about: `2.0.18.172.in-addr.arpa`, or 32 digits before `ip6.arpa`.
pub fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".ip6.arpa") {
        return reverse_ipv6(digits).map(IpAddr::V6);
    }
    let mut octets: Vec<u8> = name
        .strip_suffix(".in-addr.arpa")?
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    octets.reverse();
    let octets = <[u8; 4]>::try_from(octets).ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn reverse_ipv6(digits: &str) -> Option<Ipv6Addr> {
    let (mut bits, mut count) = (0u128, 0);
    for digit in digits.rsplit('.') {
        if digit.len() != 1 || count == 32 {
            return None;
        }
        bits = bits << 4 | u128::from(u8::from_str_radix(digit, 16).ok()?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits))
}

fn head(query: &[u8], question: &Question, code: u8, answers: usize) -> Vec<u8> {
    let mut reply = query[..question.end].to_vec();
    reply[2] = 0x80 | (query[2] & 0x01); // a response; recursion desired as asked
    reply[3] = 0x80 | code; // recursion available
    reply[6..12].copy_from_slice(&[0; 6]);
    reply[6..8].copy_from_slice(&(answers as u16).to_be_bytes());
    reply
}

fn record(reply: &mut Vec<u8>, kind: u16, data: &[u8]) {
    reply.extend_from_slice(&[0xc0, HEADER as u8]); // the question's name
    reply.extend_from_slice(&kind.to_be_bytes());
    reply.extend_from_slice(&CLASS_IN.to_be_bytes());
    reply.extend_from_slice(&TTL.to_be_bytes());
    reply.extend_from_slice(&(data.len() as u16).to_be_bytes());
    reply.extend_from_slice(data);
}

/// Those of the addresses that the question's type asks for; a name that has none of them still exists.
pub fn addresses(query: &[u8], question: &Question, addresses: &[IpAddr]) -> Vec<u8> {
    let wanted = |address: &&IpAddr| match question.kind {
        TYPE_A => address.is_ipv4(),
        TYPE_AAAA => address.is_ipv6(),
        _ => false,
    };
    let found: Vec<_> = addresses.iter().filter(wanted).collect();
    let mut reply = head(query, question, NO_ERROR, found.len());
    for address in found {
        match address {
            IpAddr::V4(address) => record(&mut reply, TYPE_A, &address.octets()),
            IpAddr::V6(address) => record(&mut reply, TYPE_AAAA, &address.octets()),
        }
    }
    reply
}

pub fn pointer(query: &[u8], question: &Question, name: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for label in name
        .split('.')
        .filter(|label| !label.is_empty() && label.len() < 64)
    {
        encoded.push(label.len() as u8);
        encoded.extend_from_slice(label.as_bytes());
    }
    encoded.push(0);
    let mut reply = head(query, question, NO_ERROR, 1);
    record(&mut reply, TYPE_PTR, &encoded);
    reply
}

/// A reply without records.
pub fn bare(query: &[u8], question: &Question, code: u8) -> Vec<u8> {
    head(query, question, code, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message
    }

    #[test]
    fn questions_are_read_and_answered() {
        let query = query("Web.Example", TYPE_A);
        let question = parse(&query).unwrap();
        assert_eq!(
            (question.name.as_str(), question.kind),
            ("web.example", TYPE_A)
        );
        let known = ["172.18.0.2", "fd00::2"].map(|text| text.parse().unwrap());
        let reply = addresses(&query, &question, &known);
        assert_eq!(&reply[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(reply.ends_with(&[0, 4, 172, 18, 0, 2]));
    }

    #[test]
    fn each_type_has_its_own_addresses() {
        let known = ["172.18.0.2", "fd00::2"].map(|text| text.parse().unwrap());
        let answers = |kind| {
            let query = query("web", kind);
            addresses(&query, &parse(&query).unwrap(), &known)
        };
        let sixes = answers(TYPE_AAAA);
        assert_eq!(sixes[7], 1);
        assert!(sixes.ends_with(&[0, 16, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]));
        // Text records: none, and no error.
        assert_eq!(answers(16)[3..8], [0x80, 0, 1, 0, 0]);
    }

    #[test]
    fn everything_else_is_left_to_the_upstream() {
        let mut response = query("a", TYPE_A);
        response[2] = 0x81;
        let mut compressed = query("a", TYPE_A);
        compressed[12] = 0xc0;
        for message in [
            &response[..],
            &compressed,
            &[0; 5],
            &query("a", TYPE_A)[..14],
        ] {
            assert_eq!(parse(message), None);
        }
    }

    #[test]
    fn reverse_names_become_addresses() {
        let address = "172.18.0.2".parse().unwrap();
        assert_eq!(reverse_address("2.0.18.172.in-addr.arpa"), Some(address));
        let sixth = format!("2.{}d.f.ip6.arpa", "0.".repeat(29));
        assert_eq!(reverse_address(&sixth), "fd00::2".parse().ok());
        assert_eq!(reverse_address("2.0.d.f.ip6.arpa"), None);
        assert_eq!(reverse_address(&format!("1.{sixth}")), None);
        assert_eq!(reverse_address("2.0.18.in-addr.arpa"), None);
        assert_eq!(reverse_address("example.org"), None);
    }
}
