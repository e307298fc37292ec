//! What happened, as `docker events` tells it: a journal on disk with cursors, and live followers of it.

use crate::error::{ApiError, ApiResult};
use crate::filter::Filters;
use crate::http_message::{self, ApiRequest, ApiResponse};
use crate::state::Daemon;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// The journal's file is exchanged for a new one at this size; one old file is kept. Ten thousand events of containers with the
/// labels of compose fit.
const JOURNAL_LIMIT: u64 = 12 << 20;
/// Where the last event of a file is looked for first: a daemon that starts does not read all of it.
const TAIL: u64 = 64 << 10;
/// Events that followers get from memory; those further behind read the journal.
const RECENT: usize = 256;

/// Docker's event message; `status`, `id` and `from` are there for old clients and containers and images only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub from: String,
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    pub scope: String,
    pub time: i64,
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// An event with its place in the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    seq: u64,
    event: Arc<Event>,
}

struct Journal {
    file: Option<File>,
    size: u64,
    next: u64,
    /// Of the last event, in nanoseconds of the epoch.
    last_time: i64,
    recent: VecDeque<(u64, Arc<Event>)>,
}

impl Journal {
    /// Now, and later than every event before, even when the clock is set back: a client that goes on from the last time that
    /// it saw gets each event once.
    fn tick(&mut self) -> i64 {
        let now = Utc::now().timestamp_nanos_opt().unwrap_or_default();
        self.last_time = now.max(self.last_time + 1);
        self.last_time
    }
}

/// Publishes and follows events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    path: PathBuf,
    journal: Arc<Mutex<Journal>>,
    newest: watch::Sender<u64>,
}

impl Events {
    /// Continues the journal in `folder`; without one on disk that can be written, events live in memory only.
    pub fn open(folder: PathBuf) -> Self {
        let path = folder.join("events.jsonl");
        let _ = std::fs::create_dir_all(&folder);
        let last = [path.clone(), path.with_extension("jsonl.old")]
            .into_iter()
            .find_map(|path| last_in(&path));
        let next = last.as_ref().map_or(1, |entry| entry.seq + 1);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = &file {
            tracing::warn!(%error, path = %path.display(), "events are kept in memory only");
        }
        let size = file
            .as_ref()
            .ok()
            .and_then(|file| file.metadata().ok())
            .map_or(0, |meta| meta.len());
        let mut journal = Journal {
            file: file.ok(),
            size,
            next,
            last_time: last.map_or(0, |entry| entry.event.time_nano),
            recent: VecDeque::new(),
        };
        // A crash in the middle of a line must not eat the next event.
        if let (true, Some(file)) = (size > 0, &mut journal.file) {
            let _ = file.write_all(b"\n");
        }
        Events {
            path,
            journal: Arc::new(Mutex::new(journal)),
            newest: watch::Sender::new(next - 1),
        }
    }

    /// Publishes `action` on the object `id` of type `kind` (`container`, `image`, `network`, `volume`, `daemon`).
    pub fn publish(
        &self,
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let legacy = matches!(kind, "container" | "image");
        let from = if kind == "container" {
            attributes.get("image").cloned()
        } else {
            None
        };
        let when_legacy = |text: &str| {
            if legacy {
                text.to_owned()
            } else {
                String::new()
            }
        };
        let mut journal = self.lock();
        let time_nano = journal.tick();
        let event = Arc::new(Event {
            status: when_legacy(action),
            id: when_legacy(id),
            from: from.unwrap_or_default(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes,
            },
            scope: "local".to_owned(),
            time: time_nano / 1_000_000_000,
            time_nano,
        });
        let seq = self.append(&mut journal, event);
        drop(journal);
        self.newest.send_replace(seq);
    }

