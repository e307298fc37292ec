//! Docker Hub's mirrors: daemon.json's `registry-mirrors`, asked in their order before the Hub itself.

use longshore_supervisor_api::to_any;
use prost_types::Any;

use super::{Images, Reference};
use crate::supervisor::api::types::transfer::{OciRegistry, RegistryResolver};

impl Images {
    /// Where else the image may be pulled from. Nobody's credentials go there: they are the Hub's.
    pub(super) fn mirrors(&self, reference: &Reference) -> Vec<Any> {
        let mirrors = self.config.settings().strings("registry-mirrors");
        let sources = mirrors.iter().filter_map(|url| source(url, reference));
        sources.map(|registry| to_any(&registry)).collect()
    }
}

fn source(url: &str, reference: &Reference) -> Option<OciRegistry> {
    if !reference.is_of_docker_hub() {
        return None;
    }
    let (scheme, host) = url.trim_end_matches('/').split_once("://")?;
    let there = Reference {
        domain: host.to_owned(),
        ..reference.clone()
    };
    Some(OciRegistry {
        reference: there.to_string(),
        resolver: Some(RegistryResolver {
            default_scheme: scheme.to_owned(),
            ..RegistryResolver::default()
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hub_has_mirrors() {
        let at = |url: &str, name: &str| {
            let found = source(url, &Reference::parse(name).unwrap().or_latest())?;
            Some((found.reference, found.resolver.unwrap().default_scheme))
        };
        let want = ("m:5000/library/busybox:1".to_owned(), "http".to_owned());
        assert_eq!(at("http://m:5000/", "busybox:1"), Some(want));
        assert_eq!(at("http://m:5000", "ghcr.io/a/b"), None);
    }
}
