//! What a stage knows while it is built: its image, the configuration to come, and the build arguments.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::engine::Image;

/// Arguments that need no ARG, and count neither for the cache nor for the history.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Build arguments: what the user gave, and what the Dockerfile declares.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    given: BTreeMap<String, Option<String>>,
    /// Before the first FROM: for FROM lines, and for stages that declare the name again.
    meta: BTreeMap<String, Option<String>>,
    declared: BTreeMap<String, Option<String>>,
    /// Named in the Dockerfile, so not warned of.
    consumed: BTreeSet<String>,
}

impl Arguments {
    pub fn new(given: BTreeMap<String, Option<String>>) -> Self {
        Self {
            given,
            ..Self::default()
        }
    }

    pub fn declare_meta(&mut self, name: &str, default: Option<String>) {
        self.consumed.insert(name.to_owned());
        self.meta.insert(name.to_owned(), default);
    }

    pub fn declare(&mut self, name: &str, default: Option<String>) {
        self.consumed.insert(name.to_owned());
        // Declared without a value, it takes the one from before the first FROM.
        let default = default.or_else(|| self.meta.get(name).cloned().flatten());
        self.declared.insert(name.to_owned(), default);
    }

    pub fn begin_stage(&mut self) {
        self.declared.clear();
    }

    fn value(&self, name: &str, default: Option<&String>) -> Option<String> {
        match self.given.get(name) {
            Some(Some(given)) => Some(given.clone()),
            _ => default.cloned(),
        }
    }

    /// For a FROM line.
    pub fn meta(&self, name: &str) -> Option<String> {
        let default = self.meta.get(name)?;
        self.value(name, default.as_ref())
    }

    /// For every other instruction of a stage.
    pub fn get(&self, name: &str) -> Option<String> {
        match self.declared.get(name) {
            Some(default) => self.value(name, default.as_ref()),
            None if PREDEFINED.contains(&name) => self.given.get(name).cloned().flatten(),
            None => None,
        }
    }

    /// All that a command sees; with `false`, only what counts for the cache.
    pub fn environment(&self, predefined: bool) -> Vec<String> {
        let declared = self
            .declared
            .keys()
            .filter(|name| !PREDEFINED.contains(&name.as_str()));
        let more = PREDEFINED
            .iter()
            .map(|name| (*name).to_owned())
            .filter(|_| predefined);
        let names: Vec<String> = declared.cloned().chain(more).collect();
        names
            .into_iter()
            .filter_map(|name| Some(format!("{name}={}", self.get(&name)?)))
            .collect()
    }

    pub fn unused(&self) -> Vec<String> {
        let unused = self
            .given
            .keys()
            .filter(|name| !self.consumed.contains(*name) && !PREDEFINED.contains(&name.as_str()));
        unused.cloned().collect()
    }
}

/// One stage under way.
pub struct Stage {
    pub image: Image,
    pub config: Config,
    pub author: String,
    /// CMD stood in this Dockerfile: ENTRYPOINT does not clear it.
    pub cmd_set: bool,
    /// The cache is not asked any more once it had no answer.
    pub cache: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_seen_where_they_are_declared() {
        let given = BTreeMap::from([
            ("A".to_owned(), Some("given".to_owned())),
            ("HTTP_PROXY".to_owned(), Some("p".to_owned())),
            ("X".to_owned(), Some("x".to_owned())),
        ]);
        let mut arguments = Arguments::new(given);
        arguments.declare_meta("M", Some("meta".into()));
        assert_eq!(arguments.meta("M").as_deref(), Some("meta"));
        assert_eq!(arguments.get("M"), None);
        assert_eq!(arguments.get("A"), None);
        arguments.declare("M", None);
        arguments.declare("A", Some("default".into()));
        arguments.declare("B", None);
        assert_eq!(arguments.get("M").as_deref(), Some("meta"));
        assert_eq!(arguments.get("A").as_deref(), Some("given"));
        assert_eq!(arguments.environment(false), ["A=given", "M=meta"]);
        assert_eq!(
            arguments.environment(true),
            ["A=given", "M=meta", "HTTP_PROXY=p"]
        );
        assert_eq!(arguments.unused(), ["X"]);
        arguments.begin_stage();
        assert_eq!(arguments.get("A"), None);
    }
}
