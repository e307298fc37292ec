//! The `-info` flag: what containerd's introspection tells of this shim and its runtime.

use std::io::Read;
use std::process::Command;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeRequest};

use crate::options::Options;
use crate::runtime::find_binary;

const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
const MAX_REQUEST: u64 = 1 << 20;

/// Reads the request from stdin; the runtime's own features are asked for and passed on.
pub fn runtime_info() -> RuntimeInfo {
    let mut bytes = Vec::new();
    drop(std::io::stdin().take(MAX_REQUEST).read_to_end(&mut bytes));
    let request = RuntimeRequest::parse_from_bytes(&bytes).unwrap_or_default();
    let mut info = RuntimeInfo::new();
    info.name = "io.containerd.longshore.v2".to_owned();
    info.version.mut_or_insert_default().version = env!("CARGO_PKG_VERSION").to_owned();
    if let Ok(options) = Options::from_any(request.options.as_ref(), "")
        && let Ok(output) = Command::new(find_binary(&options.binary))
            .arg("features")
            .output()
        && output.status.success()
    {
        let mut features = Any::new();
        features.type_url = FEATURES_TYPE.to_owned();
        features.value = output.stdout;
        info.features = MessageField::some(features);
    }
    info.options = request.options;
    info
}
