//! Names: Docker's rule for them, and made-up ones.

use super::mount_spec::is_name;
use crate::error::{ApiError, ApiResult};
use rand::seq::IndexedRandom;

pub fn check(name: &str) -> ApiResult<()> {
    match is_name(name.strip_prefix('/').unwrap_or(name)) {
        true => Ok(()),
        false => Err(ApiError::bad_request(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ))),
    }
}

const MANNERS: [&str; 48] = [
    "amber", "brisk", "calm", "candid", "clever", "cosy", "daring", "deft", "eager", "early",
    "fair", "fleet", "fond", "gentle", "glad", "golden", "hardy", "hearty", "honest", "idle",
    "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild", "neat",
    "noble", "open", "patient", "placid", "plucky", "proud", "quick", "quiet", "rapid", "ready",
    "serene", "sharp", "steady", "stout", "sunny", "swift", "tidy", "wise",
];
const THINGS: [&str; 48] = [
    "anchor", "barge", "bay", "beacon", "bollard", "breeze", "buoy", "cape", "capstan", "cargo",
    "clipper", "coast", "compass", "coral", "crane", "current", "cutter", "delta", "derrick",
    "dinghy", "dock", "dune", "ferry", "fjord", "galley", "gangway", "gull", "harbour", "hawser",
    "heron", "hull", "island", "jetty", "kayak", "keel", "lagoon", "lantern", "lighter", "lugger",
    "mooring", "pier", "pilot", "quay", "rudder", "sail", "schooner", "tide", "wharf",
];

/// `quiet_harbour`; with a number behind once that was taken.
pub fn generate(attempt: u32) -> String {
    let mut rng = rand::rng();
    let pick = |list: &'static [&'static str], rng: &mut rand::rngs::ThreadRng| {
        list.choose(rng).copied().unwrap_or("plain")
    };
    let name = format!("{}_{}", pick(&MANNERS, &mut rng), pick(&THINGS, &mut rng));
    match attempt {
        0 => name,
        _ => format!(
            "{name}{}",
            rand::Rng::random_range(&mut rng, 0..u64::from(attempt) * 10)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule() {
        for (name, good) in [
            ("web", true),
            ("/web", true),
            ("a", false),
            ("b@d", false),
            ("-x", false),
        ] {
            assert_eq!(check(name).is_ok(), good, "{name}");
        }
        assert!(check(&generate(0)).is_ok() && check(&generate(3)).is_ok());
    }
}
