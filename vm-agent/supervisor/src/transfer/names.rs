//! The names under which a transfer stores images.

use std::collections::HashMap;

use longshore_registry::reference::Reference;

use longshore_supervisor_api::types::transfer::ImageStore;

pub const NAME_ANNOTATION: &str = "io.containerd.image.name";
pub const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// What an archive's index says of an image of that full name.
pub fn annotations(name: &str) -> HashMap<String, String> {
    let mut annotations = HashMap::from([(NAME_ANNOTATION.to_owned(), name.to_owned())]);
    if let Some(tag) = Reference::parse(name)
        .ok()
        .and_then(|reference| reference.tag)
    {
        annotations.insert(TAG_ANNOTATION.to_owned(), tag);
    }
    annotations
}

/// The names of one imported manifest: from its annotations, as the client's references allow.
pub fn imported(
    store: &ImageStore,
    annotations: &HashMap<String, String>,
    digest: &str,
) -> Vec<String> {
    let full = annotations
        .get(NAME_ANNOTATION)
        .filter(|name| !name.is_empty());
    let tag = annotations
        .get(TAG_ANNOTATION)
        .filter(|tag| !tag.is_empty());
    if !store.name.is_empty() {
        return vec![store.name.clone()];
    }
    if store.extra_references.is_empty() {
        return full
            .or(tag.filter(|tag| tag.contains('/')))
            .cloned()
            .into_iter()
            .collect();
    }
    let mut names = Vec::new();
    for reference in &store.extra_references {
        let mut add = |name: String| {
            if !names.contains(&name) {
                names.push(name);
            }
        };
        let named = full.cloned().or_else(|| {
            let tag = tag?;
            Some(if tag.contains(['/', ':', '@']) {
                tag.clone()
            } else {
                format!("{}:{tag}", reference.name)
            })
        });
        // An archive's own names count only within the prefix, unless they may overwrite it.
        let named = named.filter(|name| reference.allow_overwrite || within(name, &reference.name));
        let is_named = reference.is_prefix && named.is_some();
        if let Some(name) = named.filter(|_| reference.is_prefix) {
            add(name);
        }
        if !reference.is_prefix && !reference.name.is_empty() && !reference.add_digest {
            add(reference.name.clone());
        }
        if reference.add_digest && !(is_named && reference.skip_named_digest) {
            add(format!("{}@{digest}", reference.name));
        }
    }
    names
}

fn within(name: &str, prefix: &str) -> bool {
    let rest = name.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_supervisor_api::types::transfer::ImageReference;

    #[test]
    fn names_of_an_import() {
        let prefix = |add_digest, skip_named_digest| ImageReference {
            name: "import".into(),
            is_prefix: true,
            add_digest,
            skip_named_digest,
            ..ImageReference::default()
        };
        let overwritten = ImageReference {
            allow_overwrite: true,
            ..prefix(true, true)
        };
        let full = (NAME_ANNOTATION, "docker.io/library/a:1");
        let inside = (NAME_ANNOTATION, "import/a:1");
        let beside = (NAME_ANNOTATION, "imported:1");
        let tag = (TAG_ANNOTATION, "1");
        type Case<'a> = (
            &'a [ImageReference],
            &'a [(&'a str, &'a str)],
            &'a [&'a str],
        );
        let cases: &[Case<'_>] = &[
            (&[], &[full, tag], &["docker.io/library/a:1"]),
            (&[], &[tag], &[]),
            (&[prefix(false, false)], &[full], &[]),
            (&[prefix(false, false)], &[inside], &["import/a:1"]),
            (&[prefix(false, false)], &[beside], &[]),
            (&[prefix(true, true)], &[full], &["import@sha256:x"]),
            (
                std::slice::from_ref(&overwritten),
                &[full],
                &["docker.io/library/a:1"],
            ),
            (std::slice::from_ref(&overwritten), &[tag], &["import:1"]),
            (
                std::slice::from_ref(&overwritten),
                &[],
                &["import@sha256:x"],
            ),
            (&[prefix(false, false)], &[tag], &["import:1"]),
            (&[prefix(true, true)], &[], &["import@sha256:x"]),
            (&[prefix(true, true)], &[tag], &["import:1"]),
            (
                &[prefix(true, false)],
                &[tag],
                &["import:1", "import@sha256:x"],
            ),
        ];
        for (references, annotations, expected) in cases {
            let store = ImageStore {
                extra_references: references.to_vec(),
                ..Default::default()
            };
            let annotations = annotations
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect();
            assert_eq!(imported(&store, &annotations, "sha256:x"), *expected);
        }
    }
}
