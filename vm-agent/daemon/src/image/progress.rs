//! The transfer service's progress, told as Docker tells a pull.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::{Value, json};

use crate::supervisor::api::types::transfer::Progress;

/// Where one layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Announced,
    Downloading,
    Downloaded,
    Extracting,
    Done,
}

struct Layer {
    stage: Stage,
    shown: i64,
    extracting_since: Instant,
}

/// Turns progress events into Docker's lines; each layer's stages only ever advance.
#[derive(Default)]
pub struct PullProgress {
    layers: HashMap<String, Layer>,
    order: Vec<String>,
}

/// Docker's short form of a digest.
fn layer_id(digest: &str) -> String {
    digest
        .trim_start_matches("sha256:")
        .chars()
        .take(12)
        .collect()
}

fn line(id: &str, status: &str) -> Value {
    json!({ "status": status, "progressDetail": {}, "id": id })
}

/// A finished stage, without numbers behind the bar.
fn finished(id: &str, status: &str) -> Value {
    json!({ "status": status, "progressDetail": { "hidecounts": true }, "id": id })
}

impl PullProgress {
    /// The lines that one event is worth.
    pub fn translate(&mut self, progress: &Progress) -> Vec<Value> {
        let Some(digest) = layer_digest(progress) else {
            return Vec::new();
        };
        let id = layer_id(&digest);
        let mut lines = Vec::new();
        if !self.layers.contains_key(&id) {
            self.order.push(id.clone());
            let layer = Layer {
                stage: Stage::Announced,
                shown: -1,
                extracting_since: Instant::now(),
            };
            self.layers.insert(id.clone(), layer);
            lines.push(line(&id, "Pulling fs layer"));
        }
        let Some(layer) = self.layers.get_mut(&id) else {
            return lines;
        };
        match progress.event.as_str() {
            "downloading"
                if layer.stage <= Stage::Downloading && progress.progress > layer.shown =>
            {
                layer.stage = Stage::Downloading;
                layer.shown = progress.progress;
                lines.push(json!({
                    "status": "Downloading",
                    "progressDetail": { "current": progress.progress, "total": progress.total },
                    "progress": bar(progress.progress, progress.total),
                    "id": id,
                }));
            }
            "complete" | "downloaded" if layer.stage < Stage::Downloaded => {
                layer.stage = Stage::Downloaded;
                lines.push(finished(&id, "Download complete"));
            }
            "already exists" if layer.stage < Stage::Downloaded => {
                layer.stage = Stage::Downloaded;
                lines.push(finished(&id, "Already exists"));
            }
            "extracting" if layer.stage <= Stage::Extracting => {
                if layer.stage < Stage::Extracting {
                    layer.stage = Stage::Extracting;
                    layer.extracting_since = Instant::now();
                }
                let seconds = layer.extracting_since.elapsed().as_secs() + 1;
                lines.push(json!({
                    "status": "Extracting",
                    "progressDetail": { "current": seconds, "units": "s" },
                    "progress": format!("{seconds} s"),
                    "id": id,
                }));
            }
            "extracted" if layer.stage < Stage::Done => {
                layer.stage = Stage::Done;
                lines.push(finished(&id, "Pull complete"));
            }
            _ => {}
        }
        lines
    }

    /// After success: what was not told to its end.
    pub fn finish(&mut self) -> Vec<Value> {
        let unfinished = self.order.iter().filter(|id| {
            self.layers
                .get(*id)
                .is_some_and(|layer| layer.stage < Stage::Done)
        });
        unfinished.map(|id| finished(id, "Pull complete")).collect()
    }
}

/// Turns a push's progress events into Docker's lines, which are about layers only.
#[derive(Default)]
pub struct PushProgress {
    ended: std::collections::HashSet<String>,
}

impl PushProgress {
    pub fn translate(&mut self, progress: &Progress) -> Option<Value> {
        let id = layer_id(&layer_digest(progress)?);
        if self.ended.contains(&id) {
            return None;
        }
        let status = match progress.event.as_str() {
            "waiting" => return Some(line(&id, "Waiting")),
            "uploading" => {
                return Some(json!({
                    "status": "Pushing",
                    "progressDetail": { "current": progress.progress, "total": progress.total },
                    "progress": bar(progress.progress, progress.total),
                    "id": id,
                }));
            }
            "already exists" => "Layer already exists".to_owned(),
            "mounted" => match progress.parents.first() {
                Some(origin) => format!("Mounted from {origin}"),
                None => "Mounted".to_owned(),
            },
            "complete" => "Pushed".to_owned(),
            _ => return None,
        };
        self.ended.insert(id.clone());
        Some(finished(&id, &status))
    }
}

/// The digest of the layer that an event is about; `None` for manifests, configurations and the rest.
fn layer_digest(progress: &Progress) -> Option<String> {
    if let Some(descriptor) = &progress.desc {
        let kind = descriptor.media_type.as_str();
        let is_layer = kind.contains(".layer.") || kind.contains(".rootfs.diff");
        return is_layer.then(|| descriptor.digest.clone());
    }
    progress.name.strip_prefix("layer-").map(str::to_owned)
}

/// `[=====>     ]  1.049MB/3.001MB`, fifty characters wide.
fn bar(current: i64, total: i64) -> String {
    if total <= 0 {
        return human_size(current);
    }
    let filled = (current.clamp(0, total) * 50 / total) as usize;
    let body = match filled {
        50 => "=".repeat(50) + ">",
        _ => "=".repeat(filled) + ">" + &" ".repeat(50 - filled),
    };
    format!("[{body}]  {}/{}", human_size(current), human_size(total))
}

/// Four significant digits and a decimal unit, as Docker's `units.HumanSize`.
pub fn human_size(bytes: i64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::api::types::Descriptor;

    fn event(kind: &str, progress: i64) -> Progress {
        Progress {
            event: kind.into(),
            name: "layer-sha256:abc".into(),
            progress,
            total: 100,
            desc: Some(Descriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
                digest: format!("sha256:{}", "ab".repeat(32)),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_layer_goes_through_dockers_stages_once() {
        let mut pull = PullProgress::default();
        let events = [
            event("waiting", 0),
            event("downloading", 50),
            event("downloading", 50),
            event("complete", 100),
            event("downloading", 70),
            event("extracting", 0),
            event("complete", 100),
            event("extracted", 0),
        ];
        let told: Vec<String> = events
            .iter()
            .flat_map(|event| pull.translate(event))
            .map(|line| line["status"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            told,
            [
                "Pulling fs layer",
                "Downloading",
                "Download complete",
                "Extracting",
                "Pull complete"
            ]
        );
        assert!(pull.finish().is_empty());
    }

    #[test]
    fn only_layers_are_told_and_all_are_finished() {
        let mut pull = PullProgress::default();
        let mut manifest = event("complete", 1);
        manifest.desc.as_mut().unwrap().media_type =
            "application/vnd.oci.image.manifest.v1+json".into();
        assert!(pull.translate(&manifest).is_empty());
        pull.translate(&event("downloading", 1));
        assert_eq!(pull.finish()[0]["status"], "Pull complete");
    }

    #[test]
    fn sizes_read_as_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_048_576, "1.049MB"),
            (3_001_121, "3.001MB"),
            (12_345, "12.35kB"),
            (123_456_789, "123.5MB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(
            bar(50, 100),
            format!("[{}>{}]  50B/100B", "=".repeat(25), " ".repeat(25))
        );
        assert_eq!(bar(100, 100), format!("[{}>]  100B/100B", "=".repeat(50)));
    }
}
