//! Tagging, removing and pruning images.

use std::sync::Arc;

use serde_json::{Value, json};

use super::reference::is_digest;
use super::show::{Group, group};
use super::{DANGLING, Images, Reference, familiar_name};
use crate::container::Container;
use crate::error::{ApiError, ApiResult};
use crate::filter::Filters;
use crate::identity::short;
use crate::state::Daemon;
use crate::supervisor::api::DeleteImageRequest;
use crate::supervisor::unless_gone;

fn short_digest(digest: &str) -> &str {
    short(digest.trim_start_matches("sha256:"))
}

impl Images {
    /// `POST /images/{name}/tag`.
    pub(super) async fn tag(&self, name: &str, repo: &str, tag: &str) -> ApiResult<()> {
        let reference = Reference::with_tag(repo, tag)
            .map_err(|error| ApiError::bad_request(error.to_string()))?
            .or_latest();
        if reference.digest.is_some() {
            return Err(ApiError::bad_request(
                "refusing to create a tag with a digest reference",
            ));
        }
        let image = self.find(name).await?;
        self.replace(&reference.to_string(), &image.target, image.labels.clone())
            .await?;
        self.publish_event("tag", &image.target.digest, &reference.familiar());
        Ok(())
    }

    /// Points a name at a target; what it pointed at before stays as an image without a tag.
    pub(super) async fn replace(
        &self,
        name: &str,
        target: &super::Descriptor,
        labels: std::collections::HashMap<String, String>,
    ) -> ApiResult<()> {
        self.dethrone(name, &target.digest).await?;
        self.put_labelled(name, target, labels).await
    }

    pub(super) async fn delete_name(&self, name: &str) -> ApiResult<()> {
        let request = DeleteImageRequest {
            name: name.to_owned(),
            sync: true,
            target: None,
        };
        Ok(unless_gone(self.supervisor.images().delete(request).await)?)
    }

    /// `DELETE /images/{name}`: by a tag only the tag goes, and the image with its last one.
    pub(super) async fn remove(
        &self,
        daemon: &Daemon,
        name: &str,
        force: bool,
        prune: bool,
    ) -> ApiResult<Vec<Value>> {
        let image = self.find(name).await?;
        let group = self.group_of(&image).await?;
        let by_id = is_id(name, &image.target.digest) || familiar_name(&image.name).is_none();
        let users = users_of(daemon, &image.target.digest);
        if by_id {
            let mut gone = self.remove_by_id(&group, &users, force).await?;
            if prune {
                gone.extend(self.remove_parents(daemon, &group).await?);
            }
            return Ok(gone);
        }
        let others = group.names.iter().any(|other| other.name != image.name);
        if !others {
            let shown = familiar_name(&image.name).unwrap_or_else(|| name.to_owned());
            self.refuse_in_use(&shown, &group, &users, force)?;
        }
        if !others && !users.is_empty() {
            // Containers keep their image: it goes on without a name.
            self.put(
                &format!("{DANGLING}@{}", image.target.digest),
                &image.target,
            )
            .await?;
        }
        self.delete_name(&image.name).await?;
        let mut gone = vec![self.untagged(&group, &image.name)];
        if !others && users.is_empty() {
            gone.push(self.deleted(&group));
            if prune {
                gone.extend(self.remove_parents(daemon, &group).await?);
            }
        }
        Ok(gone)
    }

    /// After an image, the steps of its build that nothing else stands on.
    async fn remove_parents(&self, daemon: &Daemon, group: &Group) -> ApiResult<Vec<Value>> {
        let mut gone = Vec::new();
        let mut next = group.parent();
        while let Some(parent) = next.take() {
            let all = self.all().await?;
            let is_needed = all.iter().any(|image| image.parent() == Some(&parent))
                || !users_of(daemon, &parent).is_empty();
            let mut names = all
                .into_iter()
                .filter(|image| image.target.digest == parent);
            let Some(first) = names.next().filter(|_| !is_needed) else {
                break;
            };
            let above = self.group_of(&first).await?;
            if !above.tags().is_empty() {
                break;
            }
            gone.extend(self.remove_by_id(&above, &[], true).await?);
            next = above.parent();
        }
        Ok(gone)
    }

