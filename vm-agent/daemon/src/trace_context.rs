//! The W3C `traceparent` of the request that the current task serves.

use rand::Rng;

tokio::task_local! {
    static CURRENT: String;
}

/// The trace parent of this task's request; a new one outside of any request.
pub fn current() -> String {
    CURRENT
        .try_with(String::clone)
        .unwrap_or_else(|_| generate())
}

/// Runs `future` with `traceparent` as what [`current`] says.
pub async fn scope<F: Future>(traceparent: String, future: F) -> F::Output {
    CURRENT.scope(traceparent, future).await
}

/// A fresh, sampled trace parent (W3C Trace Context, section 3.2).
pub fn generate() -> String {
    let mut rng = rand::rng();
    // All-zero ids are invalid there, hence the lowest bit.
    let trace: u128 = rng.random::<u128>() | 1;
    let span: u64 = rng.random::<u64>() | 1;
    format!("00-{trace:032x}-{span:016x}-01")
}

/// Whether `value` may be passed on: version 00's shape with ids that are not zero.
pub fn is_valid(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let nonzero = |part: &str| part.bytes().any(|b| b != b'0');
    matches!(parts.as_slice(), [version, trace, span, flags]
        if *version == "00" && hex(trace, 32) && nonzero(trace) && hex(span, 16) && nonzero(span) && hex(flags, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_version_zero_with_nonzero_ids() {
        let table = [
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                true,
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
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                false,
            ),
            ("x", false),
        ];
        for (value, expected) in table {
            assert_eq!(is_valid(value), expected, "{value}");
        }
        assert!(is_valid(&generate()));
    }
}
