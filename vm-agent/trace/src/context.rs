//! W3C Trace Context's `traceparent`: which trace, and which span is the parent.

use std::fmt;
use std::str::FromStr;

/// A trace and a span in it (W3C Trace Context, level 1, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
}

/// Why a `traceparent` was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a W3C traceparent")]
pub struct ParseError;

impl TraceContext {
    /// A new trace.
    pub fn random() -> Self {
        // Zero ids are invalid (section 3.2.2.3).
        Self {
            trace_id: rand::random::<u128>().max(1),
            span_id: rand::random::<u64>().max(1),
        }
    }

    /// The same trace, a new span.
    pub fn child(&self) -> Self {
        Self {
            trace_id: self.trace_id,
            span_id: rand::random::<u64>().max(1),
        }
    }

    /// The context that this process was started with, in the environment variable `TRACEPARENT`.
    pub fn from_environment() -> Option<Self> {
        std::env::var(crate::TRACEPARENT_VARIABLE)
            .ok()?
            .parse()
            .ok()
    }

    /// 32 lower-case hex digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// 16 lower-case hex digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }
}

impl FromStr for TraceContext {
    type Err = ParseError;

    /// Takes versions above 00 too, as section 3.2.4 asks: whatever follows the flags is theirs.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parts = text.trim().splitn(4, '-');
        let mut part = || parts.next().ok_or(ParseError);
        let (version, trace_id, span_id, flags) = (part()?, part()?, part()?, part()?);
        let version = hex(version, 2)?;
        let flags = match version {
            0xff => return Err(ParseError),
            0 => flags,
            _ => flags.split('-').next().unwrap_or_default(),
        };
        hex(flags, 2)?;
        let context = Self {
            trace_id: hex(trace_id, 32)?,
            span_id: hex(span_id, 16)? as u64,
        };
        if context.trace_id == 0 || context.span_id == 0 {
            return Err(ParseError);
        }
        Ok(context)
    }
}

fn hex(text: &str, digits: usize) -> Result<u128, ParseError> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != digits || !text.bytes().all(lower) {
        return Err(ParseError);
    }
    u128::from_str_radix(text, 16).map_err(|_| ParseError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let cases = [
            (good, true),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-future",
                true,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                false,
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
                false,
            ),
            ("", false),
        ];
        for (text, taken) in cases {
            assert_eq!(text.parse::<TraceContext>().is_ok(), taken, "{text}");
        }
        let context: TraceContext = good.parse().unwrap();
        assert_eq!(context.to_string(), good);
        assert_eq!(context.span_id(), "00f067aa0ba902b7");
        assert_eq!(context.child().trace_id(), context.trace_id());
        assert_ne!(context.child().span_id(), context.span_id());
    }
}
