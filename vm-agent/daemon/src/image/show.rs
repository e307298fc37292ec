//! Images as lists, inspect and history show them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::content::{Descriptor, ImageConfig, Platform, PlatformImage};
use super::{Images, Reference, StoredImage, familiar_name};
use crate::config::SNAPSHOTTER;
use crate::error::{ApiError, ApiResult};
use crate::filter::Filters;
use crate::state::Daemon;
use crate::supervisor::api::snapshots::UsageRequest;

/// All names of one target.
pub(super) struct Group {
    pub target: Descriptor,
    pub names: Vec<StoredImage>,
}

impl Group {
    /// The image that a step of a build stood on when it made this one.
    pub fn parent(&self) -> Option<String> {
        self.names
            .iter()
            .find_map(|image| image.parent())
            .map(str::to_owned)
    }

    pub fn tags(&self) -> Vec<String> {
        let named = self
            .references()
            .filter(|reference| reference.tag.is_some());
        let mut tags: Vec<String> = named
            .map(|r| Reference { digest: None, ..r }.familiar())
            .collect();
        tags.sort();
        tags.dedup();
        tags
    }

    pub fn digests(&self) -> Vec<String> {
        let mut digests: Vec<String> = self
            .references()
            .map(|reference| format!("{}@{}", reference.familiar_name(), self.target.digest))
            .collect();
        digests.sort();
        digests.dedup();
        digests
    }

    fn references(&self) -> impl Iterator<Item = Reference> + '_ {
        let named = self
            .names
            .iter()
            .filter(|image| familiar_name(&image.name).is_some());
        named.filter_map(|image| Reference::parse(&image.name).ok())
    }

    fn last_tag_time(&self) -> String {
        let newest = self
            .names
            .iter()
            .filter_map(|image| image.updated.as_ref())
            .max_by_key(|t| (t.seconds, t.nanos));
        newest
            .and_then(|time| chrono::DateTime::from_timestamp(time.seconds, time.nanos as u32))
            .map_or_else(
                || "0001-01-01T00:00:00Z".to_owned(),
                |time| time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
            )
    }
}

pub(super) fn group(images: Vec<StoredImage>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for image in images {
        groups
            .entry(image.target.digest.clone())
            .or_insert_with(|| Group {
                target: image.target.clone(),
                names: Vec::new(),
            })
            .names
            .push(image);
    }
    groups.into_values().collect()
}

/// Seconds since the epoch of an image configuration's date; 0 when it has none.
pub(super) fn seconds(created: Option<&String>) -> i64 {
    created
        .and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok())
        .map_or(0, |time| time.timestamp())
}

pub(super) fn labels_of(config: &ImageConfig) -> BTreeMap<String, String> {
    let labels = config
        .config
        .as_ref()
        .and_then(|config| config.get("Labels"));
    labels
        .and_then(|labels| serde_json::from_value(labels.clone()).ok())
        .unwrap_or_default()
}

/// What a list of images is to show beside the usual.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// The steps of builds, too.
    pub all: bool,
    /// What each image's index holds.
    pub manifests: bool,
    /// Bytes of layers that other images of the list have, too.
    pub shared_size: bool,
}

impl Images {
    pub(super) async fn group_of(&self, image: &StoredImage) -> ApiResult<Group> {
        let all = self.all().await?.into_iter();
        let same = all
            .filter(|other| other.target.digest == image.target.digest)
            .collect();
        Ok(Group {
            target: image.target.clone(),
            names: same,
        })
    }

