//! Readers of the journal: each event once, in order, however far behind they are.

use super::{Entry, Event, Events, entries};
use std::fs::File;
use std::sync::Arc;
use tokio::sync::watch;

/// Events that one that is behind gets at a time: a client that asks for all of the journal must not have all of it in memory.
const BATCH: usize = 256;

/// A position in the journal. A follower that falls behind reads from disk; none is ever skipped.
pub struct Follower {
    events: Events,
    cursor: u64,
    newest: watch::Receiver<u64>,
    /// While it is behind: a pass over the files.
    pass: Option<Pass>,
}

struct Pass {
    rest: Box<dyn Iterator<Item = Entry> + Send>,
    /// It found something that was new.
    fruitful: bool,
}

impl Events {
    /// A reader that starts after what has happened so far.
    pub fn follow(&self) -> Follower {
        let cursor = self.lock().next - 1;
        Follower {
            events: self.clone(),
            cursor,
            newest: self.newest.subscribe(),
            pass: None,
        }
    }

    /// A reader that starts with the oldest event that is kept.
    pub fn from_start(&self) -> Follower {
        Follower {
            cursor: 0,
            ..self.follow()
        }
    }

    /// Events after `cursor` that memory has, when it has all of them or `partly` is enough.
    fn recent_after(&self, cursor: u64, partly: bool) -> Option<Vec<Entry>> {
        let journal = self.lock();
        let oldest = journal.recent.front().map(|(seq, _)| *seq);
        let complete =
            cursor + 1 >= journal.next || oldest.is_some_and(|oldest| oldest <= cursor + 1);
        let entries = journal.recent.iter().filter(|(seq, _)| *seq > cursor);
        (complete || partly).then(|| {
            let entries = entries.map(|(seq, event)| Entry {
                seq: *seq,
                event: event.clone(),
            });
            entries.collect()
        })
    }

    /// All that the files have.
    fn files(&self) -> impl Iterator<Item = Entry> + Send + use<> {
        let files = {
            let _unchanged = self.lock();
            // Opened together: a rotation in between would hide a whole file.
            [self.path.with_extension("jsonl.old"), self.path.clone()].map(File::open)
        };
        files.into_iter().flatten().flat_map(entries)
    }
}

impl Follower {
    /// What comes next of what there is now, without waiting; nothing: there is no more.
    pub fn ready(&mut self) -> Vec<Arc<Event>> {
        // Files that have nothing new lack what memory has: the disk is full, or there is none.
        let mut partly = false;
        let found = loop {
            if let Some(pass) = &mut self.pass {
                let cursor = self.cursor;
                let newer = pass.rest.by_ref().filter(|entry| entry.seq > cursor);
                let batch: Vec<Entry> = newer.take(BATCH).collect();
                if !batch.is_empty() {
                    pass.fruitful = true;
                    break batch;
                }
                partly = !pass.fruitful;
                self.pass = None;
            }
            match self.events.recent_after(self.cursor, partly) {
                Some(entries) => break entries,
                None => {
                    self.pass = Some(Pass {
                        rest: Box::new(self.events.files()),
                        fruitful: false,
                    });
                }
            }
        };
        if let Some(last) = found.last() {
            self.cursor = last.seq;
        }
        found.into_iter().map(|entry| entry.event).collect()
    }

    /// At least one event; waits only when there is none.
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

#[cfg(test)]
mod tests {
    use super::super::RECENT;
    use super::super::tests::publish;
    use super::*;
    use std::path::PathBuf;

    fn rest(follower: &mut Follower) -> Vec<Arc<Event>> {
        let batches =
            std::iter::from_fn(|| Some(follower.ready()).filter(|batch| !batch.is_empty()));
        batches.flatten().collect()
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
        assert_eq!(rest(&mut all).len(), RECENT * 2);
        publish(&events, "die");
        assert_eq!(rest(&mut all).len(), 1);
        assert_eq!(live.ready()[0].action, "die");
        drop(events);
        let again = Events::open(folder.clone());
        publish(&again, "stop");
        let seen = rest(&mut again.from_start());
        assert_eq!(seen.len(), RECENT * 2 + 2);
        assert_eq!(seen.last().unwrap().action, "stop");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_that_is_far_behind_gets_a_little_at_a_time() {
        let folder = std::env::temp_dir().join(format!("events-{}", crate::identity::new_id()));
        let events = Events::open(folder.clone());
        let mut follower = events.from_start();
        let mut times = Vec::new();
        for round in 0..10 {
            for _ in 0..RECENT * 2 {
                publish(&events, "start");
            }
            if round == 0 {
                // A rotation while it reads: it goes on in what it has open.
                times.extend(follower.ready().iter().map(|event| event.time_nano));
                events.rotate(&mut events.lock());
            }
        }
        loop {
            let batch = follower.ready();
            assert!(batch.len() <= BATCH.max(RECENT), "{}", batch.len());
            if batch.is_empty() {
                break;
            }
            times.extend(batch.iter().map(|event| event.time_nano));
        }
        assert_eq!(times.len(), RECENT * 20);
        assert!(times.is_sorted_by(|before, after| before < after));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn without_a_disk_memory_is_all() {
        let events = Events::open(PathBuf::from("/proc/nonexistent"));
        (0..RECENT + 10).for_each(|_| publish(&events, "start"));
        let mut follower = events.from_start();
        assert_eq!(rest(&mut follower).len(), RECENT);
        publish(&events, "die");
        assert_eq!(rest(&mut follower).len(), 1);
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
}
