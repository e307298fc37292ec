//! The little of DNS that the embedded name service speaks itself (RFC 1035 section 4).

use std::net::Ipv4Addr;

pub const TYPE_A: u16 = 1;
pub const TYPE_PTR: u16 = 12;
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

/// The address that a reverse question (`2.0.18.172.in-addr.arpa`) asks about.
pub fn reverse_address(name: &str) -> Option<Ipv4Addr> {
    let mut octets: Vec<u8> = name
        .strip_suffix(".in-addr.arpa")?
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    octets.reverse();
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
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

pub fn addresses(query: &[u8], question: &Question, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let mut reply = head(query, question, NO_ERROR, addresses.len());
    for address in addresses {
        record(&mut reply, TYPE_A, &address.octets());
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
        let reply = addresses(&query, &question, &[Ipv4Addr::new(172, 18, 0, 2)]);
        assert_eq!(&reply[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(reply.ends_with(&[0, 4, 172, 18, 0, 2]));
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
        let address = Ipv4Addr::new(172, 18, 0, 2);
        assert_eq!(reverse_address("2.0.18.172.in-addr.arpa"), Some(address));
        assert_eq!(reverse_address("2.0.18.in-addr.arpa"), None);
        assert_eq!(reverse_address("example.org"), None);
    }
}
