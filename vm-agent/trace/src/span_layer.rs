//! Gives spans their place in a trace, and writes the finished ones to the ring.

use crate::context::TraceContext;
use crate::ring::Ring;
use serde::Serialize;
use serde_json::{Map, Value};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Span, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// The field that puts a span into a trace.
const TRACEPARENT: &str = "traceparent";
/// Longest text of a field that is kept, in bytes.
const MAX_FIELD: usize = 256;

/// The context of the current span, if it belongs to a trace: what to send onward.
pub fn current() -> Option<TraceContext> {
    Span::current()
        .with_subscriber(|(id, dispatch)| {
            let registry = dispatch.downcast_ref::<Registry>()?;
            let span = registry.span(id)?;
            // The innermost span that the ring knows: the current one may be below its level.
            span.scope()
                .find_map(|span| span.extensions().get::<OpenSpan>().map(|open| open.context))
        })
        .flatten()
}

pub struct SpanLayer {
    service: &'static str,
    ring: Ring,
}

struct OpenSpan {
    context: TraceContext,
    parent: TraceContext,
    begun: Instant,
    begun_at: SystemTime,
    fields: Map<String, Value>,
}

#[derive(Serialize)]
struct SpanLine<'a> {
    trace_id: String,
    span_id: String,
    parent_id: String,
    service: &'a str,
    name: &'a str,
    start_us: u64,
    duration_us: u64,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: &'a Map<String, Value>,
}

impl SpanLayer {
    pub fn new(service: &'static str, ring: Ring) -> Self {
        Self { service, ring }
    }

    fn write(&self, name: &str, open: &OpenSpan) {
        let since_epoch = open.begun_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = SpanLine {
            trace_id: open.context.trace_id(),
            span_id: open.context.span_id(),
            parent_id: open.parent.span_id(),
            service: self.service,
            name,
            start_us: since_epoch.as_micros() as u64,
            duration_us: open.begun.elapsed().as_micros() as u64,
            fields: &open.fields,
        };
        if let Ok(mut bytes) = serde_json::to_vec(&line) {
            bytes.push(b'\n');
            self.ring.append(&bytes);
        }
    }
}

impl<S> Layer<S> for SpanLayer
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, layers: Context<'_, S>) {
        let Some(span) = layers.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let around = || {
            let mut outer = span.scope().skip(1);
            outer.find_map(|span| span.extensions().get::<OpenSpan>().map(|open| open.context))
        };
        let Some(parent) = fields.traceparent.or_else(around) else {
            return;
        };
        span.extensions_mut().insert(OpenSpan {
            context: parent.child(),
            parent,
            begun: Instant::now(),
            begun_at: SystemTime::now(),
            fields: fields.others,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, layers: Context<'_, S>) {
        let Some(span) = layers.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<OpenSpan>() {
            let mut fields = Fields::default();
            values.record(&mut fields);
            open.fields.append(&mut fields.others);
        }
    }

    fn on_close(&self, id: Id, layers: Context<'_, S>) {
        let Some(span) = layers.span(&id) else { return };
        if let Some(open) = span.extensions().get::<OpenSpan>() {
            self.write(span.name(), open);
        }
    }
}

#[derive(Default)]
struct Fields {
    traceparent: Option<TraceContext>,
    others: Map<String, Value>,
}

impl Fields {
    fn text(&mut self, field: &Field, mut text: String) {
        if field.name() == TRACEPARENT {
            self.traceparent = text.parse().ok();
            return;
        }
        while text.len() > MAX_FIELD {
            text.pop();
        }
        self.others.insert(field.name().into(), text.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn spans_of_a_trace_are_written_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let layer = SpanLayer::new("test", Ring::new(folder.path(), "test"));
        let context = TraceContext::random();
        let mut onward = None;
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info_span!("no trace").in_scope(|| assert_eq!(current(), None));
            let outer = tracing::info_span!("outer", traceparent = %context, status = tracing::field::Empty);
            outer.in_scope(|| tracing::info_span!("inner", n = 3).in_scope(|| onward = current()));
            outer.record("status", 204);
        });
        let text = std::fs::read_to_string(folder.path().join("test.jsonl")).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let [inner, outer] = lines.as_slice() else {
            panic!("{text}")
        };
        assert_eq!(inner["span_id"], onward.unwrap().span_id());
        assert_eq!(inner["parent_id"], outer["span_id"]);
        assert_eq!(inner["fields"]["n"], 3);
        assert_eq!(outer["parent_id"], context.span_id());
        assert_eq!(outer["trace_id"], context.trace_id());
        assert_eq!(outer["fields"]["status"], 204);
        assert_eq!(outer["name"], "outer");
    }
}
