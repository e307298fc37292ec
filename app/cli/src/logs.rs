//! Logs, and the tree of one request's spans.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use longshore_host_api::{ApiError, Client, ErrorCode};
use longshore_protocol::control::Span;

use crate::options::LogFlags;
use crate::terminal;

pub async fn show(client: &Client, flags: LogFlags) -> Result<ExitCode, ApiError> {
    if let Some(id) = flags.trace {
        return trace(client, &id).await;
    }
    let mut stream = std::pin::pin!(client.logs(flags.source.into(), flags.follow).await?);
    let mut out = std::io::stdout();
    while let Some(chunk) = stream.next().await {
        out.write_all(&chunk?)
            .and_then(|()| out.flush())
            .map_err(|e| ApiError::internal(format!("cannot write the log: {e}")))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn trace(client: &Client, id: &str) -> Result<ExitCode, ApiError> {
    // A whole `traceparent` is what a user can copy: 00-TRACE-SPAN-01.
    let id = id.split('-').find(|part| part.len() == 32).unwrap_or(id);
    let text = collect(client.trace(id).await?).await?;
    let spans: Vec<Span> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    if spans.is_empty() {
        let message = format!("no spans of the trace {id} are kept; old ones give way to new ones");
        return Err(ApiError::new(ErrorCode::NotFound, message));
    }
    for line in tree(&spans) {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn collect(stream: impl Stream<Item = Result<Bytes, ApiError>>) -> Result<String, ApiError> {
    let mut stream = std::pin::pin!(stream);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One line a span, children below their parents in the order of time: start, duration, process, name, fields.
fn tree(spans: &[Span]) -> Vec<String> {
    let mut children: HashMap<Option<&str>, Vec<&Span>> = HashMap::new();
    let known = |id: &str| spans.iter().any(|s| s.span_id == id);
    for span in spans {
        // A parent that is not here is the client's own span, or was overwritten.
        let parent = span
            .parent_id
            .as_deref()
            .filter(|p| known(p) && *p != span.span_id);
        children.entry(parent).or_default().push(span);
    }
    for list in children.values_mut() {
        list.sort_by_key(|s| s.start_us);
    }
    let began = spans.iter().map(|s| s.start_us).min().unwrap_or_default();
    let mut lines = vec![format!(
        "{:>10} {:>10}  {:<11} what",
        "at ms", "took ms", "process"
    )];
    let mut stack: Vec<(&Span, usize)> = children
        .get(&None)
        .into_iter()
        .flatten()
        .rev()
        .map(|s| (*s, 0))
        .collect();
    while let Some((span, depth)) = stack.pop() {
        // A damaged ring could hold a loop; each span is shown once at most.
        if lines.len() > spans.len() {
            break;
        }
        lines.push(row(span, depth, began));
        let below = children
            .get(&Some(span.span_id.as_str()))
            .into_iter()
            .flatten();
        stack.extend(below.rev().map(|s| (*s, depth + 1)));
    }
    lines
}

fn row(span: &Span, depth: usize, began: u64) -> String {
    let ms = |us: u64| us as f64 / 1000.0;
    let fields: Vec<String> = span
        .fields
        .iter()
        .map(|(k, v)| {
            format!(
                "{k}={}",
                v.as_str().map_or_else(|| v.to_string(), str::to_owned)
            )
        })
        .collect();
    let text = format!(
        "{:>10.1} {:>10.1}  {:<11} {}{} {}",
        ms(span.start_us.saturating_sub(began)),
        ms(span.duration_us),
        span.service,
        "  ".repeat(depth),
        span.name,
        fields.join(" ")
    );
    terminal::printable(text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: Option<&str>, start_us: u64) -> Span {
        Span {
            trace_id: "t".into(),
            span_id: id.into(),
            parent_id: parent.map(str::to_owned),
            service: "daemon".into(),
            name: format!("n-{id}"),
            start_us,
            duration_us: 1500,
            fields: Default::default(),
        }
    }

    #[test]
    fn children_stand_below_their_parent_in_time() {
        let spans = [
            span("late", Some("root"), 3000),
            span("root", Some("client"), 1000),
            span("deep", Some("early"), 2500),
            span("early", Some("root"), 2000),
        ];
        let lines = tree(&spans);
        let names: Vec<_> = lines[1..].iter().map(|l| l[35..].trim_end()).collect();
        assert_eq!(names, ["n-root", "  n-early", "    n-deep", "  n-late"]);
        assert!(
            lines[1].starts_with("       0.0        1.5  daemon"),
            "{}",
            lines[1]
        );
    }

    #[test]
    fn a_loop_ends() {
        let spans = [
            span("a", Some("b"), 1),
            span("b", Some("a"), 2),
            span("c", None, 3),
        ];
        assert_eq!(tree(&spans).len(), 2);
    }
}