    fn append(&self, journal: &mut Journal, event: Arc<Event>) -> u64 {
        let seq = journal.next;
        journal.next += 1;
        let mut line = serde_json::to_vec(&Entry {
            seq,
            event: event.clone(),
        })
        .unwrap_or_default();
        line.push(b'\n');
        if journal.size + line.len() as u64 > JOURNAL_LIMIT {
            self.rotate(journal);
        }
        journal.size += line.len() as u64;
        if let Some(Err(error)) = journal.file.as_mut().map(|file| file.write_all(&line)) {
            tracing::warn!(%error, "writing the event journal");
        }
        if journal.recent.len() == RECENT {
            journal.recent.pop_front();
        }
        journal.recent.push_back((seq, event));
        seq
    }

    fn rotate(&self, journal: &mut Journal) {
        let _ = std::fs::rename(&self.path, self.path.with_extension("jsonl.old"));
        journal.file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .ok();
        journal.size = 0;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    /// Whether the journal's end has `action` on `id`, after `since`. To be asked before anything new is published: of what
    /// a daemon did as it died, its last events tell.
    pub fn were_told(&self, id: &str, action: &str, since: Option<DateTime<Utc>>) -> bool {
        let since = since.and_then(|since| since.timestamp_nanos_opt());
        let is_it = |event: &Event| {
            event.actor.id == id
                && event.action == action
                && since.is_none_or(|since| event.time_nano >= since)
        };
        let old = self.path.with_extension("jsonl.old");
        [&self.path, &old]
            .into_iter()
            .filter_map(|path| tail(path))
            .any(|file| entries(file).any(|entry| is_it(&entry.event)))
    }

    /// A reader that starts after what has happened so far.
    pub fn follow(&self) -> Follower {
        let cursor = self.lock().next - 1;
        Follower {
            events: self.clone(),
            cursor,
            newest: self.newest.subscribe(),
        }
    }

    /// A reader that starts with the oldest event that is kept.
    pub fn from_start(&self) -> Follower {
        Follower {
            cursor: 0,
            ..self.follow()
        }
    }

    /// Events after `cursor`, in order.
    fn after(&self, cursor: u64) -> Vec<(u64, Arc<Event>)> {
        let files = {
            let journal = self.lock();
            if cursor + 1 >= journal.next {
                return Vec::new();
            }
            let oldest = journal.recent.front().map(|(seq, _)| *seq);
            if oldest.is_some_and(|oldest| oldest <= cursor + 1) {
                return journal
                    .recent
                    .iter()
                    .filter(|(seq, _)| *seq > cursor)
                    .cloned()
                    .collect();
            }
            // Opened together: a rotation in between would hide a whole file.
            [self.path.with_extension("jsonl.old"), self.path.clone()].map(File::open)
        };
        let mut found: Vec<_> = files
            .into_iter()
            .flatten()
            .flat_map(entries)
            .filter(|entry| entry.seq > cursor)
            .map(|entry| (entry.seq, entry.event))
            .collect();
        // Without a file there is only memory; with one, memory may have what a full disk refused.
        let last = found.last().map_or(cursor, |(seq, _)| *seq);
        found.extend(
            self.lock()
                .recent
                .iter()
                .filter(|(seq, _)| *seq > last)
                .cloned(),
        );
        found
    }
}

fn entries(file: File) -> impl Iterator<Item = Entry> {
    let lines = BufReader::new(file).split(b'\n').map_while(io::Result::ok);
    lines.filter_map(|line| serde_json::from_slice(&line).ok())
}

/// The end of a file, from anywhere in a line.
fn tail(path: &Path) -> Option<File> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL))).ok()?;
    Some(file)
}

fn last_in(path: &Path) -> Option<Entry> {
    // A single event may be longer than that.
    let last = tail(path).and_then(|file| entries(file).last());
    last.or_else(|| entries(File::open(path).ok()?).last())
}

/// A position in the journal. A follower that falls behind reads from disk; none is ever skipped.
pub struct Follower {
    events: Events,
    cursor: u64,
    newest: watch::Receiver<u64>,
}

