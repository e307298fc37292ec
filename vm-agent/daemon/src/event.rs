//! What happened, as `docker events` tells it: a journal on disk with cursors, and live followers of it.

mod api;
mod follower;

pub use api::{parse_time, serve};

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

#[cfg(test)]
mod tests {
    use super::*;

    pub fn publish(events: &Events, action: &str) {
        let attributes = BTreeMap::from([
            ("image".to_owned(), "busybox:latest".to_owned()),
            ("name".to_owned(), "web".to_owned()),
        ]);
        events.publish("container", action, "abcdef", attributes);
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
}
