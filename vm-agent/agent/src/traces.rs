//! The spans of one trace, collected from every service's ring.

use longshore_protocol::control::Span;
use std::path::Path;

const FOLDER: &str = "/run/longshore/trace";
/// The reply must stay within a line; a trace that has more keeps its first.
const MAX_BYTES: usize = 200 * 1024;

pub fn spans(trace_id: &str) -> Vec<Span> {
    spans_in(Path::new(FOLDER), trace_id)
}

fn spans_in(folder: &Path, trace_id: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains(trace_id));
        // A ring that is turned over while it is read may tear a line.
        let parsed =
            lines.filter_map(|line| Some((serde_json::from_str::<Span>(line).ok()?, line.len())));
        spans.extend(parsed.filter(|(span, _)| span.trace_id == trace_id));
    }
    spans.sort_by_key(|(span, _)| span.start_us);
    let mut total = 0;
    let within = |(_, length): &(Span, usize)| {
        total += length + 1;
        total <= MAX_BYTES
    };
    spans
        .into_iter()
        .take_while(within)
        .map(|(span, _)| span)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_all_rings_in_order() {
        let folder = std::env::temp_dir().join(format!("longshore-traces-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let line = |trace: &str, name: &str, start: u64| {
            format!(
                r#"{{"trace_id":"{trace}","span_id":"1","service":"s","name":"{name}","start_us":{start},"duration_us":1}}"#
            ) + "\n"
        };
        std::fs::write(
            folder.join("daemon.jsonl"),
            line("aa", "one", 1) + &line("bb", "no", 1) + "torn aa\n",
        )
        .unwrap();
        std::fs::write(
            folder.join("shim.jsonl"),
            line("aa", "three", 3) + &line("aa", "two", 2),
        )
        .unwrap();
        let names: Vec<String> = spans_in(&folder, "aa")
            .into_iter()
            .map(|span| span.name)
            .collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["one", "two", "three"]);
    }
}