    /// `GET /images/json`.
    ///
    /// Steps of a build that other images stand on are listed only with `all`.
    pub(super) async fn list(
        &self,
        daemon: &Daemon,
        filters: &Filters,
        wanted: Wanted,
    ) -> ApiResult<Vec<Value>> {
        let Wanted {
            all,
            manifests,
            shared_size,
        } = wanted;
        filters.allow(&[
            "before",
            "dangling",
            "label",
            "label!",
            "reference",
            "since",
            "until",
        ])?;
        let dangling = filters.boolean("dangling")?;
        let before = self.created_bound(filters, "before").await?;
        let since = self.created_bound(filters, "since").await?;
        let until = filters.until()?.map(|until| until / 1_000_000_000);
        let mut shown: Vec<(i64, Value)> = Vec::new();
        let mut layers: Vec<Vec<(String, i64)>> = Vec::new();
        let images = self.all().await?;
        let parents: std::collections::HashSet<String> = images
            .iter()
            .filter_map(|image| image.parent().map(str::to_owned))
            .collect();
        for group in group(images) {
            let mut tags = group.tags();
            if !all && tags.is_empty() && parents.contains(&group.target.digest) {
                continue;
            }
            if dangling.is_some_and(|wanted| wanted != tags.is_empty()) {
                continue;
            }
            if filters.has("reference") {
                tags.retain(|tag| filters.any("reference", |pattern| matches(pattern, tag)));
                if tags.is_empty() {
                    continue;
                }
            }
            // One whose content is being removed, or of another platform only, is still listed.
            let image = self
                .content
                .image(&group.target, &Platform::host())
                .await
                .ok();
            let config = image
                .as_ref()
                .map(|image| image.config.clone())
                .unwrap_or_default();
            let created = seconds(config.created.as_ref());
            if !filters.labels(&labels_of(&config))
                || until.is_some_and(|until| created >= until)
                || before.is_some_and(|bound| created >= bound)
                || since.is_some_and(|bound| created <= bound)
            {
                continue;
            }
            let (mut size, mut own) = (0, Vec::new());
            if let Some(image) = &image {
                let sizes = self.unpacked_sizes(image).await;
                size = image.content_size() + sizes.iter().sum::<i64>();
                own = image.chain_ids().into_iter().zip(sizes).collect();
            }
            layers.push(own);
            let users = daemon
                .containers
                .list()
                .iter()
                .filter(|c| c.image_id == group.target.digest)
                .count();
            let mut summary = summary(&group, &config, size, tags, users);
            if manifests {
                summary["Manifests"] = self.manifests(daemon, &group).await?;
            }
            shown.push((created, summary));
        }
        if shared_size {
            let mut users: HashMap<&str, usize> = HashMap::new();
            for (id, _) in layers.iter().flatten() {
                *users.entry(id).or_default() += 1;
            }
            for ((_, summary), own) in shown.iter_mut().zip(&layers) {
                let shared = own.iter().filter(|(id, _)| users[id.as_str()] > 1);
                summary["SharedSize"] = json!(shared.map(|(_, size)| size).sum::<i64>());
            }
        }
        shown.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
        Ok(shown.into_iter().map(|(_, value)| value).collect())
    }

    /// What an image's index holds, for lists that show platforms (`images --tree`).
    async fn manifests(&self, daemon: &Daemon, group: &Group) -> ApiResult<Value> {
        let mut entries = self.content.entries(&group.target).await?;
        if entries.is_empty() {
            entries.push(group.target.clone());
        }
        let mut shown = Vec::new();
        for entry in entries {
            let is_attestation = entry
                .annotations
                .iter()
                .any(|annotations| annotations.contains_key("vnd.docker.reference.type"));
            let available = self.content.is_here(&entry.digest).await;
            let host = Platform::host();
            let image = match available && !is_attestation {
                true => self.content.image(&entry, &host).await.ok(),
                false => None,
            };
            let content = image
                .as_ref()
                .map_or(entry.size, |image| image.content_size());
            let mut value = json!({
                "ID": entry.digest,
                "Descriptor": entry,
                "Available": available,
                "Size": { "Content": if available { content } else { 0 }, "Total": 0 },
                "Kind": if is_attestation { "attestation" } else { "image" },
            });
            let mut unpacked = 0;
            if let Some(image) = &image {
                unpacked = self.unpacked_sizes(image).await.iter().sum::<i64>();
            }
            value["Size"]["Total"] = json!(unpacked + if available { content } else { 0 });
            if !is_attestation {
                let platform = entry.platform.clone().or_else(|| {
                    image.as_ref().map(|image| Platform {
                        architecture: image.config.architecture.clone(),
                        os: image.config.os.clone(),
                        variant: image.config.variant.clone().unwrap_or_default(),
                    })
                });
                let containers = daemon.containers.list().into_iter();
                let users: Vec<String> = containers
                    .filter(|c| c.image_manifest == entry.digest)
                    .map(|c| c.id.clone())
                    .collect();
                value["ImageData"] = json!({
                    "Platform": platform.unwrap_or_default(),
                    "Containers": users,
                    "Size": { "Unpacked": unpacked },
                });
            }
            shown.push(value);
        }
        Ok(Value::Array(shown))
    }

