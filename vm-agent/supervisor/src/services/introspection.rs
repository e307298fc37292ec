//! The introspection service: which plugins a client may count on.

use std::sync::Arc;

use longshore_supervisor_api::server::introspection::Introspection;
use longshore_supervisor_api::services::v1::*;
use longshore_supervisor_api::types::Platform;
use tonic::{Request, Response, Status};

use crate::core::{Core, read_or_create_uuid};
use crate::error::Error;
use crate::filter::Filters;

pub struct IntrospectionService(pub Arc<Core>);

/// Our parts under the names that clients look for.
const PLUGINS: &[(&str, &str)] = &[
    ("io.containerd.content.v1", "content"),
    ("io.containerd.snapshotter.v1", "overlayfs"),
    ("io.containerd.metadata.v1", "bolt"),
    ("io.containerd.event.v1", "exchange"),
    ("io.containerd.gc.v1", "scheduler"),
    ("io.containerd.lease.v1", "manager"),
    ("io.containerd.streaming.v1", "manager"),
    ("io.containerd.transfer.v1", "local"),
    ("io.containerd.differ.v1", "walking"),
    ("io.containerd.runtime.v2", "task"),
    ("io.containerd.shim.v1", "manager"),
    ("io.containerd.service.v1", "containers-service"),
    ("io.containerd.service.v1", "content-service"),
    ("io.containerd.service.v1", "diff-service"),
    ("io.containerd.service.v1", "images-service"),
    ("io.containerd.service.v1", "introspection-service"),
    ("io.containerd.service.v1", "namespaces-service"),
    ("io.containerd.service.v1", "snapshots-service"),
    ("io.containerd.service.v1", "tasks-service"),
    ("io.containerd.grpc.v1", "containers"),
    ("io.containerd.grpc.v1", "content"),
    ("io.containerd.grpc.v1", "diff"),
    ("io.containerd.grpc.v1", "events"),
    ("io.containerd.grpc.v1", "images"),
    ("io.containerd.grpc.v1", "introspection"),
    ("io.containerd.grpc.v1", "leases"),
    ("io.containerd.grpc.v1", "namespaces"),
    ("io.containerd.grpc.v1", "snapshots"),
    ("io.containerd.grpc.v1", "streaming"),
    ("io.containerd.grpc.v1", "tasks"),
    ("io.containerd.grpc.v1", "transfer"),
    ("io.containerd.grpc.v1", "version"),
];

/// The platform of this machine, in OCI's words.
pub fn platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        ..Platform::default()
    }
}

impl IntrospectionService {
    fn plugin(&self, kind: &str, id: &str) -> Plugin {
        let concrete = ["snapshotter", "differ", "runtime", "content", "transfer"];
        let root = self.0.paths.root.join(format!("{kind}.{id}"));
        let mut plugin = Plugin {
            r#type: kind.into(),
            id: id.into(),
            ..Plugin::default()
        };
        if concrete.iter().any(|part| kind.contains(part)) {
            plugin.platforms = vec![platform()];
            plugin
                .exports
                .insert("root".into(), root.display().to_string());
        }
        plugin
    }
}

#[tonic::async_trait]
impl Introspection for IntrospectionService {
    async fn plugins(
        &self,
        request: Request<PluginsRequest>,
    ) -> Result<Response<PluginsResponse>, Status> {
        let filters = Filters::parse(&request.into_inner().filters)?;
        let all = PLUGINS.iter().map(|(kind, id)| self.plugin(kind, id));
        let plugins = all.filter(|plugin| {
            filters.matches(|path| match path {
                ["type"] => Some(plugin.r#type.clone()),
                ["id"] => Some(plugin.id.clone()),
                _ => None,
            })
        });
        Ok(Response::new(PluginsResponse {
            plugins: plugins.collect(),
        }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<ServerResponse>, Status> {
        use std::os::unix::fs::MetadataExt;
        let pid_namespace = std::fs::metadata("/proc/self/ns/pid").map_or(0, |ns| ns.ino());
        Ok(Response::new(ServerResponse {
            uuid: read_or_create_uuid(&self.0.paths.root)?,
            pid: std::process::id().into(),
            pidns: pid_namespace,
            deprecations: Vec::new(),
        }))
    }

    async fn plugin_info(
        &self,
        request: Request<PluginInfoRequest>,
    ) -> Result<Response<PluginInfoResponse>, Status> {
        let request = request.into_inner();
        let known = PLUGINS
            .iter()
            .find(|(kind, id)| *kind == request.r#type && *id == request.id)
            .ok_or_else(|| Error::NotFound(format!("plugin {}.{}", request.r#type, request.id)))?;
        let extra = match (*known, request.options) {
            (("io.containerd.runtime.v2", "task"), Some(options)) => {
                Some(crate::tasks::runtime_info(&self.0.paths, options).await?)
            }
            _ => None,
        };
        let plugin = Some(self.plugin(known.0, known.1));
        Ok(Response::new(PluginInfoResponse { plugin, extra }))
    }
}
