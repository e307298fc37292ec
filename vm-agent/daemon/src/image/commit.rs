//! `POST /commit`: a container's changes as an image.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::write::NewImage;
use super::{Images, Reference};
use crate::container::Container;
use crate::container::config::{ContainerConfig, without_nulls};
use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, json as json_response};
use crate::state::Daemon;
use crate::supervisor::api;

pub async fn serve(daemon: Arc<Daemon>, mut request: ApiRequest) -> ApiResult<ApiResponse> {
    let id = request
        .query
        .non_empty("container")
        .unwrap_or_default()
        .to_owned();
    if id.is_empty() {
        return Err(ApiError::bad_request("invalid name or ID supplied: \"\""));
    }
    let container = daemon.containers.get(&id)?;
    let (repo, tag) = (
        request.query.non_empty("repo").unwrap_or_default(),
        request.query.non_empty("tag").unwrap_or_default(),
    );
    let reference = match (repo, tag) {
        ("", _) => None,
        (repo, "") => Some(Reference::parse(repo)),
        (repo, tag) => Some(Reference::parse(&format!("{repo}:{tag}"))),
    };
    let reference = reference
        .transpose()
        .map_err(|error| ApiError::bad_request(error.to_string()))?
        .map(Reference::or_latest);
    let text = |name: &str| request.query.get(name).unwrap_or_default().to_owned();
    let (author, comment) = (text("author"), text("comment"));
    let changes: Vec<String> = request.query.all("changes").map(str::to_owned).collect();
    let pause = request.query.flag_or("pause", true);
    let mut body: Value = request.json_or_default().await?;
    without_nulls(&mut body);
    let own = match body.as_object().is_none_or(Map::is_empty) {
        true => container.config.clone(),
        false => merged(serde_json::from_value(body)?, &container.config),
    };
    let config = changed(&own, &changes)?;
    let paused = pause && container.running && container.state.status.as_str() == "running";
    let id = daemon
        .images
        .commit(&container, config, author, comment, reference, paused)
        .await?;
    daemon.containers.publish(
        &container,
        "commit",
        &[("comment", text_of(&request, "comment"))],
    );
    json_response(StatusCode::CREATED, &json!({ "Id": id }))
}

fn text_of(request: &ApiRequest, name: &str) -> String {
    request.query.get(name).unwrap_or_default().to_owned()
}

/// What the request leaves open is the container's.
fn merged(mut asked: ContainerConfig, own: &ContainerConfig) -> ContainerConfig {
    let or = |value: &mut String, other: &str| {
        if value.is_empty() {
            other.clone_into(value);
        }
    };
    or(&mut asked.user, &own.user);
    or(&mut asked.working_dir, &own.working_dir);
    or(&mut asked.stop_signal, &own.stop_signal);
    asked.cmd = asked.cmd.or_else(|| own.cmd.clone());
    asked.entrypoint = asked.entrypoint.or_else(|| own.entrypoint.clone());
    asked.env = asked.env.or_else(|| own.env.clone());
    asked.volumes = asked.volumes.or_else(|| own.volumes.clone());
    for (port, nothing) in &own.exposed_ports {
        asked
            .exposed_ports
            .entry(port.clone())
            .or_insert_with(|| nothing.clone());
    }
    for (name, value) in &own.labels {
        asked
            .labels
            .entry(name.clone())
            .or_insert_with(|| value.clone());
    }
    asked
}

/// The image's part of a container's configuration, with `--change` on it.
fn changed(own: &ContainerConfig, changes: &[String]) -> ApiResult<Map<String, Value>> {
    let mut value = serde_json::to_value(own)?;
    without_nulls(&mut value);
    let mut config: longshore_builder::Config = serde_json::from_value(value)?;
    longshore_builder::change(&mut config, changes)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    match serde_json::to_value(config)? {
        Value::Object(members) => Ok(members),
        _ => Ok(Map::new()),
    }
}

impl Images {
    async fn commit(
        &self,
        container: &Container,
        config: Map<String, Value>,
        author: String,
        comment: String,
        reference: Option<Reference>,
        pause: bool,
    ) -> ApiResult<String> {
        let lease = self.lease().await?;
        if pause {
            let request = api::PauseTaskRequest {
                container_id: container.id.clone(),
            };
            self.supervisor.tasks().pause(request).await?;
        }
        let layer = self.layer_of(&container.id, &lease).await;
        if pause {
            let request = api::ResumeTaskRequest {
                container_id: container.id.clone(),
            };
            if let Err(status) = self.supervisor.tasks().resume(request).await {
                tracing::warn!(%status, id = %container.id, "resuming a committed container");
            }
        }
        let written = async {
            let new = NewImage {
                parent: (!container.image_id.is_empty()).then(|| container.image_id.clone()),
                config,
                layer: layer?,
                created_by: std::iter::once(&container.path)
                    .chain(&container.args)
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(" "),
                author,
                comment,
                name: reference.as_ref().map(Reference::to_string),
                ..NewImage::default()
            };
            self.write(new).await
        };
        let written = written.await;
        self.release(lease).await;
        let (id, _) = written?;
        if let Some(reference) = &reference {
            self.publish_event("tag", &id, &reference.familiar());
        }
        Ok(id)
    }
}