    async fn remove_by_id(
        &self,
        group: &Group,
        users: &[Arc<Container>],
        force: bool,
    ) -> ApiResult<Vec<Value>> {
        let id = short_digest(&group.target.digest);
        let repositories: std::collections::BTreeSet<_> = group.digests().into_iter().collect();
        if repositories.len() > 1 && !force {
            return Err(ApiError::conflict(format!(
                "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
            )));
        }
        self.refuse_in_use(id, group, users, force)?;
        let mut gone = Vec::new();
        for image in &group.names {
            self.delete_name(&image.name).await?;
            if familiar_name(&image.name).is_some() {
                gone.push(self.untagged(group, &image.name));
            }
        }
        gone.push(self.deleted(group));
        Ok(gone)
    }

    fn refuse_in_use(
        &self,
        name: &str,
        group: &Group,
        users: &[Arc<Container>],
        force: bool,
    ) -> ApiResult<()> {
        let running = users.iter().find(|container| container.running);
        if let (Some(container), true) = (running, is_id(name, &group.target.digest)) {
            return Err(ApiError::conflict(format!(
                "conflict: unable to delete {name} (cannot be forced) - image is being used by running container {}",
                short(&container.id)
            )));
        }
        match running.or(users.first()) {
            Some(container) if !force => Err(ApiError::conflict(format!(
                "conflict: unable to delete {name} (must be forced) - container {} is using its referenced image {}",
                short(&container.id),
                short_digest(&group.target.digest)
            ))),
            _ => Ok(()),
        }
    }

    fn untagged(&self, group: &Group, name: &str) -> Value {
        let shown = familiar_name(name).unwrap_or_else(|| name.to_owned());
        self.publish_event("untag", &group.target.digest, &shown);
        json!({ "Untagged": shown })
    }

    fn deleted(&self, group: &Group) -> Value {
        self.publish_event("delete", &group.target.digest, &group.target.digest);
        json!({ "Deleted": group.target.digest })
    }

    /// `POST /images/prune`: images without a tag, or with `dangling=false` all that no container uses.
    pub(super) async fn prune(&self, daemon: &Daemon, filters: &Filters) -> ApiResult<Value> {
        filters.allow(&["dangling", "label", "label!", "until"])?;
        let only_dangling = filters.boolean("dangling")?.unwrap_or(true);
        let (mut gone, mut reclaimed) = (Vec::new(), 0);
        let until = filters.until()?.map(|until| until / 1_000_000_000);
        for group in group(self.all().await?) {
            // One of an earlier round may have taken it along.
            let is_parent =
                |image: &super::StoredImage| image.parent() == Some(group.target.digest.as_str());
            let now = self.all().await?;
            let is_here = now
                .iter()
                .any(|image| image.target.digest == group.target.digest);
            if !is_here || now.iter().any(is_parent) {
                continue;
            }
            let tagged = !group.tags().is_empty();
            if (tagged && only_dangling) || !users_of(daemon, &group.target.digest).is_empty() {
                continue;
            }
            let image = self
                .content
                .image(&group.target, &super::Platform::host())
                .await
                .ok();
            let labels = image
                .as_ref()
                .map(|image| super::show::labels_of(&image.config))
                .unwrap_or_default();
            let created = image.as_ref().map_or(0, |image| {
                super::show::seconds(image.config.created.as_ref())
            });
            if !filters.labels(&labels) || until.is_some_and(|until| created >= until) {
                continue;
            }
            gone.extend(self.remove_by_id(&group, &[], true).await?);
            gone.extend(self.remove_parents(daemon, &group).await?);
            reclaimed += image.map_or(0, |image| image.content_size());
        }
        let gone = if gone.is_empty() {
            Value::Null
        } else {
            json!(gone)
        };
        Ok(json!({ "ImagesDeleted": gone, "SpaceReclaimed": reclaimed }))
    }
}

/// Whether the user wrote an id (or its beginning) rather than a name.
fn is_id(text: &str, digest: &str) -> bool {
    is_digest(text)
        || text.len() >= 4
            && digest
                .trim_start_matches("sha256:")
                .starts_with(text.trim_start_matches("sha256:"))
}

fn users_of(daemon: &Daemon, id: &str) -> Vec<Arc<Container>> {
    let mut users = daemon.containers.list();
    users.retain(|container| container.image_id == id);
    users
}
