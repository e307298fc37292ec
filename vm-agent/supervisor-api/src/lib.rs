//! The containerd gRPC services that the guest's processes serve and call.
//!
//! Messages and client stubs are containerd-client's, re-exported; the server traits are generated
//! from the protos in that crate's own package, on the same message types. Nothing here knows how
//! a service is implemented.

pub use containerd_client::{
    Client, connect, events, google, services, to_any, types, with_namespace,
};
pub use prost_types::Any;
pub use tonic;

/// The metadata key that carries the namespace of a request.
pub const NAMESPACE_HEADER: &str = "containerd-namespace";
/// The metadata key that carries the lease that new resources are added to.
pub const LEASE_HEADER: &str = "containerd-lease";

/// The server halves: one module per service, e.g. `server::images::{Images, ImagesServer}`.
#[allow(clippy::all)]
pub mod server {
    macro_rules! service {
        ($name:ident, $package:literal, $generated:ident) => {
            pub mod $name {
                mod generated {
                    tonic::include_proto!($package);
                }
                pub use generated::$generated::*;
            }
        };
    }

    service!(
        containers,
        "containerd.services.containers.v1",
        containers_server
    );
    service!(content, "containerd.services.content.v1", content_server);
    service!(diff, "containerd.services.diff.v1", diff_server);
    service!(events, "containerd.services.events.v1", events_server);
    service!(images, "containerd.services.images.v1", images_server);
    service!(
        introspection,
        "containerd.services.introspection.v1",
        introspection_server
    );
    service!(leases, "containerd.services.leases.v1", leases_server);
    service!(
        namespaces,
        "containerd.services.namespaces.v1",
        namespaces_server
    );
    service!(
        snapshots,
        "containerd.services.snapshots.v1",
        snapshots_server
    );
    service!(
        streaming,
        "containerd.services.streaming.v1",
        streaming_server
    );
    service!(tasks, "containerd.services.tasks.v1", tasks_server);
    service!(transfer, "containerd.services.transfer.v1", transfer_server);
    service!(version, "containerd.services.version.v1", version_server);
}

/// Options of a runtime, carried as `Any` in a container's `runtime.options`.
#[allow(clippy::all)]
pub mod runtime_options {
    /// `containerd.runc.v1.Options`: among them `binary_name`, the OCI runtime that the shim runs.
    pub mod runc {
        tonic::include_proto!("containerd.runc.v1");
    }
    /// `runtimeoptions.v1.Options`: a free-form options file.
    pub mod generic {
        tonic::include_proto!("runtimeoptions.v1");
    }
}