impl Follower {
    /// What there is now, without waiting.
    pub fn ready(&mut self) -> Vec<Arc<Event>> {
        let found = self.events.after(self.cursor);
        if let Some((seq, _)) = found.last() {
            self.cursor = *seq;
        }
        found.into_iter().map(|(_, event)| event).collect()
    }

    /// At least one event; waits for it.
    pub async fn next(&mut self) -> Vec<Arc<Event>> {
        loop {
            let found = self.ready();
            if !found.is_empty() {
                return found;
            }
            // `events` holds the sender, so it cannot be closed.
            let _ = self.newest.changed().await;
        }
    }
}

/// Docker's time stamps in queries: seconds or seconds.nanoseconds, in nanoseconds here. Clients turn other forms into
/// these; for anything else Docker's engine answers 500 in the words of its parser.
pub fn parse_time(text: &str) -> ApiResult<i64> {
    let invalid = || {
        ApiError::internal(format!(
            "strconv.ParseInt: parsing {text:?}: invalid syntax"
        ))
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid());
    }
    let seconds: i64 = seconds.parse().map_err(|_| invalid())?;
    let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| invalid())?;
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|total| total.checked_add(nanos))
        .ok_or_else(invalid)
}

/// Whether `event` passes the filters of `GET /events`.
fn matches(event: &Event, filters: &Filters) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map_or("", String::as_str);
    let of_type = |kind: &str, name: &str| {
        filters.any(name, |wanted| {
            event.kind == kind
                && (event.actor.id.starts_with(wanted.as_str()) || attribute("name") == wanted)
        })
    };
    let image = || {
        filters.any("image", |wanted| {
            let name = if event.kind == "image" {
                attribute("name")
            } else {
                attribute("image")
            };
            let repository = name.split('@').next().unwrap_or(name);
            let repository = repository
                .rsplit_once(':')
                .map_or(repository, |(repository, _)| repository);
            event.actor.id == *wanted || name == wanted || repository == wanted
        })
    };
    // `exec_create: sh` matches the filter `exec_create`.
    let action = event.action.split(':').next().unwrap_or_default();
    filters.any("event", |wanted| {
        *wanted == event.action || wanted == action
    }) && filters.exact("type", &event.kind)
        && filters.exact("scope", &event.scope)
        && of_type("container", "container")
        && of_type("volume", "volume")
        && of_type("network", "network")
        && of_type("daemon", "daemon")
        && image()
        && filters.labels(&event.actor.attributes)
}

/// `GET /events`.
pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest) -> ApiResult<ApiResponse> {
    let filters = request.filters()?;
    // Docker ignores filters that it does not know here.
    let since = request
        .query
        .non_empty("since")
        .map(parse_time)
        .transpose()?;
    let until = request
        .query
        .non_empty("until")
        .map(parse_time)
        .transpose()?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        let text = |name: &str| request.query.get(name).unwrap_or_default().to_owned();
        return Err(ApiError::bad_request(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            text("since"),
            text("until")
        )));
    }
    let mut follower = if since.is_some() {
        daemon.events.from_start()
    } else {
        daemon.events.follow()
    };
    let wanted = move |event: &Event| {
        since.is_none_or(|since| event.time_nano >= since)
            && until.is_none_or(|until| event.time_nano <= until)
            && matches(event, &filters)
    };
    let lines = async_stream::stream! {
        let deadline = sleep_until(until);
        tokio::pin!(deadline);
        loop {
            let found = tokio::select! {
                biased;
                found = follower.next() => found,
                () = &mut deadline => return,
            };
            let mut text = Vec::new();
            for event in found.iter().filter(|event| wanted(event)) {
                text.extend(serde_json::to_vec(event.as_ref()).map_err(io::Error::other)?);
                text.push(b'\n');
            }
            if !text.is_empty() {
                yield Ok(Bytes::from(text));
            }
        }
    };
    Ok(http_message::stream("application/json", lines))
}

