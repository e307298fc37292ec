//! Generates the server halves of containerd's services from the protos inside containerd-client's package.
//!
//! containerd-client exports every message and every client stub, but no server. Its package carries
//! the `.proto` files that it was made from, so the server traits are generated from exactly those,
//! on top of its message types (`extern_path`): one set of types for both halves, and no copied proto.

use std::path::{Path, PathBuf};
use std::process::Command;

const SERVICES: &[&str] = &[
    "containers/v1/containers",
    "content/v1/content",
    "diff/v1/diff",
    "events/v1/events",
    "images/v1/images",
    "introspection/v1/introspection",
    "leases/v1/leases",
    "namespaces/v1/namespace",
    "snapshots/v1/snapshots",
    "streaming/v1/streaming",
    "tasks/v1/tasks",
    "transfer/v1/transfer",
    "version/v1/version",
];

/// Messages that containerd-client does not export.
const EXTRA_TYPES: &[&str] = &["runc/options/oci", "runtimeoptions/v1/api"];

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("running cargo metadata: {0}")]
    Metadata(std::io::Error),
    #[error("cargo metadata failed: {0}")]
    MetadataFailed(String),
    #[error("parsing cargo metadata: {0}")]
    Parse(serde_json::Error),
    #[error("containerd-client is not among the dependencies")]
    NoPackage,
    #[error("generating from {path}: {source}")]
    Generate {
        path: PathBuf,
        source: std::io::Error,
    },
}

fn main() -> Result<(), Error> {
    println!("cargo:rerun-if-changed=build.rs");
    let vendor = client_package()?.join("vendor");
    let api = vendor.join("github.com/containerd/containerd/api");
    let services: Vec<PathBuf> = SERVICES
        .iter()
        .map(|name| api.join(format!("services/{name}.proto")))
        .collect();
    generate_servers(&services, &vendor)?;
    let extra: Vec<PathBuf> = EXTRA_TYPES
        .iter()
        .map(|name| api.join(format!("types/{name}.proto")))
        .collect();
    generate_types(&extra, &vendor)
}

/// The unpacked package of containerd-client, wherever cargo keeps it.
fn client_package() -> Result<PathBuf, Error> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let target = std::env::var("TARGET").unwrap_or_default();
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--filter-platform",
            &target,
        ])
        .output()
        .map_err(Error::Metadata)?;
    if !output.status.success() {
        return Err(Error::MetadataFailed(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(Error::Parse)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "containerd-client")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or(Error::NoPackage)?;
    Path::new(manifest)
        .parent()
        .map(Path::to_path_buf)
        .ok_or(Error::NoPackage)
}

fn generate_servers(protos: &[PathBuf], vendor: &Path) -> Result<(), Error> {
    let mut builder = tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".containerd.types", "::containerd_client::types")
        .extern_path(
            ".containerd.types.transfer",
            "::containerd_client::types::transfer",
        )
        .extern_path(".containerd.v1.types", "::containerd_client::types::v1")
        .extern_path(".google.rpc", "::containerd_client::google::rpc");
    for name in SERVICES {
        let service = name.split('/').next().unwrap_or_default();
        let module = match service {
            // Their `Info` messages share a name, so containerd-client gives this one a module.
            "snapshots" => "::containerd_client::services::v1::snapshots",
            _ => "::containerd_client::services::v1",
        };
        builder = builder.extern_path(format!(".containerd.services.{service}.v1"), module);
    }
    builder
        .compile_protos(protos, &[vendor.to_path_buf()])
        .map_err(|source| Error::Generate {
            path: vendor.to_path_buf(),
            source,
        })
}

fn generate_types(protos: &[PathBuf], vendor: &Path) -> Result<(), Error> {
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .compile_with_config(config, protos, &[vendor.to_path_buf()])
        .map_err(|source| Error::Generate {
            path: vendor.to_path_buf(),
            source,
        })
}
