//! The spans of one trace, collected from every service's ring; and the last requests, to choose a trace from.

use longshore_protocol::control::Span;
use std::path::Path;

const FOLDER: &str = "/run/longshore/trace";
/// The reply must stay within a line; a trace that has more keeps its first.
const MAX_BYTES: usize = 200 * 1024;

/// What the daemon calls the span of a whole request.
const REQUEST: &str = r#""name":"request""#;

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

/// The newest requests of the daemon, at most so many, newest first.
pub fn requests(most: u32) -> Vec<Span> {
    requests_in(Path::new(FOLDER), most)
}

fn requests_in(folder: &Path, most: u32) -> Vec<Span> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (earlier, last) = (read("daemon.1.jsonl"), read("daemon.jsonl"));
    let lines = last.lines().rev().chain(earlier.lines().rev());
    let mut spans = Vec::new();
    let mut total = 0;
    for line in lines.filter(|line| line.contains(REQUEST)) {
        // A ring that is turned over while it is read may tear a line.
        let Ok(span) = serde_json::from_str::<Span>(line) else {
            continue;
        };
        total += line.len() + 1;
        if total > MAX_BYTES || spans.len() >= most as usize {
            break;
        }
        spans.push(span);
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_requests_come_first_and_are_bounded() {
        let folder =
            std::env::temp_dir().join(format!("longshore-requests-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let line = |name: &str, start: u64| {
            let rest = r#""duration_us":1,"fields":{"path":"/x"}}"#;
            format!(
                r#"{{"trace_id":"t","span_id":"{start}","service":"daemon","name":"{name}","start_us":{start},{rest}"#
            ) + "\n"
        };
        let earlier: String = (0..2000).map(|at| line("request", at)).collect();
        std::fs::write(folder.join("daemon.1.jsonl"), earlier).unwrap();
        let last = line("request", 2000)
            + &line("pull", 2001)
            + &line("request", 2002)
            + "torn \"name\":\"request\"\n";
        std::fs::write(folder.join("daemon.jsonl"), last).unwrap();
        let starts = |most| -> Vec<u64> {
            requests_in(&folder, most)
                .iter()
                .map(|span| span.start_us)
                .collect()
        };
        assert_eq!(starts(3), [2002, 2000, 1999]);
        let all = starts(u32::MAX);
        assert!(
            all.len() > 500 && all.len() * 100 < MAX_BYTES * 2,
            "{}",
            all.len()
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

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
