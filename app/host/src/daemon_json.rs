//! dockerd's configuration for the guest: the user's own `daemon.json`, with what the settings say over it.

use crate::shares;
use longshore_host_api::{ApiError, ErrorCode, Settings};
use serde_json::{Map, Value, json};
use std::path::Path;

/// What the guest's daemon gets. Keys that it does not know are passed on, and ignored there.
pub fn compose(path: &Path, settings: &Settings) -> Result<Value, ApiError> {
    let mut all = read(path)?;
    let registries = all.get("insecure-registries").and_then(Value::as_array);
    let mut registries = registries.cloned().unwrap_or_default();
    registries.extend(settings.insecure_registries.iter().map(|name| json!(name)));
    all.insert("insecure-registries".into(), json!(registries));
    all.insert("ip".into(), json!(settings.publish_address.to_string()));
    all.insert(
        "longshore".into(),
        json!({ "share-command": shares::SHARE_COMMAND }),
    );
    Ok(Value::Object(all))
}

fn read(path: &Path) -> Result<Map<String, Value>, ApiError> {
    let wrong = |why: String| {
        ApiError::new(ErrorCode::Invalid, format!("{}: {why}", path.display()))
            .at_stage("check")
            .with_hint("mend the file, or remove it to have the defaults")
    };
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| wrong(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(wrong(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_file_is_under_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        let machine = crate::machine::detect();
        let settings = Settings {
            insecure_registries: vec!["b:5000".into()],
            ..Settings::defaults(machine)
        };
        let composed = || compose(&path, &settings).map(|value| value.to_string());
        assert!(
            composed()
                .unwrap()
                .contains(r#""insecure-registries":["b:5000"]"#)
        );
        let own = r#"{"ipv6": true, "insecure-registries": ["a:5000"], "ip": "0.0.0.0"}"#;
        std::fs::write(&path, own).unwrap();
        let all = composed().unwrap();
        for expected in [
            r#"["a:5000","b:5000"]"#,
            r#""ipv6":true"#,
            r#""ip":"127.0.0.1""#,
        ] {
            assert!(all.contains(expected), "{all}");
        }
        std::fs::write(&path, "[]").unwrap();
        assert!(composed().is_err());
    }
}
