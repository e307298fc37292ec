//! Whether the data disk holds, whole, all that the engine says it holds. It reads everything, so it is asked for by itself.

use std::time::Duration;

use longshore_host_api::doctor::{Check, Report};
use longshore_protocol::ports;

use crate::channel;
use crate::engine::{self, Store};
use crate::phase::Phase;
use crate::service::Service;

/// An emulated guest hashes some 50 MB in a second; what a disk holds is read in this time.
const PATIENCE: Duration = Duration::from_secs(3600);
const NAME: &str = "store";

pub async fn examine(service: &Service) -> Report {
    if !matches!(*service.vm().phase().borrow(), Phase::Running) {
        let checks = vec![Check::skip(NAME, "the VM does not run: longshore start")];
        return Report { checks };
    }
    let found = match channel::dial(&service.home().channel_socket(), ports::DOCKER).await {
        Ok(stream) => engine::store(stream, PATIENCE)
            .await
            .map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Report {
        checks: match found {
            Ok(store) => tell(&store),
            Err(why) => vec![Check::fail(NAME, why, "longshore logs daemon")],
        },
    }
}

fn tell(store: &Store) -> Vec<Check> {
    if store.problems.is_empty() {
        let detail = format!(
            "whole: {} blobs ({} MiB, digests match), {} snapshots, {} images, {} containers, {} volumes",
            store.blobs,
            store.bytes >> 20,
            store.snapshots,
            store.images,
            store.containers,
            store.volumes
        );
        return vec![Check::ok(NAME, detail)];
    }
    store
        .problems
        .iter()
        .map(|problem| Check::fail(NAME, problem, remedy(problem)))
        .collect()
}

/// Each problem begins with the kind of thing that it is about.
fn remedy(problem: &str) -> &'static str {
    match problem.split_once(' ').map_or(problem, |(kind, _)| kind) {
        "container" => "docker rm it, and run it again",
        "volume" => "docker volume rm it, and restore its data",
        _ => "docker rmi the images that need it, and pull them again",
    }
}

#[cfg(test)]
mod tests {
    use longshore_host_api::doctor::Verdict;

    use super::*;

    #[test]
    fn each_problem_is_a_failure_with_something_to_do() {
        let mut store = Store {
            blobs: 3,
            bytes: 5 << 20,
            snapshots: 2,
            images: 1,
            containers: 0,
            volumes: 0,
            problems: Vec::new(),
        };
        let whole = tell(&store);
        assert_eq!(whole[0].verdict, Verdict::Ok);
        assert!(whole[0].detail.contains("3 blobs (5 MiB"), "{whole:?}");
        store.problems = vec!["volume data: its folder: gone".into(), "blob x: cut".into()];
        let checks = tell(&store);
        assert!(checks.iter().all(|c| c.verdict == Verdict::Fail));
        assert!(
            checks[0]
                .fix
                .as_ref()
                .is_some_and(|fix| fix.contains("volume rm"))
        );
    }
}
