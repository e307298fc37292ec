//! The engine's end with its machine: init ends the containers, and how each ended is written down before the daemon goes.

use super::store::Entry;
use crate::state::Daemon;
use std::path::Path;

/// Init makes it before it ends anything. A daemon that is told to end without it will come back, and its containers live on.
const MARKER: &str = "/run/longshore/powering-off";

pub fn is_wanted() -> bool {
    Path::new(MARKER).exists()
}

/// Starts nothing more, and returns when what runs has ended and everybody was told.
pub async fn run(daemon: &Daemon) {
    daemon.closing.cancel();
    let exits_of = |entry: &Entry| {
        let exits = entry.exits.subscribe();
        entry.now().state.is_running().then_some(exits)
    };
    let entries = daemon.containers.entries();
    let running: Vec<_> = entries.iter().filter_map(|e| exits_of(e)).collect();
    for mut exits in running {
        // The sender goes with a container that is removed.
        let _ = exits.changed().await;
    }
}