    async fn created_bound(&self, filters: &Filters, name: &str) -> ApiResult<Option<i64>> {
        let Some(image) = filters.values(name).first() else {
            return Ok(None);
        };
        let found = self.find(image).await?;
        let parsed = self.content.image(&found.target, &Platform::host()).await?;
        Ok(Some(seconds(parsed.config.created.as_ref())))
    }

    /// Bytes of each unpacked layer, from the lowest up; 0 where it is not unpacked.
    async fn unpacked_sizes(&self, image: &PlatformImage) -> Vec<i64> {
        let mut sizes = Vec::new();
        for key in image.chain_ids() {
            let request = UsageRequest {
                snapshotter: SNAPSHOTTER.to_owned(),
                key,
            };
            let usage = self.supervisor.snapshots().usage(request).await;
            sizes.push(usage.map_or(0, |usage| usage.into_inner().size));
        }
        sizes
    }

    /// `GET /images/{name}/json`.
    pub(super) async fn inspect(
        &self,
        daemon: &Daemon,
        name: &str,
        platform: &Platform,
        manifests: bool,
    ) -> ApiResult<Value> {
        let image = self.find(name).await?;
        let group = self.group_of(&image).await?;
        let parsed = self.content.image(&image.target, platform).await?;
        let config = &parsed.config;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut shown = json!({
            "Id": group.target.digest,
            "RepoTags": group.tags(),
            "RepoDigests": group.digests(),
            "Parent": group.parent().unwrap_or_default(),
            "Comment": config.comment.clone().or_else(|| last_comment(config)).unwrap_or_default(),
            "Created": text(&config.created),
            "DockerVersion": text(&config.docker_version),
            "Author": text(&config.author),
            "Architecture": config.architecture,
            "Os": config.os,
            "Size": parsed.content_size(),
            "GraphDriver": { "Data": null, "Name": SNAPSHOTTER },
            "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
            "Metadata": { "LastTagTime": group.last_tag_time() },
            "Descriptor": group.target,
            "Config": shown_config(config),
        });
        if let Some(variant) = config
            .variant
            .as_ref()
            .filter(|variant| !variant.is_empty())
        {
            shown["Variant"] = json!(variant);
        }
        if manifests {
            shown["Manifests"] = self.manifests(daemon, &group).await?;
        }
        Ok(shown)
    }

    /// `GET /images/{name}/history`, newest first.
    pub(super) async fn history(&self, name: &str, platform: &Platform) -> ApiResult<Vec<Value>> {
        let image = self.find(name).await?;
        let tags = self.group_of(&image).await?.tags();
        let parsed = self.content.image(&image.target, platform).await?;
        let mut sizes = self.unpacked_sizes(&parsed).await.into_iter();
        let entries = parsed.config.history.clone().unwrap_or_default();
        let mut shown: Vec<Value> = entries
            .iter()
            .map(|entry| {
                let size = if entry.empty_layer {
                    0
                } else {
                    sizes.next().unwrap_or(0)
                };
                json!({
                    "Comment": entry.comment.clone().unwrap_or_default(),
                    "Created": seconds(entry.created.as_ref()),
                    "CreatedBy": entry.created_by.clone().unwrap_or_default(),
                    "Id": "<missing>",
                    "Size": size,
                    "Tags": null,
                })
            })
            .collect();
        shown.reverse();
        if let Some(newest) = shown.first_mut() {
            newest["Id"] = json!(image.target.digest);
            newest["Tags"] = json!(tags);
        }
        Ok(shown)
    }
}

/// `docker import -m` is kept in the history.
fn last_comment(config: &ImageConfig) -> Option<String> {
    config.history.as_ref()?.last()?.comment.clone()
}

