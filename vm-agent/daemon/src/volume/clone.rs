//! Ours, beside the Docker API: a volume as a copy of another, made inside the guest.
//!
//! ```text
//! POST /longshore/volumes/{name}/clone?to=NAME    lines of JSON: `{"Copied": 5, "Total": 9}`…, then `{"Volume": …}` or `{"Error": "…"}`
//! ```
//! The copy has no name until it is whole: of one that failed, whose client went, or whose daemon died nothing stays.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::api::size_of;
use super::copy_tree::{Progress, copy_tree};
use super::store::{ANONYMOUS, BEGUN, Labels, Volume, Volumes, make};
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, stream};
use crate::identity::new_id;
use crate::state::Daemon;

/// Between two lines.
const PAUSE: Duration = Duration::from_millis(250);
/// Labels by which Compose knows what is its own: a copy is not.
const COMPOSE: &str = "com.docker.compose.";

pub async fn clone(
    daemon: Arc<Daemon>,
    request: ApiRequest,
    name: String,
) -> ApiResult<ApiResponse> {
    let to = request.query.get("to").unwrap_or_default().to_owned();
    let (source, clone) = daemon.volumes.begin_clone(&name, &to)?;
    let progress = Arc::new(Progress::default());
    let cancel = CancelOnDrop(progress.clone());
    let lines = async_stream::stream! {
        let _cancel = cancel;
        let total = size_of(&source).await;
        let volumes = daemon.volumes.clone();
        // In a task of its own it clears up after itself when this stream is dropped.
        let mut copying = tokio::spawn(volumes.copy(source, clone, progress.clone()));
        loop {
            yield line(&json!({ "Copied": progress.copied(), "Total": total }));
            let ended = tokio::select! {
                ended = &mut copying => ended,
                () = tokio::time::sleep(PAUSE) => continue,
            };
            let ended = ended.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())));
            yield line(&match ended {
                Ok(volume) => json!({ "Volume": volume }),
                Err(error) => json!({ "Error": error.message }),
            });
            return;
        }
    };
    Ok(stream("application/json", lines))
}

fn line(value: &Value) -> io::Result<Bytes> {
    Ok(Bytes::from(format!("{value}\n")))
}

/// Nobody waits any longer.
struct CancelOnDrop(Arc<Progress>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Volumes {
    /// The source, and the clone as it will be.
    fn begin_clone(&self, name: &str, to: &str) -> ApiResult<(Volume, Volume)> {
        let source = self.get(name)?;
        let labels = source.labels.clone().unwrap_or_default();
        let kept: Labels = labels
            .into_iter()
            .filter(|(label, _)| label != ANONYMOUS && !label.starts_with(COMPOSE))
            .collect();
        let clone = self.plan(to, "", &Labels::new(), kept)?;
        match self.get(to) {
            Ok(_) => Err(taken(to)),
            Err(_) => Ok((source, clone)),
        }
    }

    /// Copies until `progress` is cancelled. The source cannot be removed meanwhile.
    async fn copy(
        self,
        source: Volume,
        clone: Volume,
        progress: Arc<Progress>,
    ) -> ApiResult<Volume> {
        let holder = format!("copied to {}", clone.name);
        self.reference(&source.name, &holder);
        let step = format!("clone {} to {}", source.name, clone.name);
        let copied = self.copy_held(&source, &clone, &holder, progress).await;
        self.unreference(&source.name, &holder);
        copied.map_err(|error| error.context(step))?;
        self.event("create", &clone.name, &[("driver", "local")]);
        Ok(clone)
    }

    async fn copy_held(
        &self,
        source: &Volume,
        clone: &Volume,
        holder: &str,
        progress: Arc<Progress>,
    ) -> ApiResult<()> {
        // What a volume with options holds is there while it is mounted.
        let mounted = source.options.is_some();
        if mounted {
            self.mount(&source.name, holder, &[]).await?;
        }
        let begun = self.folder(&format!("{BEGUN}{}", new_id()));
        let copied = tokio::task::spawn_blocking({
            let (this, from) = (self.clone(), source.mountpoint.clone());
            let (clone, begun) = (clone.clone(), begun.clone());
            move || {
                let done = this.fill_and_name(&from, &begun, clone, &progress);
                if done.is_err() {
                    let _ = fs::remove_dir_all(&begun);
                }
                done
            }
        })
        .await;
        if mounted {
            self.unmount(&source.name, holder).await;
        }
        copied.map_err(|error| ApiError::internal(error.to_string()))?
    }

    fn fill_and_name(
        &self,
        from: &Path,
        begun: &Path,
        clone: Volume,
        progress: &Progress,
    ) -> ApiResult<()> {
        let inside = Volume {
            mountpoint: begun.join("_data"),
            ..clone.clone()
        };
        make(begun, &inside)?;
        copy_tree(from, &inside.mountpoint, progress)?;
        // Whole on the disk before it has a name.
        nix::unistd::syncfs(fs::File::open(begun).map_err(ApiError::from)?)
            .map_err(io::Error::from)?;
        self.publish(begun, clone)
    }
}

pub(super) fn taken(name: &str) -> ApiError {
    ApiError::conflict(format!("there is a volume named {name} already"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clone_has_its_name_when_it_is_whole_and_not_before() {
        let base = tempfile::tempdir().unwrap();
        let events = tempfile::tempdir().unwrap();
        let volumes = Volumes::for_tests(base.path(), events.path());
        let labels = Labels::from([
            ("mine".to_owned(), "1".to_owned()),
            ("com.docker.compose.project".to_owned(), "shop".to_owned()),
        ]);
        let source = volumes
            .get_or_create("data", "", &Labels::new(), &labels)
            .await
            .unwrap();
        fs::write(source.mountpoint.join("file"), "content").unwrap();

        // One that is given up leaves nothing.
        let (from, to) = volumes.begin_clone("data", "copy").unwrap();
        let cancelled = Arc::new(Progress::default());
        cancelled.cancel();
        assert!(volumes.clone().copy(from, to, cancelled).await.is_err());
        assert!(volumes.get("copy").is_err());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        assert!(volumes.users("data").is_empty());

        let (from, to) = volumes.begin_clone("data", "copy").unwrap();
        let (_, late) = volumes.begin_clone("data", "copy").unwrap();
        let made = volumes.clone().copy(from.clone(), to, Arc::default()).await;
        let made = made.unwrap();
        assert_eq!(
            fs::read_to_string(made.mountpoint.join("file")).unwrap(),
            "content"
        );
        assert_eq!(made.labels.unwrap().keys().collect::<Vec<_>>(), ["mine"]);
        assert_eq!(volumes.get("copy").unwrap().name, "copy");

        // The second of two that had the same name in mind.
        let second = volumes.clone().copy(from, late, Arc::default()).await;
        let said = second.unwrap_err();
        assert_eq!(said.status, http::StatusCode::CONFLICT);
        assert_eq!(
            volumes.begin_clone("data", "copy").unwrap_err().message,
            "there is a volume named copy already"
        );
        assert!(volumes.begin_clone("data", "b@d").is_err());
        assert!(volumes.begin_clone("missing", "copy2").is_err());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2);
    }
}