/// Ends at `until` (nanoseconds of the epoch), or never.
async fn sleep_until(until: Option<i64>) {
    let Some(until) = until else {
        return std::future::pending().await;
    };
    let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
    let left = u64::try_from(until.saturating_sub(now)).unwrap_or(0);
    tokio::time::sleep(std::time::Duration::from_nanos(left)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(events: &Events, action: &str) {
        let attributes = BTreeMap::from([
            ("image".to_owned(), "busybox:latest".to_owned()),
            ("name".to_owned(), "web".to_owned()),
        ]);
        events.publish("container", action, "abcdef", attributes);
    }

    #[test]
    fn a_follower_misses_nothing_across_memory_disk_and_restart() {
        let folder = std::env::temp_dir().join(format!("events-{}", crate::identity::new_id()));
        let events = Events::open(folder.clone());
        for _ in 0..RECENT * 2 {
            publish(&events, "start");
        }
        let mut all = events.from_start();
        let mut live = events.follow();
        assert_eq!(all.ready().len(), RECENT * 2);
        publish(&events, "die");
        assert_eq!(all.ready().len(), 1);
        assert_eq!(live.ready()[0].action, "die");
        drop(events);
        let again = Events::open(folder.clone());
        publish(&again, "stop");
        let seen = again.from_start().ready();
        assert_eq!(seen.len(), RECENT * 2 + 2);
        assert_eq!(seen.last().unwrap().action, "stop");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn each_event_is_later_than_the_one_before() {
        let events = Events::open(PathBuf::from("/proc/nonexistent"));
        let mut follower = events.follow();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..30).for_each(|_| publish(&events, "start")));
            }
        });
        let times = follower.ready().into_iter().map(|event| event.time_nano);
        let times: Vec<i64> = times.collect();
        assert_eq!(times.len(), 240);
        assert!(times.is_sorted_by(|before, after| before < after));
    }

    #[test]
    fn a_later_life_knows_what_the_last_one_told() {
        let folder = std::env::temp_dir().join(format!("events-{}", crate::identity::new_id()));
        let before = Utc::now();
        publish(&Events::open(folder.clone()), "start");
        let after = Utc::now();
        let events = Events::open(folder.clone());
        let table = [
            ("abcdef", "start", None, true),
            ("abcdef", "start", Some(before), true),
            ("abcdef", "start", Some(after), false),
            ("abcdef", "die", None, false),
            ("other", "start", None, false),
        ];
        for (id, action, since, expected) in table {
            assert_eq!(
                events.were_told(id, action, since),
                expected,
                "{id} {action}"
            );
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn filters_select() {
        let events = Events::open(PathBuf::from("/proc/nonexistent"));
        let mut follower = events.follow();
        publish(&events, "exec_create: sh");
        let event = &follower.ready()[0];
        let table = [
            (r#"{"event":["exec_create"]}"#, true),
            (r#"{"event":["start"]}"#, false),
            (r#"{"type":["container"]}"#, true),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["other"]}"#, false),
            (r#"{"network":["web"]}"#, false),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"image":["busybox:latest"]}"#, true),
            (r#"{"image":["nginx"]}"#, false),
            (r#"{"label":["x"]}"#, false),
        ];
        for (text, expected) in table {
            assert_eq!(
                matches(event, &Filters::parse(Some(text)).unwrap()),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn times_are_read_in_all_forms() {
        let table = [
            ("1700000000", Some(1_700_000_000_000_000_000)),
            ("1700000000.5", Some(1_700_000_000_500_000_000)),
            ("1700000000.000000001", Some(1_700_000_000_000_000_001)),
            ("2023-11-14T22:13:20Z", None),
            ("yesterday", None),
            ("1.1234567890", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_time(text).ok(), expected, "{text}");
        }
    }
}