fn summary(
    group: &Group,
    config: &ImageConfig,
    size: i64,
    tags: Vec<String>,
    users: usize,
) -> Value {
    let labels = labels_of(config);
    json!({
        "Containers": users,
        "Created": seconds(config.created.as_ref()),
        "Id": group.target.digest,
        "Labels": if labels.is_empty() { Value::Null } else { json!(labels) },
        "ParentId": group.parent().unwrap_or_default(),
        "Descriptor": group.target,
        "RepoDigests": group.digests(),
        "RepoTags": tags,
        "SharedSize": -1,
        "Size": size,
    })
}

/// The configuration with every member that Docker always shows.
fn shown_config(config: &ImageConfig) -> Value {
    let mut shown = Map::new();
    for (key, empty) in [
        ("Cmd", Value::Null),
        ("Entrypoint", Value::Null),
        ("Env", Value::Null),
        ("Labels", Value::Null),
        ("OnBuild", Value::Null),
        ("User", json!("")),
        ("Volumes", Value::Null),
        ("WorkingDir", json!("")),
    ] {
        shown.insert(key.to_owned(), empty);
    }
    const KNOWN: [&str; 14] = [
        "ArgsEscaped",
        "Cmd",
        "Entrypoint",
        "Env",
        "ExposedPorts",
        "Healthcheck",
        "Labels",
        "OnBuild",
        "Shell",
        "StopSignal",
        "User",
        "Volumes",
        "WorkingDir",
        "StopTimeout",
    ];
    for (key, value) in config.config.iter().flatten() {
        if KNOWN.contains(&key.as_str()) {
            shown.insert(key.clone(), value.clone());
        }
    }
    Value::Object(shown)
}

/// Docker's `reference` filter: a glob over the familiar name, with or without the tag; `*` stops at slashes.
fn matches(pattern: &str, tag: &str) -> bool {
    let name = tag.rsplit_once(':').map_or(tag, |(name, _)| name);
    glob(pattern.as_bytes(), tag.as_bytes()) || glob(pattern.as_bytes(), name.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob(&pattern[1..], text)
                || text.first().is_some_and(|c| *c != b'/') && glob(pattern, &text[1..])
        }
        (Some(b'?'), Some(c)) if *c != b'/' => glob(&pattern[1..], &text[1..]),
        (Some(p), Some(c)) if p == c => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

/// The part of `docker system df` that images have: the list and the bytes of all content.
pub async fn disk_usage(daemon: &Daemon) -> ApiResult<(Vec<Value>, i64)> {
    let images = daemon
        .images
        .list(
            daemon,
            &Filters::default(),
            Wanted {
                all: true,
                ..Wanted::default()
            },
        )
        .await?;
    let total = images
        .iter()
        .filter_map(|image| image["Size"].as_i64())
        .sum();
    Ok((images, total))
}

/// 404 for a platform that is not there, in place of a failure inside.
pub(super) fn platform_of(query: Option<&str>) -> ApiResult<Platform> {
    match query {
        None => Ok(Platform::host()),
        Some(text) if text.trim_start().starts_with('{') => serde_json::from_str(text)
            .map_err(|error| ApiError::bad_request(format!("invalid platform: {error}"))),
        Some(text) => Platform::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_filters_are_globs() {
        for (pattern, tag, expected) in [
            ("busybox", "busybox:latest", true),
            ("busy*", "busybox:latest", true),
            ("*:latest", "busybox:latest", true),
            ("*/app", "team/app:1.0", true),
            ("*", "team/app:1.0", false),
            ("busybox:1.?", "busybox:1.0", true),
            ("nginx", "busybox:latest", false),
        ] {
            assert_eq!(matches(pattern, tag), expected, "{pattern} {tag}");
        }
    }

    #[test]
    fn names_of_one_target_are_grouped() {
        let image = |name: &str, digest: &str| StoredImage {
            name: name.into(),
            target: Descriptor {
                digest: digest.into(),
                ..Default::default()
            },
            updated: None,
            labels: Default::default(),
        };
        let dangling = format!("{}@sha256:{}", super::super::DANGLING, "a".repeat(64));
        let groups = group(vec![
            image("docker.io/library/a:1", "sha256:x"),
            image("docker.io/library/a:2", "sha256:x"),
            image(&dangling, "sha256:y"),
        ]);
        assert_eq!(groups[0].tags(), ["a:1", "a:2"]);
        assert_eq!(groups[0].digests(), ["a@sha256:x"]);
        assert!(groups[1].tags().is_empty());
    }
}
