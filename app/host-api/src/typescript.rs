//! The front end's types, written from these: `ui/src/api/types.ts`.

use std::path::Path;

use ts_rs::{Config, TS};

use crate::{doctor, error, settings, types};

const HEAD: &str = "// Written from app/host-api by its tests. Change the Rust types, then:\n\
    // LONGSHORE_WRITE_TYPES=1 cargo test -p longshore-host-api typescript\n\n";

fn generated() -> String {
    fn one<T: TS>() -> String {
        format!(
            "export {}\n",
            T::decl(&Config::default().with_large_int("number"))
        )
    }
    let declarations = [
        one::<types::State>(),
        one::<types::Status>(),
        one::<types::VmFacts>(),
        one::<types::ShareStatus>(),
        one::<types::PublishedPort>(),
        one::<types::StartRequest>(),
        one::<types::Progress>(),
        one::<types::SettingsChange>(),
        one::<types::SettingsChanged>(),
        one::<types::LogSource>(),
        one::<types::EngineState>(),
        one::<types::MachineFacts>(),
        one::<types::StreamRequest>(),
        one::<types::StreamHead>(),
        one::<types::UploadRequest>(),
        one::<types::Saving>(),
        one::<types::DataMove>(),
        one::<types::Welcome>(),
        one::<types::Layers>(),
        one::<types::LayerService>(),
        one::<types::ChainProcess>(),
        one::<types::TraceSpan>(),
        one::<types::ContainerUsage>(),
        one::<types::CpuStats>(),
        one::<types::CpuUsage>(),
        one::<types::MemoryStats>(),
        one::<types::MemoryDetails>(),
        one::<settings::Settings>(),
        one::<error::ErrorCode>(),
        one::<error::ApiError>(),
        one::<doctor::Verdict>(),
        one::<doctor::Check>(),
        one::<doctor::Report>(),
    ];
    format!("{HEAD}{}", declarations.join("\n"))
}

#[test]
fn the_front_ends_types_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/src/api/types.ts");
    let wanted = generated();
    if std::env::var_os("LONGSHORE_WRITE_TYPES").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        present == wanted,
        "ui/src/api/types.ts is stale: LONGSHORE_WRITE_TYPES=1 cargo test -p longshore-host-api typescript"
    );
}
